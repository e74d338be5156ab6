/* SPDX-License-Identifier: MIT */
/* A machine that cannot have services: it is said so, and nothing else changes. */
#ifndef NO_SERVICES_H
#define NO_SERVICES_H

#include "marked_program.h"
#include <rpal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

/* An argument of the test program: its exit status is whether it is a service. */
#define IS_SERVICE "--is-service"

static inline bool file_has(const char *path, const char *word)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t room = 0;
	bool has = false;

	if (!file)
		bail_out(path);
	while (!has && getline(&line, &room, file) > 0)
		has = strstr(line, word);
	free(line);
	fclose(file);
	return has;
}

static inline bool has_keys(void)
{
	return file_has("/proc/cpuinfo", " ospke");
}

/* Executes a program: its exit status, or -errno. */
static inline int run(int fd)
{
	char *argv[] = { "program", IS_SERVICE, NULL };
	volatile int error = 0;
	int status;
	pid_t pid;

	pid = vfork();
	if (!pid) {
		fexecve(fd, argv, environ);
		error = -errno;
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return error ?: WEXITSTATUS(status);
}

/* Whether protection keys would be used is told, too. */
static inline void test_refused(bool keys)
{
	int plain = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int fd = open("/dev/rpal", O_RDWR | O_CLOEXEC);
	struct rpal_info info;

	is(rpal_probe(&info), 0, "the kernel has RPAL");
	ok(info.abi == RPAL_ABI_VERSION && !(info.caps & ~RPAL_CAP_MPK),
	   "and no services to offer (%#llx)", info.caps);
	ok(!info.caps == !keys, "it says whether there are protection keys");
	is(rpal_exec_service(), -EOPNOTSUPP, "nobody can ask for the next program to be a service");
	is(result(ioctl(fd, RPAL_IOC_NEXT_EXEC, 1)), -EOPNOTSUPP, "not by hand either");
	is(result(ioctl(fd, RPAL_IOC_NEXT_EXEC, 0)), 0, "only not to");
	is(run(plain), 0, "who did runs a program that is none");
	is(run(marked_program()), -EOPNOTSUPP, "a program that has to be one is not executed");
	is(rpal_open(), -EPERM, "this one is none");
	is(rpal_attach(RPAL_ROLE_SENDER), -EPERM, "and cannot call");
	is(rpal_attach(RPAL_ROLE_RECEIVER), -EPERM, "or be called");
}

#endif
