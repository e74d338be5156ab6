/* SPDX-License-Identifier: MIT */
/* An io_uring of the calling process, by its bare system calls. One thread uses it at a time. */
#ifndef IO_RING_H
#define IO_RING_H

#include "two_services.h"
#include <linux/io_uring.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>

struct io_ring {
	int fd;
	/* Shared with the kernel. */
	unsigned int *sq_tail, *sq_flags, *cq_head, *cq_tail;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	void *both; /* rings, of this many bytes */
	size_t bytes;
	unsigned int sq_mask, cq_mask;
	unsigned int queued; /* that the kernel was not told of */
};

static inline void *map_ring(int fd, size_t bytes, off_t what)
{
	void *ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);

	if (ring == MAP_FAILED)
		die("mmap of a ring", errno);
	return ring;
}

/* A thread that polls it (IORING_SETUP_SQPOLL) has the last CPU, with IORING_SETUP_SQ_AFF. */
static inline struct io_ring new_io_ring(unsigned int flags)
{
	struct io_uring_params params = { .flags = flags,
					  .sq_thread_cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1,
					  .sq_thread_idle = 20000 };
	struct io_ring ring;
	unsigned int *places;

	ring.fd = syscall(SYS_io_uring_setup, 16, &params);
	if (ring.fd < 0 || !(params.features & IORING_FEAT_SINGLE_MMAP))
		die("io_uring_setup", errno);
	ring.bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe) +
		     params.sq_entries * sizeof(*places);
	ring.both = map_ring(ring.fd, ring.bytes, IORING_OFF_SQ_RING);
	ring.sqes = map_ring(ring.fd, params.sq_entries * sizeof(*ring.sqes), IORING_OFF_SQES);
	ring.cqes = (ring.both + params.cq_off.cqes);
	ring.sq_tail = (ring.both + params.sq_off.tail);
	ring.sq_flags = (ring.both + params.sq_off.flags);
	ring.cq_head = (ring.both + params.cq_off.head);
	ring.cq_tail = (ring.both + params.cq_off.tail);
	ring.sq_mask = params.sq_entries - 1;
	ring.cq_mask = params.cq_entries - 1;
	ring.queued = 0;
	places = (ring.both + params.sq_off.array);
	for (unsigned int i = 0; i < params.sq_entries; i++)
		places[i] = i;
	return ring;
}

/* Its memory is a reference to it, too. */
static inline void end_io_ring(struct io_ring *ring)
{
	munmap(ring->both, ring->bytes);
	munmap(ring->sqes, (ring->sq_mask + 1) * sizeof(*ring->sqes));
	close(ring->fd);
}

/* No more than 16 at a time are on their way to the kernel. */
static inline void io_queue(struct io_ring *ring, const struct io_uring_sqe *sqe)
{
	unsigned int tail = *ring->sq_tail;

	ring->sqes[tail & ring->sq_mask] = *sqe;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	ring->queued++;
}

/* Submits what is queued, and waits until @wait results are there. Return: 0, or -errno. */
static inline int io_submit_and_wait(struct io_ring *ring, unsigned int wait)
{
	unsigned int queued = ring->queued;
	long ret;

	ring->queued = 0;
	do {
		ret = result(syscall(SYS_io_uring_enter, ring->fd, queued, wait,
				     wait ? IORING_ENTER_GETEVENTS : 0, NULL, 0));
		if (ret > 0)
			queued -= ret;
	} while (ret == -EINTR || (ret > 0 && queued));
	return ret < 0 ? ret : 0;
}

/* With IORING_SETUP_SQPOLL: a kernel thread sees what is queued, once it is awake. */
static inline void io_let_poll(struct io_ring *ring)
{
	ring->queued = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (*(volatile unsigned int *)ring->sq_flags & IORING_SQ_NEED_WAKEUP &&
	    syscall(SYS_io_uring_enter, ring->fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0) < 0)
		die("IORING_ENTER_SQ_WAKEUP", errno);
}

/* One result. False: there is none. Never enters the kernel. */
static inline bool io_result(struct io_ring *ring, int *res)
{
	unsigned int head = *ring->cq_head;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return false;
	*res = ring->cqes[head & ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return true;
}

#endif
