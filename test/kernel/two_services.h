/* SPDX-License-Identifier: MIT */
/*
 * Two services that are peers, for tests of calls: the test program starts
 * itself twice more, as a server and a client.
 *
 * The client runs the test and prints the TAP lines. What it says by its exit
 * status counts, as does a server that fails when it should not.
 */
#ifndef TWO_SERVICES_H
#define TWO_SERVICES_H

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <ucontext.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <rpal.h>

struct side {
	int socket;		/* to the other side */
	pid_t other;
	struct rpal_peer peer;
	struct rpal_target target;	/* client: the server's main thread */
};

static inline void die(const char *what, int error)
{
	printf("Bail out! %s: %s (pid %d)\n", what, strerror(error), getpid());
	fflush(stdout);
	_exit(99);
}

#define MUST(call) must(#call, (call))
static inline int must(const char *what, int ret)
{
	if (ret < 0)
		die(what, -ret);
	return ret;
}

static inline void tell(int socket, const void *data, size_t bytes)
{
	if (write(socket, data, bytes) != (ssize_t)bytes)
		die("write to the other side", errno);
}

static inline void hear(int socket, void *data, size_t bytes)
{
	if (read(socket, data, bytes) != (ssize_t)bytes)
		die("read from the other side", errno ? errno : EPIPE);
}

struct greeting {
	uint64_t key;
	pid_t pid;
};

/* Both sides: become peers. */
static inline struct side become_peers(int socket)
{
	struct side side = { .socket = socket };
	struct greeting mine, theirs;
	static bool enabled;
	uint32_t tid;

	MUST(rpal_open());
	if (!enabled)
		MUST(rpal_enable(0));
	enabled = true;
	mine.key = rpal_service()->key;
	mine.pid = getpid();
	tell(socket, &mine, sizeof(mine));
	hear(socket, &theirs, sizeof(theirs));
	side.other = theirs.pid;
	MUST(rpal_peer_request(theirs.key, &side.peer));
	tell(socket, "r", 1);
	hear(socket, &tid, 1);
	MUST(rpal_peer_request(theirs.key, &side.peer));
	if (!side.peer.linked)
		die("both asked, but are not linked", EPROTO);
	return side;
}

static inline void introduce_receiver(struct side *side, unsigned int roles)
{
	uint32_t tid;

	MUST(rpal_attach(roles));
	tid = rpal_tid();
	tell(side->socket, &tid, sizeof(tid));
}

static inline void meet_receiver(struct side *side)
{
	uint32_t tid;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	hear(side->socket, &tid, sizeof(tid));
	MUST(rpal_target_init(&side->target, tid, side->peer.pkey));
}

static inline pid_t start_service(const char *role, int socket, int argc,
				  char **argv)
{
	char number[16], *args[32] = { "/proc/self/exe", (char *)role, number };
	pid_t pid = fork();

	if (pid)
		return pid;
	snprintf(number, sizeof(number), "%d", socket);
	for (int i = 1; i < argc && i < 28; i++)
		args[2 + i] = argv[i];
	MUST(rpal_exec_service());
	execv("/proc/self/exe", args);
	die("execv", errno);
	return 0;
}

/* For tests whose client starts services of its own, as peers of itself. */
static inline struct side start_peer(const char *role, int argc, char **argv,
				     pid_t *pid)
{
	struct side side;
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	*pid = fork();
	if (*pid == 0) {
		char number[16], *args[32] = { "/proc/self/exe", (char *)role,
					       number };

		snprintf(number, sizeof(number), "%d", dup(sockets[0]));
		for (int i = 0; i < argc && i < 28; i++)
			args[3 + i] = argv[i];
		MUST(rpal_exec_service());
		execv("/proc/self/exe", args);
		die("execv", errno);
	}
	close(sockets[0]);
	side = become_peers(sockets[1]);
	return side;
}

/*
 * The whole main(): runs server and client in services of their own. The
 * server may be killed by the client or left running; it is then ended here.
 */
static inline int two_services(int argc, char **argv,
			       void (*server)(struct side *, int, char **),
			       int (*client)(struct side *, int, char **))
{
	int sockets[2], status, ret;
	pid_t pids[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "--server")) {
		struct side side = become_peers(atoi(argv[2]));

		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		server(&side, argc - 2, argv + 2);
		return 0;
	}
	if (argc > 2 && !strcmp(argv[1], "--client")) {
		struct side side = become_peers(atoi(argv[2]));

		meet_receiver(&side);
		return client(&side, argc - 2, argv + 2);
	}

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		die("socketpair", errno);
	pids[0] = start_service("--server", sockets[0], argc, argv);
	pids[1] = start_service("--client", sockets[1], argc, argv);
	close(sockets[0]);
	close(sockets[1]);
	waitpid(pids[1], &status, 0);
	ret = WIFEXITED(status) ? WEXITSTATUS(status) : 100;
	if (ret == 100)
		printf("Bail out! the client died of signal %d\n",
		       WTERMSIG(status));
	if (waitpid(pids[0], &status, WNOHANG) == 0) {
		kill(pids[0], SIGKILL);
		waitpid(pids[0], &status, 0);
	}
	return ret;
}

static int tap_number, tap_failed;

static inline bool ok(bool passed, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("%sok %d - ", passed ? "" : "not ", ++tap_number);
	vprintf(format, args);
	printf("\n");
	va_end(args);
	tap_failed += !passed;
	return passed;
}

static inline int tap_end(void)
{
	printf("1..%d\n", tap_number);
	return tap_failed != 0;
}

#endif
