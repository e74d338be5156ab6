// SPDX-License-Identifier: MIT
/* rpal_compat.h: words between two ends of a socket. */
#include <errno.h>
#include <stdio.h>

#include "compat.h"
#include "queue.h"

#define NO_RECEIVER	0xffff

/*
 * By peer and its descriptor: timestamp << ADDRESS_BITS | struct rpal_writer.
 * The timestamp is what rpalfd has, the end of the name of a queue. Written
 * under rpal_compat_mutex.
 */
static uint64_t *maps[RPAL_ID_MAX + 1];

static struct rpal_writer *writer_in(uint64_t map)
{
	return (void *)(uintptr_t)(map & ADDRESS_MASK);
}

void rpal_compat_unmap(unsigned int id)
{
	if (!maps[id])
		return;
	for (unsigned int fd = 0; fd < QUEUE_FDS; fd++) {
		uint64_t map = maps[id][fd];

		if (!map)
			continue;
		poke(maps[id][fd], 0);
		rpal_writer_close(writer_in(map));
	}
}

static int open_writer(uint64_t sid_fd, struct rpal_writer **writer,
		       struct rpal_writer_info *info)
{
	const struct rpal_peer *peer = rpal_compat_peer(sid_fd >> 32);
	int ret;

	if (rpal_sender_init(NULL))
		return -errno;
	if (!peer)
		return -ESRCH;
	ret = rpal_writer_open(writer, peer, (int)sid_fd);
	if (ret)
		return ret;
	ret = rpal_writer_info(*writer, info);
	if (ret)
		rpal_writer_close(*writer);
	return ret;
}

static unsigned int receiver_id(const struct rpal_writer_info *info)
{
	return info->receiver ? RPAL_TID_INDEX(info->receiver) : NO_RECEIVER;
}

/* Under rpal_compat_mutex. */
static int map_writer(struct rpal_writer *writer,
		      const struct rpal_writer_info *info)
{
	uint64_t **map = &maps[info->peer], old;

	if (!*map) {
		uint64_t *memory = rpal_queue_memory(QUEUE_FDS * sizeof(**map));

		if (!memory)
			return -ENOMEM;
		poke(*map, memory);
	}
	old = swap((*map)[info->fd],
		   info->name << ADDRESS_BITS | (uintptr_t)writer);
	if (old)
		rpal_writer_close(writer_in(old));
	return 0;
}

status_t rpal_uds_fdmap(uint64_t sid_fd, uint64_t *rpalfd)
{
	struct rpal_writer_info info;
	struct rpal_writer *writer;
	int ret;

	pthread_mutex_lock(&rpal_compat_mutex);
	ret = open_writer(sid_fd, &writer, &info);
	if (!ret) {
		ret = map_writer(writer, &info);
		if (ret)
			rpal_writer_close(writer);
	}
	pthread_mutex_unlock(&rpal_compat_mutex);
	if (ret)
		return (status_t)compat_fail(-ret);
	*rpalfd = info.name << ADDRESS_BITS |
		  (uint64_t)receiver_id(&info) << 32 | (uint32_t)info.fd;
	return RPAL_SUCCESS;
}

int rpal_get_peer_rid(uint64_t sid_fd)
{
	struct rpal_writer_info info;
	struct rpal_writer *writer;
	int ret;

	pthread_mutex_lock(&rpal_compat_mutex);
	ret = open_writer(sid_fd, &writer, &info);
	pthread_mutex_unlock(&rpal_compat_mutex);
	if (ret)
		return compat_fail(-ret);
	rpal_writer_close(writer);
	return info.receiver ? (int)receiver_id(&info) : compat_fail(EAGAIN);
}

int rpal_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	int ret = rpal_queue_ctl(epfd, op, fd, event);

	return ret ? compat_fail(-ret) : 0;
}

int rpal_epoll_wait_user(int epfd, struct epoll_event *events, int maxevents,
			 int timeout)
{
	int ret = rpal_queue_events(epfd, events, maxevents);

	return ret < 0 ? compat_fail(-ret) : ret;
}

static int put_error(int ret)
{
	switch (ret) {
	case -EAGAIN:
		return RPAL_QUEUE_PUT_FAILED;
	case -ESTALE:
	case -EPROTO:
		return RPAL_FDE_OUTDATED;
	case -EPERM:
		return RPAL_INVAL_THREAD;
	case -EINVAL:
		return RPAL_INVALID_ARG;
	default:
		return RPAL_ERR_PEER_MEM;
	}
}

int rpal_write_ptrs(int service_id, uint64_t rpalfd, int64_t *ptrs, int n)
{
	uint32_t fd = (uint32_t)rpalfd;
	uint64_t *map;
	uint64_t word;
	int ret;

	if (!rpal_compat_ready())
		return -RPAL_DONT_INITED;
	if (n < 1 || n > RPAL_PUT_WORDS)
		return -RPAL_INVALID_ARG;
	if (!rpal_compat_peer(service_id))
		return -RPAL_INVAL_SERVICE;
	map = peek(maps[service_id]);
	word = map && fd < QUEUE_FDS ? peek(map[fd]) : 0;
	if (!word)
		return -RPAL_INVAL_SERVICE;
	if (word >> ADDRESS_BITS != rpalfd >> 48)
		return -RPAL_FDE_OUTDATED;
	if (rpal_sender_init(NULL))
		return -RPAL_INVAL_THREAD;
	ret = rpal_queue_put(writer_in(word), (const uint64_t *)ptrs, n);
	rpal_compat_reopen();
	return ret < 0 ? -put_error(ret) : ret;
}

int rpal_read_ptrs(int fd, int64_t *ptrs, int n)
{
	int ret = n < 1 ? -EINVAL : rpal_queue_take(fd, (uint64_t *)ptrs, n);

	return ret < 0 ? compat_fail(-ret) : ret;
}

void rpal_recver_count_print(void)
{
	struct rpal_queue_counters counters;

	rpal_queue_counters(&counters);
	printf("rpal receiver: %lu words taken, %lu events, %lu calls\n",
	       counters.taken, counters.reported, counters.notified);
}

void rpal_sender_count_print(void)
{
	struct rpal_queue_counters counters;

	rpal_queue_counters(&counters);
	printf("rpal sender: %lu words put, %lu times no room, %lu calls, %lu handed back, %lu woken\n",
	       counters.put, counters.refused, counters.called,
	       counters.handed_back, counters.woken);
}
