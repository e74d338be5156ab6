/* guest: debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Time namespaces: peers have the same one. A clock that is read on loan is read
 * through the owner's pages, and the kernel maps what the namespace of the task
 * has there: so a service keeps the namespace that it began in.
 */
#include "two_services.h"
#include <fcntl.h>
#include <sched.h>
#include <time.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* In ns. A guest that has just booted is not a second old. */
static uint64_t now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000UL + now.tv_nsec;
}

static int handle(struct rpal_message *m)
{
	m->word[0] = now();
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* Started in another namespace: asks for the one who has started it. */
static int stranger(int socket)
{
	struct rpal_peer peer;
	uint64_t key;
	int ret;

	key = enable_service();
	tell(socket, &key, sizeof(key));
	hear(socket, &key, sizeof(key));
	ret = rpal_peer_request(key, &peer);
	tell(socket, &ret, sizeof(ret));
	hear(socket, &ret, 1);
	return 0;
}

static void test_stranger(void)
{
	struct rpal_peer peer;
	int sockets[2], ret;
	uint64_t key;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	pid = start_service("--stranger", sockets[0], 0, NULL);
	hear(sockets[1], &key, sizeof(key));
	is(rpal_peer_request(key, &peer), -EXDEV, "a service there is refused as a peer");
	key = rpal_service()->key;
	tell(sockets[1], &key, sizeof(key));
	hear(sockets[1], &ret, sizeof(ret));
	is(ret, -EXDEV, "and is refused one here");
	tell(sockets[1], "e", 1);
	waitpid(pid, NULL, 0);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_message m = {};
	uint64_t before;
	int fd;

	if (unshare(CLONE_NEWTIME))
		skip_all("there are no time namespaces");
	fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	is(setns(fd, CLONE_NEWTIME) ? -errno : 0, -EUSERS,
	   "a service makes a time namespace for its children, but cannot enter it");
	close(fd);
	before = now();
	is(rpal_call(&side->target, &m, -1), 0, "its peer answers");
	ok(before <= m.word[0] && m.word[0] <= now(), "and has the same time");
	test_stranger();
	return done();
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "--stranger"))
		return stranger(atoi(argv[2]));
	return two_services(argc, argv, server, client);
}
