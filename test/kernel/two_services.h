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

#include "tap.h"
#include <rpal.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

struct side {
	int socket; /* to the other side */
	pid_t other;
	uint64_t key; /* the other side's */
	struct rpal_peer peer;
	struct rpal_target target; /* client: the server's main thread */
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

/* Both sides have come so far. */
static inline void meet_again(int socket)
{
	char byte = 0;

	tell(socket, &byte, 1);
	hear(socket, &byte, 1);
}

/* Lets others ask for this service; its key. */
static inline uint64_t enable_service(void)
{
	int ret;

	MUST(rpal_open());
	ret = rpal_enable(0);
	if (ret != -EALREADY)
		MUST(ret);
	return rpal_service()->key;
}

/* Both sides: become peers. */
static inline struct side become_peers(int socket)
{
	struct side side = { .socket = socket };
	struct greeting mine, theirs;

	mine.key = enable_service();
	mine.pid = getpid();
	tell(socket, &mine, sizeof(mine));
	hear(socket, &theirs, sizeof(theirs));
	side.other = theirs.pid;
	side.key = theirs.key;
	MUST(rpal_peer_request(theirs.key, &side.peer));
	meet_again(socket);
	MUST(rpal_peer_request(theirs.key, &side.peer));
	if (!side.peer.linked)
		die("both asked, but are not linked", EPROTO);
	/* One may part from the other at once: not before that has looked. */
	meet_again(socket);
	return side;
}

/* Of the calling thread, which is attached. */
static inline struct rpal_control *own_control(void)
{
	return (void *)((uintptr_t)rpal_service()->slot_start + RPAL_CONTROL_OFFSET +
			RPAL_TID_INDEX(rpal_tid()) * RPAL_CONTROL_STRIDE);
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

/* Executes this program as a service: ROLE SOCKET arguments… */
static inline pid_t start_service(const char *role, int socket, int argc, char **argv)
{
	char number[16], *args[32] = { "/proc/self/exe", (char *)role, number };
	pid_t pid;

	/* fork() copies what exec throws away: most of the time with an emulator. */
	pid = vfork();
	if (pid)
		return pid;
	/* Without close-on-exec, if it had that. */
	snprintf(number, sizeof(number), "%d", dup(socket));
	for (int i = 0; i < argc && i < 28; i++)
		args[3 + i] = argv[i];
	MUST(rpal_exec_service());
	execv("/proc/self/exe", args);
	die("execv", errno);
	return 0;
}

/* For tests whose client starts services of its own, as peers of itself. */
static inline struct side start_peer(const char *role, int argc, char **argv, pid_t *pid)
{
	struct side side;
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	*pid = start_service(role, sockets[0], argc, argv);
	if (*pid < 0)
		die("fork", errno);
	close(sockets[0]);
	side = become_peers(sockets[1]);
	return side;
}

/*
 * Did start_peer() start this program, as "--mortal"? Then it is a peer by now,
 * and has introduced its receiver.
 */
static inline bool is_mortal(int argc, char **argv, unsigned int roles, struct side *side)
{
	if (argc < 3 || strcmp(argv[1], "--mortal"))
		return false;
	*side = become_peers(atoi(argv[2]));
	introduce_receiver(side, roles);
	return true;
}

/*
 * The receiver's loop: @handle makes the answer of the message, its result is
 * the status.
 */
static inline void serve_calls(int (*handle)(struct rpal_message *message))
{
	struct rpal_message message = { 0 };
	int answer = 0, status = 0;

	for (;;) {
		int ret = rpal_serve_one(&message, answer, status);

		/* A signal was handled; the answer has been given. */
		answer = ret != -EINTR;
		if (!answer)
			continue;
		MUST(ret);
		status = handle(&message);
	}
}

/* What the process that starts both does until the client, pids[1], ends. */
static void (*meanwhile)(const pid_t pids[2]);

/*
 * The whole main(): runs server and client in services of their own. The
 * server may be killed by the client or left running; it is then ended here.
 */
static inline int two_services(int argc, char **argv, void (*server)(struct side *, int, char **),
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

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	pids[0] = start_service("--server", sockets[0], argc - 1, argv + 1);
	pids[1] = start_service("--client", sockets[1], argc - 1, argv + 1);
	close(sockets[0]);
	close(sockets[1]);
	if (meanwhile)
		meanwhile(pids);
	waitpid(pids[1], &status, 0);
	ret = WIFEXITED(status) ? WEXITSTATUS(status) : 100;
	if (ret == 100)
		printf("Bail out! the client died of signal %d\n", WTERMSIG(status));
	if (waitpid(pids[0], &status, WNOHANG) == 0) {
		kill(pids[0], SIGKILL);
		waitpid(pids[0], &status, 0);
	}
	return ret;
}

#endif
