/* SPDX-License-Identifier: MIT */
/*
 * A server whose clients come and go. The test sends it one end of a socket for
 * each, over another socket; the client has the other end.
 */
#ifndef MEET_CLIENTS_H
#define MEET_CLIENTS_H

#include "two_services.h"
#include <pthread.h>
#include <sys/uio.h>

/* -1: there will be none. */
static inline int receive_socket(int orders)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t got;

	do {
		got = recvmsg(orders, &message, 0);
	} while (got < 0 && errno == EINTR);
	return got == 1 ? *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message)) : -1;
}

/* False: there is nobody who could take it. */
static inline bool send_socket(int orders, int socket)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	*(int *)CMSG_DATA(header) = socket;
	return sendmsg(orders, &message, MSG_NOSIGNAL) == 1;
}

struct door {
	int orders;
	uint32_t tid; /* of the receiver */
};

/* An ordinary thread: makes peers of all who come. */
static inline void *meet_clients(void *arg)
{
	const struct door *door = arg;
	int socket;

	while ((socket = receive_socket(door->orders)) >= 0) {
		become_peers(socket);
		tell(socket, &door->tid, sizeof(door->tid));
		close(socket);
	}
	return NULL;
}

/* The calling thread becomes a receiver, and another one meets its clients. */
static inline void become_receiver_of_all(int orders)
{
	static struct door door;
	sigset_t all, before;
	pthread_t thread;

	MUST(rpal_open());
	MUST(rpal_attach(RPAL_ROLE_RECEIVER));
	door = (struct door){ orders, rpal_tid() };
	/* Signals are for the receiver. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_create(&thread, NULL, meet_clients, &door);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

#endif
