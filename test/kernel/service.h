/* SPDX-License-Identifier: MIT */
/*
 * Services for tests of the kernel interface, without librpal.
 *
 * A test program executes itself again for every service: main() begins with
 * RUN_ROLE(argc, argv), and struct role names the functions that can be run.
 * The test and a service talk over a socket, one struct word at a time.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include "pkru.h"
#include "tap.h"
#include <fcntl.h>
#include <linux/rpal.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOT_SIZE	 (1UL << RPAL_SLOT_SHIFT)
#define SLOT_OF(address) ((unsigned long)(address) >> RPAL_SLOT_SHIFT)

struct role {
	const char *name;
	int (*run)(int socket);
};

extern const struct role roles[];

struct child {
	pid_t pid;
	int socket;
	struct rpal_info info;
};

static int device(void)
{
	int fd = open("/dev/rpal", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		skip_all("no /dev/rpal");
	return fd;
}

static struct rpal_info get_info(int fd)
{
	struct rpal_info info = { .size = sizeof(info) };

	if (ioctl(fd, RPAL_IOC_INFO, &info))
		bail_out("RPAL_IOC_INFO");
	return info;
}

static inline void say(int socket, uint64_t word)
{
	if (write(socket, &word, sizeof(word)) != sizeof(word))
		_exit(98);
}

/* All ones if the other side has gone. */
static inline uint64_t hear(int socket)
{
	uint64_t word;

	return read(socket, &word, sizeof(word)) == sizeof(word) ? word : ~0UL;
}

static struct child spawn_file(int exe, const char *role, bool service)
{
	struct child child = {};
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		bail_out("socketpair");
	/* fork() copies what exec throws away: much of the time with an emulator. */
	child.pid = vfork();
	if (child.pid < 0)
		bail_out("vfork");
	if (!child.pid) {
		char number[16], count[16];
		char *argv[] = { "service", (char *)role, number, count, NULL };

		snprintf(number, sizeof(number), "%d", dup(sockets[1]));
		snprintf(count, sizeof(count), "%d", tap_count);
		if (service && ioctl(device(), RPAL_IOC_NEXT_EXEC, 1))
			_exit(95);
		syscall(SYS_execveat, exe, "", argv, environ, AT_EMPTY_PATH);
		say(sockets[1], -errno);
		_exit(97);
	}
	close(sockets[1]);
	child.socket = sockets[0];
	return child;
}

static struct child spawn(const char *role, bool service)
{
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct child child = spawn_file(exe, role, service);

	close(exe);
	return child;
}

/* How it ended: exit status, or -signal. */
static inline int outcome(struct child *child)
{
	int status;

	if (child->socket >= 0)
		close(child->socket);
	child->socket = -1;
	if (waitpid(child->pid, &status, 0) != child->pid)
		return 999;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static inline int end(struct child *child)
{
	kill(child->pid, SIGKILL);
	return outcome(child);
}

/* In a role: the service introduces itself and lets others ask for it. */
static inline int introduce(int socket, struct rpal_info *info)
{
	int fd = device();
	uint64_t meta = 0x4d455441;

	*info = get_info(fd);
	if (ioctl(fd, RPAL_IOC_ENABLE, &meta))
		bail_out("RPAL_IOC_ENABLE");
	if (write(socket, info, sizeof(*info)) != sizeof(*info))
		_exit(98);
	return fd;
}

/* In the test: what introduce() told. */
static inline void meet(struct child *child)
{
	if (read(child->socket, &child->info, sizeof(child->info)) != sizeof(child->info))
		bail_out("a service did not start");
}

static inline long request(int fd, uint64_t key, struct rpal_request *request)
{
	memset(request, 0, sizeof(*request));
	request->key = key;
	return result(ioctl(fd, RPAL_IOC_REQUEST, request));
}

static inline int run_role(int argc, char **argv)
{
	if (argc < 3)
		return -1;
	/* If it is a test itself, it goes on counting. */
	if (argc > 3)
		tap_count = atoi(argv[3]);
	for (const struct role *role = roles; role->name; role++)
		if (!strcmp(role->name, argv[1]))
			return role->run(atoi(argv[2]));
	return 96;
}

#define RUN_ROLE(argc, argv)                        \
	do {                                        \
		int status_ = run_role(argc, argv); \
		if (status_ >= 0)                   \
			return status_;             \
		setvbuf(stdout, NULL, _IOLBF, 0);   \
	} while (0)

/* A role that is a test itself ends with this. */
static inline int tell_counts(int socket)
{
	say(socket, tap_count | tap_failed << 16);
	return 0;
}

/* The facts of such a role, in a service of its own. */
static inline void test_in_service(const char *role)
{
	struct child self = spawn(role, true);
	uint64_t counts = hear(self.socket);

	if (counts == ~0UL)
		bail_out("the service died");
	tap_count = counts & 0xffff;
	tap_failed += counts >> 16;
	is(outcome(&self), 0, "the service ends well");
}

/*
 * Runs a piece of code that may get SIGSEGV or SIGBUS: 0, or the si_code of the
 * signal. The handler runs with the default PKRU and returns nowhere.
 */
static sigjmp_buf after_fault;
static volatile int fault_code;

static inline void on_fault(int signal, siginfo_t *info, void *context)
{
	fault_code = signal == SIGBUS ? 100 + info->si_code : info->si_code;
	siglongjmp(after_fault, 1);
}

static inline void catch_faults(void)
{
	struct sigaction action = {
		.sa_sigaction = on_fault,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

#define FAULTS(code)                              \
	({                                        \
		catch_faults();                   \
		fault_code = 0;                   \
		if (!sigsetjmp(after_fault, 1)) { \
			code;                     \
		}                                 \
		fault_code;                       \
	})

#endif
