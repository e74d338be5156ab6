/* SPDX-License-Identifier: MIT */
/*
 * librpal: call a function of another process on this host, in user mode.
 *
 * Two processes that were started as RPAL services (rpal run, or
 * rpal_exec_service() before execve) tell each other their keys, request each
 * other, and are then peers: a thread of one (the sender) calls a thread of
 * the other (the receiver) without entering the kernel.
 *
 *	server					client
 *	rpal_open()				rpal_open()
 *	rpal_enable(0)				rpal_enable(0)
 *	rpal_peer_request(client's key)		rpal_peer_request(server's key)
 *	rpal_attach(RPAL_ROLE_RECEIVER)		rpal_attach(RPAL_ROLE_SENDER)
 *	tell rpal_tid() to the client		rpal_target_init(&t, tid)
 *	for (;;)				rpal_call(&t, &message, -1)
 *		rpal_serve_one(&message, …)
 *
 * Conventions: functions return 0 or a positive value on success and a
 * negative errno on failure; errno itself is not touched. Times are in
 * milliseconds as in epoll_wait(2): -1 waits for ever. Memory that is passed
 * in stays the caller's. "Thread-safe" means: any thread at any time.
 * "Own thread" means: acts on the calling thread, which must be attached.
 *
 * The idea of RPAL is ByteDance's (RFC for Linux, 2025); the protocol here is
 * our own and is stated in linux/rpal.h.
 */
#ifndef RPAL_H
#define RPAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <linux/rpal.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RPAL_API __attribute__((visibility("default")))

/* Status of a call whose handler has not answered when it parked again. */
#define RPAL_PENDING 1

/* Events of rpal_epoll_wait that stand for a call carry this bit. */
#define EPOLLRPALIN 0x00020000u
#define EPOLLRPALOUT 0x00040000u

/**
 * rpal_probe - what does this kernel offer to this process?
 * @info: filled on success
 *
 * Needs no prior call and leaves nothing open. Thread-safe.
 * Return: 0; -ENOENT no /dev/rpal (not an RPAL kernel), -EACCES not allowed to
 * open it, -EPROTO the kernel speaks another ABI version.
 */
RPAL_API int rpal_probe(struct rpal_info *info);

/**
 * rpal_exec_service - make the next execve of this thread an RPAL service
 *
 * Return: 0; errors of rpal_probe(); -EOPNOTSUPP the machine lacks what RPAL
 * needs (see rpal_info::caps).
 */
RPAL_API int rpal_exec_service(void);

/**
 * rpal_open - open RPAL for this process
 *
 * Idempotent and thread-safe; the descriptor is close-on-exec and belongs to
 * the library until the process ends. It becomes readable when a peer is gone.
 * Return: the descriptor (>= 0); errors of rpal_probe(); -EPERM this process
 * is no service (start it with rpal run).
 */
RPAL_API int rpal_open(void);

/** rpal_service - this service's id, key, slot; NULL before rpal_open() */
RPAL_API const struct rpal_info *rpal_service(void);

/**
 * rpal_enable - allow others to request this service
 * @meta: a word they get with their request
 * Return: 0; -EPERM no service, -EALREADY. Thread-safe.
 */
RPAL_API int rpal_enable(uint64_t meta);

/** rpal_disable - undo rpal_enable(), release all peers. Return: 0, -EINVAL */
RPAL_API int rpal_disable(void);

struct rpal_peer {
	uint32_t id;	/* service id */
	uint32_t pkey;
	uint64_t meta;
	int linked;	/* it has requested us, too: calls are possible */
};

/**
 * rpal_peer_request - ask to become the peer of the service with this key
 * @key: the other's 64-bit key, received over any channel
 * @peer: filled on success
 *
 * Both sides must ask; asking again is allowed and tells whether the other
 * has asked meanwhile. Both must be allowed to ptrace-attach each other.
 * Thread-safe.
 * Return: 0; -ENOENT no such service (any more), -ECONNREFUSED it has not
 * called rpal_enable(), -EPERM we may not ptrace it (or are no service),
 * -EADDRINUSE both have the same protection key, -EINVAL own key.
 */
RPAL_API int rpal_peer_request(uint64_t key, struct rpal_peer *peer);

/** rpal_peer_release - end being peers; calls in progress fail. Thread-safe. */
RPAL_API int rpal_peer_release(uint32_t id);

/**
 * rpal_attach - register the calling thread
 * @roles: RPAL_ROLE_SENDER, RPAL_ROLE_RECEIVER or both; adds to earlier ones
 *
 * Unregisters the thread's rseq area (restartable sequences cannot be kept
 * right while a context runs on another task). Undone by thread exit.
 * Return: 0; -EPERM, -EUSERS no control block left in this service,
 * -EOPNOTSUPP a fixed-address (ET_EXEC) program cannot receive,
 * -EBUSY the thread's rseq area cannot be unregistered.
 */
RPAL_API int rpal_attach(unsigned int roles);

/** rpal_detach - give up all roles of the calling thread. Return: 0, -EINVAL */
RPAL_API int rpal_detach(void);

/** rpal_tid - RPAL thread id of the calling thread, 0 if not attached */
RPAL_API uint32_t rpal_tid(void);

/* A receiver of a peer, as a sender sees it. Plain data, may be copied. */
struct rpal_target {
	struct rpal_control *control;
	uint64_t parked;	/* its state word when it can be claimed */
	uint32_t tid;
	uint32_t service;
	uint32_t pkey;
};

/**
 * rpal_target_init - name a receiver of a linked peer
 * @target: filled
 * @tid: what rpal_tid() said there
 * @pkey: the peer's protection key (rpal_peer)
 * Return: 0; -EINVAL the id names no place. Whether the thread lives shows at
 * the call. Thread-safe.
 */
RPAL_API int rpal_target_init(struct rpal_target *target, uint32_t tid,
			      uint32_t pkey);

/**
 * rpal_call - call a receiver and wait for its answer
 * @target: whom
 * @message: in: what it gets; out: its answer. Unchanged on error.
 * @timeout_ms: applies once the call needs the kernel (receiver busy, or
 *	handed back); -1: none
 *
 * Own thread (sender). Runs the receiver's handler on this thread until it
 * answers or needs the kernel. Not to be called from a signal handler.
 * Return: the status given by the receiver (>= 0: 0 or RPAL_PENDING, or < 0:
 * an errno of its choice); -EOWNERDEAD the receiver died or its service went
 * away, -ETIMEDOUT, -ENOENT a peer wrote over the number of the call, so that
 * its answer cannot be found, -EPERM this thread is no sender,
 * -EDEADLK a call to oneself, or to a thread that waits, directly or through
 * others, for the answer of the calling one; -ECANCELED, see
 * rpal_interruptible().
 */
RPAL_API int rpal_call(const struct rpal_target *target,
		       struct rpal_message *message, int timeout_ms);

/**
 * rpal_post - as rpal_call() but does not wait once the call was handed back
 * Return: as rpal_call(), and -EINPROGRESS: the receiver goes on by itself,
 * its answer is dropped.
 */
RPAL_API int rpal_post(const struct rpal_target *target,
		       struct rpal_message *message, int timeout_ms);

/**
 * rpal_interruptible - have somebody asked whether calls shall go on waiting
 * @interrupted: asked about once a second, and after a signal, while
 *	rpal_call() of the calling thread waits in the kernel. If it returns
 *	nonzero the call ends with -ECANCELED; its answer is dropped. It must
 *	not use librpal. NULL: nobody is asked.
 * @data: its argument
 *
 * For threads that may have to end while they wait, for a reason that is no
 * signal. Own thread. Return: 0, -EPERM.
 */
RPAL_API int rpal_interruptible(int (*interrupted)(void *data), void *data);

/**
 * rpal_serve_one - answer the last call and wait for the next
 * @message: in: the answer to the call taken before, if @answer; out: the next
 *	call
 * @answer: there is a call to answer
 * @status: status of the answer
 *
 * The plain receiver loop, without epoll: a thread does not use rpal_epoll_wait()
 * as well. Own thread (receiver).
 * Return: 0; -EINTR a signal handler ran while no call did.
 */
RPAL_API int rpal_serve_one(struct rpal_message *message, int answer,
			    int status);

/**
 * rpal_epoll_wait - epoll_wait(2) that also returns for calls
 *
 * Same arguments, result and errors (-1 and errno) as epoll_wait(2). While it
 * waits, the thread can be called: then it returns one event, the one given
 * to rpal_call_event(), and rpal_take() has the message. The next
 * rpal_epoll_wait() ends the call: with the answer of rpal_reply(), or with
 * RPAL_PENDING if there was none. Own thread; a thread that is no receiver
 * gets plain epoll_wait(2): it should not wait for an epoll file that watches
 * queues, whose own events it would see, too.
 */
RPAL_API int rpal_epoll_wait(int epfd, struct epoll_event *events,
			     int maxevents, int timeout);

/**
 * rpal_epoll_same - say that two epoll files have the same events
 * @epfd: an epoll file
 * @other: one that is all that the first one watches, or -1
 *
 * On loan rpal_epoll_wait() leaves the context where it is if its task sleeps on
 * the same epoll file. For a thread that waits for one of these at a time, either
 * is right. Own thread (receiver); the last pair counts. Return: 0; -EPERM no
 * receiver.
 */
RPAL_API int rpal_epoll_same(int epfd, int other);

/** rpal_call_event - the event by which rpal_epoll_wait() reports a call */
RPAL_API int rpal_call_event(const struct epoll_event *event);

/**
 * rpal_take - the call that rpal_epoll_wait() has just reported
 * @message: filled
 * @caller: RPAL thread id of the sender, may be NULL
 * Return: 1; 0 there is none (or it was taken).
 */
RPAL_API int rpal_take(struct rpal_message *message, uint32_t *caller);

/**
 * rpal_reply - set the answer of the call taken last
 * @status: what rpal_call() returns there, >= 0, not RPAL_PENDING; or -errno
 * @message: copied; NULL: all words 0
 * Return: 0; -EINVAL there is no call to answer.
 */
RPAL_API int rpal_reply(int status, const struct rpal_message *message);

/**
 * rpal_read_peer, rpal_write_peer - copy from or to a linked peer's memory
 * @peer: service id
 * @pkey: its protection key; opened for the copy only
 *
 * Own thread. Return: 0; -EFAULT some of the peer's memory is not there, or the
 * peer is gone; -EPERM this thread is not attached. A partial copy may have
 * happened.
 */
RPAL_API int rpal_read_peer(uint32_t peer, uint32_t pkey, void *to,
			    const void *from, size_t bytes);
RPAL_API int rpal_write_peer(uint32_t peer, uint32_t pkey, void *to,
			     const void *from, size_t bytes);

/**
 * rpal_with_peer - run a function that uses a linked peer's memory in place
 * @peer: service id
 * @pkey: its protection key; open while the function runs
 * @function: gets @argument; its result is that of rpal_with_peer()
 *
 * Own thread. When the function touches memory of the peer that is not there
 * (any more), it is ended at that instruction, so it must not hold or change
 * anything that somebody else uses: no locks, no allocation, no I/O, no calls
 * of librpal but rpal_read_peer() and rpal_write_peer(). It must not be left by
 * longjmp() or an exception either.
 * Return: the function's result; -EFAULT it was ended, -EPERM this thread is
 * not attached, -EINVAL @peer cannot be a peer.
 */
RPAL_API long rpal_with_peer(uint32_t peer, uint32_t pkey,
			     long (*function)(void *), void *argument);

/* Counters of the calling thread, since it was attached. */
struct rpal_counters {
	uint64_t calls;		/* sender: calls that ended */
	uint64_t handed_back;	/* sender: of these, handed back */
	uint64_t retries;	/* sender: claims that had to be repeated */
	uint64_t waits;		/* sender: waits for a busy receiver */
	uint64_t served;	/* receiver: calls taken */
	uint64_t parks;		/* receiver: times it entered the kernel to park */
};

/** rpal_counters - read the calling thread's counters. Return: 0, -EPERM */
RPAL_API int rpal_counters(struct rpal_counters *counters);

#ifdef __cplusplus
}
#endif

#endif /* RPAL_H */
