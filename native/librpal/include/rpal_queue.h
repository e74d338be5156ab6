/* SPDX-License-Identifier: MIT */
/*
 * librpal: queues of words between peers, one for each end of a Unix socket.
 *
 * Two peers that are connected by a Unix socket can send each other 64-bit
 * words beside it: numbers, handles, or addresses that the other reads with
 * rpal_read_peer(). The words wait in a bounded queue in the memory of the
 * process that will take them. A thread of that process that sleeps in
 * rpal_epoll_wait() is called, in user mode, and gets EPOLLRPALIN for its
 * descriptor of the socket.
 *
 *	reader						writer
 *	rpal_enable(rpal_queue_directory())		the same
 *	rpal_attach(RPAL_ROLE_RECEIVER)			rpal_attach(RPAL_ROLE_SENDER)
 *	rpal_queue_ctl(epfd, EPOLL_CTL_ADD, socket,
 *		       { EPOLLRPALIN, … })		rpal_writer_open(&w, &peer, socket)
 *	rpal_epoll_wait(epfd, …)			rpal_queue_put(w, words, n)
 *	rpal_queue_take(socket, words, n)
 *
 * Both can do both at the same time. The conventions are those of rpal.h.
 */
#ifndef RPAL_QUEUE_H
#define RPAL_QUEUE_H

#include <rpal.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Words that a queue has room for, and the most that one put can have. */
#define RPAL_QUEUE_WORDS	64
#define RPAL_PUT_WORDS		32

/**
 * rpal_queue_directory - where the queues of this process are, for its peers
 *
 * What rpal_enable() wants as its word. It is constant while the process lives.
 * Thread-safe. Return: a word; 0 there is no memory for it.
 */
RPAL_API uint64_t rpal_queue_directory(void);

/**
 * rpal_queue_ctl - epoll_ctl(2) that can watch a descriptor's queue, too
 * @event: besides the events of epoll_ctl(2):
 *	EPOLLRPALIN	there are words to take
 *	EPOLLRPALOUT	rpal_queue_put() found no room, and now there is some
 *
 * With one of these, EPOLL_CTL_ADD opens the descriptor's queue; EPOLL_CTL_DEL
 * closes it, with the words in it, and tells a waiting writer. Do that before
 * close(2). EPOLLRPALIN is reported as long as there are words, with EPOLLET
 * when some have come; EPOLLRPALOUT is reported once. EPOLLONESHOT is as ever.
 * Events of the kernel and those of the queue come separately. A queue can be
 * watched through one epoll file. One receiver at a time should wait there:
 * the one that began to wait last is called.
 * Thread-safe.
 * Return: 0; errors of epoll_ctl(2); -EBUSY the queue is watched through
 * another epoll file, -ENOSPC 4096 are watched through this one already,
 * -ERANGE a descriptor beyond 65535, -ENOMEM.
 */
RPAL_API int rpal_queue_ctl(int epfd, int op, int fd,
			    struct epoll_event *event);

/**
 * rpal_queue_events - queue events that are there; never waits
 *
 * As rpal_epoll_wait() with a timeout of 0, but without the kernel's events.
 * Thread-safe. Return: their number; -EINVAL @maxevents.
 */
RPAL_API int rpal_queue_events(int epfd, struct epoll_event *events,
			       int maxevents);

/**
 * rpal_queue_take - take words from the own descriptor's queue
 * @words: filled with at most @n
 *
 * Words come in the order in which they were put. May attach the calling thread
 * as a sender, to tell a writer that there is room. Thread-safe.
 * Return: how many; 0 there are none; -EBADF the descriptor has no queue.
 */
RPAL_API int rpal_queue_take(int fd, uint64_t *words, unsigned int n);

/* The writing side of the queue at the other end of a socket. */
struct rpal_writer;

/**
 * rpal_writer_open - find the queue at the other end of a socket
 * @writer: filled
 * @peer: as rpal_peer_request() gave it, with the directory as its meta
 * @fd: own end of a connected stream or seqpacket socket
 *
 * A queue has one writing process at a time, which may open it any number of
 * times and gets the same writer. Own thread.
 * Return: 0; -EBADF, -ENOTSOCK, -EPROTONOSUPPORT (no such socket), -ENOTCONN (it
 * is not connected), -ESRCH @peer is no linked peer, -ENOENT it has not the
 * other end (any more), -EAGAIN it has, but does not watch its queue (yet),
 * -EBUSY another process writes to it, -EPROTO it has no directory of this
 * version, -EOWNERDEAD, -EPERM this thread is not attached, -ENOMEM, -ERANGE.
 */
RPAL_API int rpal_writer_open(struct rpal_writer **writer,
			      const struct rpal_peer *peer, int fd);

/**
 * rpal_writer_close - give a writer up
 *
 * As many times as it was opened. The words in the queue stay there.
 */
RPAL_API void rpal_writer_close(struct rpal_writer *writer);

/* What a writer is connected to. */
struct rpal_writer_info {
	uint32_t peer;		/* service id */
	int fd;			/* the peer's descriptor */
	uint64_t name;		/* changes when that gets another queue */
	uint32_t receiver;	/* thread id of the peer's that waited last */
};

/** rpal_writer_info - Own thread. Return: 0, -EPERM, -EOWNERDEAD, -ESTALE */
RPAL_API int rpal_writer_info(struct rpal_writer *writer,
			      struct rpal_writer_info *info);

/**
 * rpal_queue_put - put words into a peer's queue and let its receiver know
 * @words: all of them are put, or none
 * @n: 1 to RPAL_PUT_WORDS
 *
 * Own thread (sender); not to be called from a signal handler. If the receiver
 * sleeps, its handler runs on this thread until it waits again or needs the
 * kernel. If it is busy it finds the words before it sleeps; then this does not
 * wait. It never waits for room.
 * Return: @n; -EAGAIN there is no room (EPOLLRPALOUT will tell when there is),
 * -ESTALE the peer has closed the queue: open it again, -EOWNERDEAD the peer is
 * gone, -EPROTO it has spoilt the queue, -EINVAL @n, -EPERM no sender. After
 * -EOWNERDEAD the words may have been put.
 */
RPAL_API int rpal_queue_put(struct rpal_writer *writer, const uint64_t *words,
			    unsigned int n);

/* Counters of this process. */
struct rpal_queue_counters {
	uint64_t put;		/* words put into peers' queues */
	uint64_t refused;	/* puts for which there was no room */
	uint64_t called;	/* puts after which the receiver was called */
	uint64_t handed_back;	/* of these, handed back */
	uint64_t woken;		/* puts after which the kernel woke it */
	uint64_t taken;		/* words taken from own queues */
	uint64_t reported;	/* events of own queues */
	uint64_t notified;	/* calls by peers that brought news */
};

/** rpal_queue_counters - read them. Thread-safe; they are not a snapshot. */
RPAL_API void rpal_queue_counters(struct rpal_queue_counters *counters);

#ifdef __cplusplus
}
#endif

#endif /* RPAL_QUEUE_H */
