/* SPDX-License-Identifier: MIT */
/*
 * librpal: the interface of the user library that came with ByteDance's RPAL
 * patches of 2025, for programs that were written for it.
 *
 * Include this instead of rpal.h, link with -lrpal. Everything here is a thin
 * layer over rpal.h and rpal_queue.h, which new programs should use. A program
 * is a service if bytes 12 to 15 of its ELF header are "RPAL", or if it was
 * started by `rpal run`.
 *
 *	server				client
 *	rpal_init(1, 0, &e)		rpal_init(1, 0, &e)
 *	listen, accept			connect
 *		each tells the other its rpal_get_service_key() over the socket
 *	rpal_request_service(key)	rpal_request_service(key)
 *	rpal_receiver_init()
 *	rpal_epoll_ctl(epfd, EPOLL_CTL_ADD, socket,
 *		       { EPOLLIN | EPOLLRPALIN, … })
 *	rpal_epoll_wait(epfd, …)	rpal_uds_fdmap(id << 32 | socket, &rpalfd)
 *	rpal_read_ptrs(socket, …)	rpal_write_ptrs(id, rpalfd, words, n)
 *
 * Functions that return a status_t, a descriptor or an id set errno when they
 * return -1.
 */
#ifndef RPAL_COMPAT_H
#define RPAL_COMPAT_H

#include <stdarg.h>
#include <stdint.h>
#include <sys/epoll.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef RPAL_API
#define RPAL_API __attribute__((visibility("default")))
#endif

/* Events of a descriptor's queue, beside those of epoll. As in rpal.h. */
#define EPOLLRPALIN 0x00020000u
#define EPOLLRPALOUT 0x00040000u

typedef enum {
	RPAL_FAILURE = -1,
	RPAL_SUCCESS = 0,
} status_t;

typedef enum {
	/* What the kernel says. */
	RPAL_ERR_NONE = 0,
	RPAL_ERR_BAD_ARG = 1,
	RPAL_ERR_NO_SERVICE = 2,
	RPAL_ERR_MAPPED = 3,
	RPAL_ERR_RETRY = 4,
	RPAL_ERR_BAD_SERVICE_STATUS = 5,
	RPAL_ERR_BAD_THREAD_STATUS = 6,
	RPAL_ERR_REACH_LIMIT = 7,
	RPAL_ERR_NOMEM = 8,
	RPAL_ERR_NOMAPPING = 9,
	RPAL_ERR_INVAL = 10,
	RPAL_ERR_KERNEL_MAX_CODE = 100,

	/* What the library says. */
	RPAL_ERR_RPALFILE_OPS,
	RPAL_ERR_RPAL_DISABLED,
	RPAL_ERR_GET_CAP_VERSION,
	RPAL_KERNEL_API_NOTSUPPORT,
	RPAL_HARDWARE_NOTSUPPORT,
	RPAL_ERR_SERVICE_KEY,
	RPAL_ERR_SENDERS_METADATA,
	RPAL_ERR_ENABLE_SERVICE,
	RPAL_ERR_SENDER_PAGES,
	RPAL_DONT_INITED,
	RPAL_ERR_SENDER_INIT,
	RPAL_ERR_SENDER_REG,
	RPAL_INVALID_ARG,
	RPAL_CACHE_FULL,
	RPAL_FDE_OUTDATED,
	RPAL_QUEUE_PUT_FAILED,
	RPAL_ERR_PEER_MEM,
	RPAL_ERR_NOTIFY_RECVER,
	RPAL_INVAL_THREAD,
	RPAL_INVAL_SERVICE,
} rpal_error_code_t;

/**
 * rpal_init - make this process a service that others may request
 * @receivers: how many threads may be receivers at a time, > 0
 * @flags: not used
 * @error: why it failed: RPAL_INVALID_ARG @receivers; RPAL_ERR_RPALFILE_OPS no
 *	/dev/rpal, or it may not be opened; RPAL_KERNEL_API_NOTSUPPORT another
 *	version of the interface; RPAL_ERR_RPAL_DISABLED this process is no
 *	service: mark its ELF header, or use `rpal run`;
 *	RPAL_ERR_ENABLE_SERVICE, RPAL_ERR_NOMEM. May be NULL.
 *
 * Return: a descriptor that is readable while a peer has gone and was not
 * released; it belongs to the library. Once more: the same. -1: failed.
 */
RPAL_API int rpal_init(int receivers, int flags, rpal_error_code_t *error);

/**
 * rpal_exit - undo rpal_init()
 *
 * Releases all peers and detaches the calling thread. Other threads must have
 * ended what they do with the library.
 */
RPAL_API void rpal_exit(void);

/**
 * rpal_receiver_init - make the calling thread a receiver
 *
 * Return: an eventfd for the program's own use, which belongs to the library;
 * -1: EPERM no rpal_init(), EUSERS there are as many receivers as that allowed,
 * and the errors of rpal_attach().
 */
RPAL_API int rpal_receiver_init(void);

/** rpal_receiver_exit - undo rpal_receiver_init(). Return: 0; -1: EINVAL */
RPAL_API int rpal_receiver_exit(void);

/**
 * rpal_sender_init - make the calling thread a sender
 * @error: RPAL_DONT_INITED, RPAL_ERR_REACH_LIMIT, RPAL_ERR_SENDER_REG; or NULL
 *
 * What needs a sender calls it, so that a program need not.
 */
RPAL_API status_t rpal_sender_init(rpal_error_code_t *error);

/** rpal_sender_exit - undo rpal_sender_init(). Return: 0; -1: EINVAL */
RPAL_API status_t rpal_sender_exit(void);

/** rpal_get_service_id - own id. Return: > 0; -1 no rpal_init() */
RPAL_API int rpal_get_service_id(void);

/** rpal_get_service_key - own key, by which others request this service */
RPAL_API status_t rpal_get_service_key(uint64_t *service_key);

/**
 * rpal_request_service - ask for a peer; it has to ask for us as well
 *
 * Return: 0, also if it was asked for before; RPAL_DONT_INITED,
 * RPAL_ERR_NO_SERVICE there is none with this key, RPAL_ERR_BAD_SERVICE_STATUS
 * it has not called rpal_init(), RPAL_ERR_BAD_ARG own key, RPAL_ERR_NOMEM; else
 * an errno: EPERM it may not be traced, EADDRINUSE it has the same protection
 * key, EXDEV it has another time namespace.
 */
RPAL_API int rpal_request_service(uint64_t key);

/**
 * rpal_release_service - give up a peer, also one that has gone
 *
 * Return: 0; RPAL_DONT_INITED, RPAL_ERR_NO_SERVICE it was not requested.
 */
RPAL_API int rpal_release_service(uint64_t key);

/** rpal_get_request_service_id - id of a requested peer. Return: id or -1 */
RPAL_API int rpal_get_request_service_id(uint64_t key);

/**
 * rpal_clean_service_start, rpal_clean_service_end - clean up after a peer
 * @token: tells the end which start it belongs to
 *
 * Between the two no other thread requests, releases or maps anything.
 */
RPAL_API void rpal_clean_service_start(int64_t *token);
RPAL_API void rpal_clean_service_end(int64_t *token);

/**
 * rpal_uds_fdmap - name the peer's end of a Unix socket
 * @sid_fd: service id of the peer << 32 | own descriptor
 * @rpalfd: timestamp << 48 | receiver id << 32 | the peer's descriptor. The
 *	receiver id is 0xffff if no receiver of the peer has waited yet.
 *
 * -1: EBADF, ENOTSOCK, EPROTONOSUPPORT, ENOTCONN the descriptor; ESRCH no such
 * peer; ENOENT the peer has not the other end; EAGAIN it has not registered it
 * for EPOLLRPALIN or EPOLLRPALOUT yet; and the others of rpal_writer_open().
 */
RPAL_API status_t rpal_uds_fdmap(uint64_t sid_fd, uint64_t *rpalfd);

/** rpal_get_peer_rid - only the receiver id. Return: >= 0; -1 as above */
RPAL_API int rpal_get_peer_rid(uint64_t sid_fd);

/**
 * rpal_epoll_ctl - epoll_ctl(2), with the events of a descriptor's queue
 *
 * rpal_queue_ctl() says what those mean. Remove a descriptor before closing it.
 */
RPAL_API int rpal_epoll_ctl(int epfd, int op, int fd,
			    struct epoll_event *event);

/**
 * rpal_epoll_wait - epoll_wait(2), with the events of queues
 *
 * For receivers. Events of the kernel come first. Those of a descriptor's queue
 * are entries of their own.
 */
RPAL_API int rpal_epoll_wait(int epfd, struct epoll_event *events,
			     int maxevents, int timeout);

/** rpal_epoll_wait_user - only events of queues; does not wait */
RPAL_API int rpal_epoll_wait_user(int epfd, struct epoll_event *events,
				  int maxevents, int timeout);

/**
 * rpal_write_ptrs - put words into the queue of a peer's descriptor
 * @service_id: the peer
 * @rpalfd: from rpal_uds_fdmap()
 * @ptrs: all of them are put, or none
 * @n: 1 to 32
 *
 * Calls the receiver if it waits. Return: @n, or the negative of
 * RPAL_DONT_INITED; RPAL_INVALID_ARG; RPAL_INVAL_SERVICE no such peer, or the
 * descriptor was not mapped; RPAL_INVAL_THREAD this thread cannot be a sender;
 * RPAL_FDE_OUTDATED the peer has closed the queue: map it again;
 * RPAL_QUEUE_PUT_FAILED there is no room: EPOLLRPALOUT tells when there is;
 * RPAL_ERR_PEER_MEM the peer is gone.
 */
RPAL_API int rpal_write_ptrs(int service_id, uint64_t rpalfd, int64_t *ptrs,
			     int n);

/** rpal_read_ptrs - take words. Return: how many, 0 none; -1 EBADF, EINVAL */
RPAL_API int rpal_read_ptrs(int fd, int64_t *ptrs, int n);

/**
 * rpal_copy_prepare - open the memory of a peer for this thread
 *
 * Until rpal_copy_finish(), rpal_epoll_wait(), or the preparation of another.
 * Return: 0; -1: ESRCH no such peer
 */
RPAL_API status_t rpal_copy_prepare(int service_id);

/** rpal_copy_finish - close it again. Return: 0; -1: EINVAL none is open */
RPAL_API status_t rpal_copy_finish(void);

/**
 * rpal_read_access_safety - run a function that may find peer memory gone
 * @function: gets what follows @ret. It is ended at the access that failed:
 *	rpal_with_peer() says what it may do.
 * @ret: its result
 *
 * The peer is that of rpal_copy_prepare(). Return: 0; -1: EFAULT the function
 * was ended, and *@ret is unchanged; errors of rpal_sender_init().
 */
RPAL_API status_t rpal_read_access_safety(int (*function)(va_list args),
					  int *ret, ...);

/** rpal_recver_count_print - what was received, on standard output */
RPAL_API void rpal_recver_count_print(void);

/** rpal_sender_count_print - what was sent, on standard output */
RPAL_API void rpal_sender_count_print(void);

#ifdef __cplusplus
}
#endif

#endif /* RPAL_COMPAT_H */
