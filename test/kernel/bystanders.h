/* SPDX-License-Identifier: MIT */
/*
 * Two services that have nothing to do with what a test does to others. They
 * call each other all the time, and must not notice anything.
 *
 * A test's main() begins with RUN_BYSTANDER(argc, argv).
 */
#ifndef BYSTANDERS_H
#define BYSTANDERS_H

#include "two_services.h"
#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Whom the bystanders, and others that are nobody special, belong to. */
#define USER 1000

struct bystanders {
	uint64_t calls, wrong;
	char what[80]; /* was wrong at first */
	bool stop;
	uint64_t keys[2]; /* for those who want to try them */
	uint32_t tids[2];
};

static struct bystanders *bystanders;
static int bystanders_fd;
static pid_t bystander_pids[2];

static inline void map_bystanders(int fd)
{
	bystanders_fd = fd;
	bystanders = mmap(NULL, sizeof(*bystanders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bystanders == MAP_FAILED)
		die("mmap", errno);
}

static int start_error; /* errno of who exits with more than 94: it shares the memory until then */

/* Executes this program as a service or not, in a process group of its own. */
static inline pid_t start_as(bool service, uid_t user, char **args)
{
	pid_t pid = vfork();

	if (pid < 0)
		die("vfork", errno);
	if (pid)
		return pid;
	setpgid(0, 0);
	/* Not those of libc: they are for all threads, and so of the parent. */
	if (user && (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, user, user, user) ||
		     syscall(SYS_setresuid, user, user, user)))
		_exit(95);
	if (service && rpal_exec_service())
		_exit(96);
	execv("/proc/self/exe", args);
	start_error = errno;
	_exit(97);
}

static inline int bystander_handle(struct rpal_message *m)
{
	/* Now and then as oneself, in the kernel. */
	if (m->word[0] % 16 == 0) {
		m->word[2] = getpid();
		m->word[3] = getuid();
	}
	m->word[1] = ~m->word[0];
	return 0;
}

static inline void bystander_calls(struct side *side)
{
	for (uint64_t i = 0; !bystanders->stop; i++) {
		struct rpal_message m = { { i } };
		int ret = rpal_call(&side->target, &m, 60000);

		bystanders->calls++;
		if ((ret || m.word[1] != ~i ||
		     (i % 16 == 0 &&
		      (m.word[2] != (uint64_t)side->other || m.word[3] != USER))) &&
		    !bystanders->wrong++)
			snprintf(bystanders->what, sizeof(bystanders->what),
				 "call %llu: %d, words %llx %llu %llu", (unsigned long long)i, ret,
				 m.word[1], m.word[2], m.word[3]);
		/* Leave the CPUs to those that the test is about. */
		if (i % 32 == 0)
			usleep(500);
	}
}

/* PROGRAM --bystander SOCKET BYSTANDERS ROLE */
static inline int bystander(char **argv)
{
	struct side side = become_peers(atoi(argv[2]));
	bool serves = !strcmp(argv[4], "server");

	map_bystanders(atoi(argv[3]));
	bystanders->keys[serves] = rpal_service()->key;
	if (serves)
		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
	else
		meet_receiver(&side);
	bystanders->tids[serves] = rpal_tid();
	if (serves)
		serve_calls(bystander_handle);
	bystander_calls(&side);
	return 0;
}

#define RUN_BYSTANDER(argc, argv)                                    \
	do {                                                         \
		if ((argc) == 5 && !strcmp((argv)[1], "--bystander")) \
			return bystander(argv);                      \
	} while (0)

static inline void start_bystanders(void)
{
	static char *const roles[] = { "client", "server" };
	int sockets[2], fd = memfd_create("bystanders", 0);

	if (fd < 0 || ftruncate(fd, sizeof(*bystanders)) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("bystanders", errno);
	map_bystanders(fd);
	for (int i = 0; i < 2; i++) {
		char text[2][16];
		char *args[] = { "bystander", "--bystander", text[0], text[1], roles[i], NULL };
		int socket = dup(sockets[i]);

		snprintf(text[0], sizeof(text[0]), "%d", socket);
		snprintf(text[1], sizeof(text[1]), "%d", fd);
		bystander_pids[i] = start_as(true, USER, args);
		close(socket);
		close(sockets[i]);
	}
	while (!bystanders->calls)
		usleep(1000);
}

/* They end, too, or the test hangs. */
static inline bool bystanders_noticed_nothing(void)
{
	bool good;

	bystanders->stop = true;
	waitpid(bystander_pids[0], NULL, 0);
	kill(bystander_pids[1], SIGKILL);
	waitpid(bystander_pids[1], NULL, 0);
	good = ok(bystanders->calls > 1 && !bystanders->wrong,
		  "bystanders made %llu calls, %llu were wrong",
		  (unsigned long long)bystanders->calls, (unsigned long long)bystanders->wrong);
	if (bystanders->wrong)
		printf("# %s\n", bystanders->what);
	return good;
}

/* The kernel's lines about processes that crash: "0" where crashing is normal. */
static inline void exception_trace(const char *value)
{
	int fd = open("/proc/sys/debug/exception-trace", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, 1) != 1)
		die("exception-trace", errno);
	close(fd);
}

#endif
