/* SPDX-License-Identifier: MIT */
/*
 * Two services that are peers and know each other's queues, for tests of queues
 * of words. As two_services.h, with the directory as the word of rpal_enable().
 */
#ifndef QUEUE_PAIR_H
#define QUEUE_PAIR_H

#include "two_services.h"
#include <rpal_queue.h>

/* Before become_peers(), which then finds that this service is enabled. */
static inline void enable_queues(void)
{
	MUST(rpal_open());
	MUST(rpal_enable(rpal_queue_directory()));
}

static inline int watch(int epfd, int op, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return rpal_queue_ctl(epfd, op, fd, &event);
}

/* The other side watches its end some time after it has linked. */
static inline struct rpal_writer *open_writer(const struct rpal_peer *peer, int fd)
{
	struct rpal_writer *writer;
	int ret;

	do {
		ret = rpal_writer_open(&writer, peer, fd);
	} while (ret == -EAGAIN);
	MUST(ret);
	return writer;
}

/* A descriptor on its way from one side to the other. */
static inline int receive_fd(int socket)
{
	char data, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &data, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	int fd;

	if (recvmsg(socket, &message, 0) != 1)
		return -errno;
	header = CMSG_FIRSTHDR(&message);
	if (!header)
		return -EBADMSG;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static inline void send_fd(int socket, int fd)
{
	char data = 'f', control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &data, 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(socket, &message, 0) != 1)
		die("sendmsg", errno);
}

/*
 * A service that is a peer of ours and of the server's. It is started in a role
 * that gets a socket to us, one to the server, and one more number. The server
 * gets its end of theirs on the control socket, and has to be told so then.
 */
static inline struct side start_third(const char *role, struct side *side, int number, pid_t *pid)
{
	char numbers[2][16], *args[] = { numbers[0], numbers[1] };
	struct side third;
	int pair[2];

	/* Without close-on-exec. */
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		die("socketpair", errno);
	send_fd(side->socket, pair[1]);
	close(pair[1]);
	snprintf(numbers[0], sizeof(numbers[0]), "%d", pair[0]);
	snprintf(numbers[1], sizeof(numbers[1]), "%d", number);
	third = start_peer(role, 2, args, pid);
	close(pair[0]);
	return third;
}

#endif
