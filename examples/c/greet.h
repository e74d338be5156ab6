/* SPDX-License-Identifier: MIT */
/* What the two sides tell each other over a Unix socket before the first call. */
#ifndef GREET_H
#define GREET_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <rpal.h>

#define MESSAGES	1000000

struct greeting {
	uint64_t key;
	uint32_t tid;		/* of the receiver; 0 from a client */
};

static inline int check(const char *what, int ret)
{
	if (ret >= 0)
		return ret;
	fprintf(stderr, "%s: %s\n", what, strerror(-ret));
	if (ret == -EPERM)
		fprintf(stderr, "Start this program with: rpal run -- PROGRAM\n");
	exit(1);
}

static inline struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return address;
}

static inline void exchange(int socket, const void *mine, void *theirs,
			    size_t bytes)
{
	if (write(socket, mine, bytes) != (ssize_t)bytes ||
	    read(socket, theirs, bytes) != (ssize_t)bytes)
		check("greeting", errno ? -errno : -EPIPE);
}

/* Both sides: become peers. Returns the receiver's thread id, if there is one. */
static inline uint32_t become_peers(int socket, uint32_t tid,
				    struct rpal_peer *peer)
{
	struct greeting mine = { rpal_service()->key, tid }, theirs;
	char asked = 'a', answer;

	exchange(socket, &mine, &theirs, sizeof(mine));
	check("rpal_peer_request", rpal_peer_request(theirs.key, peer));
	/* Both have asked when both have heard of it. */
	exchange(socket, &asked, &answer, 1);
	check("rpal_peer_request", rpal_peer_request(theirs.key, peer));
	return theirs.tid;
}

#endif
