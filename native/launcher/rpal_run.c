/* SPDX-License-Identifier: MIT */
/*
 * rpal run: replaces this process by a program that is an RPAL service. The kernel puts it into a
 * slot of its own, and the preloaded shim makes its event loop one that can be called.
 *
 * In C and without Node.js, because a Node.js process cannot hand on what it was started with: its
 * libuv marks every descriptor as close-on-exec, and ignores signals. What is inherited here, the
 * program inherits.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <rpal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "Usage: rpal run [--call-only] -- PROGRAM [ARGUMENT...]\n"
    "\n"
    "Starts a program as an RPAL service, in place of this process.\n"
    "\n"
    "  --call-only  it only calls others: then a fixed-address program will do\n";

static _Noreturn __attribute__((format(printf, 1, 2))) void fail(const char* format, ...) {
  va_list arguments;

  fputs("rpal run: ", stderr);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

static bool is_program(const char* path) {
  struct stat status;

  return !stat(path, &status) && S_ISREG(status.st_mode) && !access(path, X_OK);
}

/* As execvp() looks for it, but so that the file can be looked at before. */
static const char* find_program(const char* name) {
  static char path[PATH_MAX];
  const char* search = getenv("PATH");

  if (strchr(name, '/')) {
    if (!is_program(name)) fail("There is no program '%s' there that this user may run.", name);
    return name;
  }
  for (const char* from = search ? search : "/usr/bin:/bin"; from;) {
    const char* end = strchrnul(from, ':');
    int length = end - from;
    int bytes = snprintf(path, sizeof(path), "%.*s%s%s", length, from, length ? "/" : "", name);

    if (bytes < (int)sizeof(path) && is_program(path)) return path;
    from = *end ? end + 1 : NULL;
  }
  fail("There is no program '%s' in PATH that this user may run.", name);
}

/* Says beforehand what the kernel would say by an errno, or what would fail much later. */
static void check_program(const char* path, bool call_only) {
  Elf64_Ehdr header;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t bytes;

  /* Programs may be executable without being readable. */
  if (file < 0) return;
  bytes = read(file, &header, sizeof(header));
  close(file);
  if (bytes < SELFMAG || memcmp(header.e_ident, ELFMAG, SELFMAG))
    fail(
        "'%s' cannot be run as a service: it is no ELF program; if it is a script, name its "
        "interpreter: rpal run -- node app.js",
        path);
  if (bytes < (ssize_t)sizeof(header) || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_machine != EM_X86_64 || (header.e_type != ET_EXEC && header.e_type != ET_DYN))
    fail("'%s' cannot be run as a service: it is no program for x86-64.", path);
  if (header.e_type == ET_EXEC && !call_only)
    fail(
        "'%s' cannot be run as a service: it is linked to a fixed address (ET_EXEC, as the "
        "official Node.js binaries are), so its data lies outside of the memory that RPAL shares, "
        "and it can call but not serve. Use a position-independent build, for example the nodejs "
        "package of Debian. To run it as a caller only: rpal run --call-only -- ...",
        path);
}

/* The shim lies beside this program. */
static const char* find_shim(void) {
  static const char name[] = "rpal_preload.so";
  static char path[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - sizeof(name));

  if (length < 0) fail("/proc/self/exe cannot be read (%m); mount /proc.");
  path[length] = '\0';
  memcpy(strrchr(path, '/') + 1, name, sizeof(name));
  if (access(path, R_OK)) fail("The epoll shim '%s' is not there. Build the package again.", path);
  return path;
}

/* The shim takes itself out again, for the children of the program. */
static void set_environment(void) {
  const char* shim = find_shim();
  const char* others = getenv("LD_PRELOAD");
  char* all;

  if (asprintf(&all, "%s%s%s", shim, others && *others ? ":" : "", others ? others : "") < 0 ||
      setenv("RPAL_PRELOAD", shim, 1) || setenv("LD_PRELOAD", all, 1) ||
      /* With io_uring libuv would wait in a place that cannot be called. */
      setenv("UV_USE_IO_URING", "0", 1))
    fail("There is no memory for the environment.");
}

/* Why this machine cannot start services, and what to do. */
static const char* machine_remedy(int error) {
  switch (error) {
    case ENOENT:
      return "this kernel has no /dev/rpal: boot a kernel with the RPAL patches (see rpal doctor)";
    case EACCES:
      return "this user may not use /dev/rpal: let the administrator allow it";
    case EPROTO:
      return "kernel and library speak different versions of RPAL; install matching ones";
    case ENODEV:
    case EOPNOTSUPP:
      return "the machine lacks what RPAL needs (see rpal doctor)";
    default:
      return strerror(error);
  }
}

/* Why this program could not become a service. */
static const char* program_remedy(int error) {
  switch (error) {
    case EAGAIN:
      return "there are as many services as there can be (254); end some";
    case ENOEXEC:
      return "it is no 64-bit ELF program; if it is a script, name its interpreter";
    case EPERM:
      return "a set-uid program cannot be a service; run it as the user it needs";
    case EOPNOTSUPP:
      return "the machine lacks what RPAL needs (see rpal doctor)";
    default:
      return strerror(error);
  }
}

int main(int argc, char** argv) {
  bool call_only = false;
  const char* path;
  int error, first = 1;

  for (; first < argc && argv[first][0] == '-'; first++) {
    if (!strcmp(argv[first], "--")) {
      first++;
      break;
    }
    if (!strcmp(argv[first], "--help")) {
      fputs(usage, stdout);
      return 0;
    }
    if (strcmp(argv[first], "--call-only"))
      fail("There is no option '%s'. Options of the program come after its name.", argv[first]);
    call_only = true;
  }
  if (first >= argc) fail("There is no program to run. Try: rpal run -- node app.js");

  path = find_program(argv[first]);
  check_program(path, call_only);
  set_environment();
  error = -rpal_exec_service();
  if (error)
    fail("'%s' cannot be run as a service (%s): %s.", argv[first], strerrorname_np(error),
         machine_remedy(error));
  execv(path, argv + first);
  error = errno;
  fail("'%s' cannot be run as a service (%s): %s.", path, strerrorname_np(error),
       program_remedy(error));
}
