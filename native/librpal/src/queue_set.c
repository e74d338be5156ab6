// SPDX-License-Identifier: MIT
/* librpal: which of the queues that an epoll file watches have news. */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "queue.h"

#define QUEUE_EVENTS	(EPOLLRPALIN | EPOLLRPALOUT)

/* Under rpal_queue_mutex. */
static struct queue_set *all_sets;

static struct queue_set *set_alloc(void)
{
	struct queue_set *set;

	for (set = all_sets; set; set = set->next)
		if (set->epfd < 0)
			return set;
	set = rpal_queue_memory(sizeof(*set));
	if (!set)
		return NULL;
	set->shared = rpal_queue_memory(sizeof(*set->shared));
	if (!set->shared) {
		munmap(set, sizeof(*set));
		return NULL;
	}
	pthread_mutex_init(&set->lock, NULL);
	set->epfd = -1;
	set->next = all_sets;
	all_sets = set;
	return set;
}

static int kernel_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	int saved = errno, ret = epoll_ctl(epfd, op, fd, event) < 0 ? -errno : 0;

	errno = saved;
	return ret;
}

static void ring(struct queue_set *set)
{
	uint64_t one = 1;

	if (write(set->doorbell, &one, sizeof(one)) < 0)
		return;		/* It is ringing as loud as it can. */
}

static int doorbell_ctl(struct queue_set *set, int epfd, int op)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = set };

	return kernel_ctl(epfd, op, set->doorbell, &event);
}

/* Is epfd still the file that the set was made for? */
static bool same_file(struct queue_set *set)
{
	return !doorbell_ctl(set, set->epfd, EPOLL_CTL_MOD);
}

/* The epoll file was closed, and with that all its watching has ended. */
static void set_retire(struct queue_set *set)
{
	for (unsigned int i = 0; i < SET_MEMBERS; i++)
		if (set->member[i])
			rpal_queue_close(set->member[i]);
	poke(rpal_queue_tables->set[set->epfd], NULL);
	close(set->doorbell);
	set->epfd = -1;
}

static int set_make(int epfd, struct queue_set **made)
{
	struct queue_set *set;
	int ret = rpal_queue_tables_make();

	if (ret)
		return ret;
	if (epfd < 0)
		return -EBADF;
	if (epfd >= QUEUE_FDS)
		return -ERANGE;
	set = rpal_queue_tables->set[epfd];
	if (set && same_file(set)) {
		*made = set;
		return 0;
	}
	if (set)
		set_retire(set);

	set = set_alloc();
	if (!set)
		return -ENOMEM;
	set->doorbell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (set->doorbell < 0)
		return -errno;
	ret = doorbell_ctl(set, epfd, EPOLL_CTL_ADD);
	if (ret) {
		close(set->doorbell);
		return ret;
	}
	set->epfd = epfd;
	poke(set->shared->sleeper, 0);
	poke(set->shared->receiver, 0);
	poke(rpal_queue_tables->set[epfd], set);
	/* A receiver that waits already has not looked for a set. */
	ring(set);
	*made = set;
	return 0;
}

static void set_pending(struct queue_set *set, unsigned int member)
{
	set_bits(set->pending[member / 64], 1ULL << member % 64);
	set_bits(set->group, 1ULL << member / 64);
}

/* Something of a member has changed in this process. Under the set's lock. */
void rpal_set_mark(struct queue_set *set, unsigned int member)
{
	/* Full barrier, then the look: as a peer's in rpal_raise_news(). */
	set_pending(set, member);
	if (peek(set->shared->sleeper))
		ring(set);
}

/* Takes the set's own doorbell out of the kernel's events. */
int rpal_set_silence(struct queue_set *set, struct epoll_event *events, int n)
{
	int kept = 0;

	for (int i = 0; i < n; i++) {
		uint64_t rings;

		if (events[i].data.ptr != set)
			events[kept++] = events[i];
		else if (read(set->doorbell, &rings, sizeof(rings)) < 0)
			continue;	/* Another thread was faster. */
	}
	return kept;
}

bool rpal_set_has_news(const struct queue_set *set)
{
	return peek(set->shared->group) || peek(set->group);
}

/* What peers have set since the last time. */
static void take_news(struct queue_set *set)
{
	uint64_t groups;

	if (!peek(set->shared->group))
		return;
	groups = swap(set->shared->group, 0);
	while (groups) {
		unsigned int group = __builtin_ctzll(groups);

		groups &= groups - 1;
		set->pending[group] |= swap(set->shared->member[group], 0);
		if (set->pending[group])
			set_bits(set->group, 1ULL << group);
	}
}

/* The first pending member from one on, SET_MEMBERS if there is none. */
static unsigned int next_pending(struct queue_set *set, unsigned int from)
{
	unsigned int group = from / 64;
	uint64_t bits, groups;

	if (from >= SET_MEMBERS)
		return SET_MEMBERS;
	bits = set->pending[group] & ~0ULL << from % 64;
	if (bits)
		return group * 64 + __builtin_ctzll(bits);
	groups = group < 63 ? set->group & ~0ULL << (group + 1) : 0;
	if (!groups)
		return SET_MEMBERS;
	group = __builtin_ctzll(groups);
	return group * 64 + __builtin_ctzll(set->pending[group]);
}

static void clear_pending(struct queue_set *set, unsigned int member)
{
	uint64_t left = set->pending[member / 64] & ~(1ULL << member % 64);

	set->pending[member / 64] = left;
	if (!left)
		__atomic_fetch_and(&set->group, ~(1ULL << member / 64),
				   __ATOMIC_SEQ_CST);
}

/*
 * Peers tell the set of news only while somebody wants to know. Under the locks
 * of the set and the queue.
 */
static void arm(struct queue *queue, const struct epoll_event *event)
{
	uint64_t place = (uint64_t)queue->member << ADDRESS_BITS |
			 (uintptr_t)queue->set->shared;

	queue->event = *event;
	queue->armed = event->events & QUEUE_EVENTS;
	/* Full barrier; then the member is marked and so looked at. */
	swap(queue->end->place, queue->armed ? place : 0);
	if (queue->armed)
		rpal_set_mark(queue->set, queue->member);
}

static void disarm(struct queue *queue)
{
	queue->armed = false;
	poke(queue->end->place, 0);
}

/* The events of a pending member, which may stay pending. */
static uint32_t report(struct queue_set *set, unsigned int member,
		       struct epoll_event *event)
{
	struct queue *queue = set->member[member];
	uint32_t wanted, events = 0;

	clear_pending(set, member);
	if (!queue)
		return 0;
	pthread_mutex_lock(&queue->lock);
	wanted = queue->armed ? queue->event.events : 0;
	if (wanted & EPOLLRPALIN && rpal_queue_has_words(queue))
		events |= EPOLLRPALIN;
	if (wanted & EPOLLRPALOUT && peek(queue->end->room) &&
	    swap(queue->end->room, 0))
		events |= EPOLLRPALOUT;
	if (events && wanted & EPOLLONESHOT)
		disarm(queue);
	else if (events & EPOLLRPALIN && !(wanted & EPOLLET))
		set_pending(set, member);
	*event = queue->event;
	event->events = events;
	pthread_mutex_unlock(&queue->lock);
	return events;
}

/*
 * The queue events that there are, beginning after those of the last time that
 * there was not room for all.
 */
int rpal_set_collect(struct queue_set *set, struct epoll_event *events,
		     int maxevents)
{
	unsigned int start, member, end;
	int n = 0;

	if (maxevents <= 0 || !rpal_set_has_news(set))
		return 0;
	pthread_mutex_lock(&set->lock);
	take_news(set);
	start = set->next_member;
	member = start;
	end = SET_MEMBERS;
	for (;;) {
		member = next_pending(set, member);
		if (member >= end) {
			if (end == start || !start)
				break;
			/* Once around: those before the start are left. */
			member = 0;
			end = start;
			continue;
		}
		if (n == maxevents) {
			set->next_member = member;
			break;
		}
		n += report(set, member, &events[n]) != 0;
		member++;
	}
	set->reported += n;
	pthread_mutex_unlock(&set->lock);
	return n;
}

/* All below: under rpal_queue_mutex. */

static int set_join(struct queue_set *set, struct queue *queue,
		    const struct epoll_event *event)
{
	unsigned int member;

	pthread_mutex_lock(&set->lock);
	for (member = set->first_free; member < SET_MEMBERS; member++)
		if (!set->member[member])
			break;
	if (member == SET_MEMBERS) {
		pthread_mutex_unlock(&set->lock);
		return -ENOSPC;
	}
	set->first_free = member + 1;
	set->member[member] = queue;
	pthread_mutex_lock(&queue->lock);
	queue->set = set;
	queue->member = member;
	arm(queue, event);
	pthread_mutex_unlock(&queue->lock);
	if (!peek(set->shared->receiver) &&
	    rpal_self.roles & RPAL_ROLE_RECEIVER)
		poke(set->shared->receiver, rpal_tid());
	pthread_mutex_unlock(&set->lock);
	return 0;
}

void rpal_set_leave(struct queue *queue)
{
	struct queue_set *set = queue->set;

	if (!set)
		return;
	pthread_mutex_lock(&set->lock);
	pthread_mutex_lock(&queue->lock);
	disarm(queue);
	set->member[queue->member] = NULL;
	if (queue->member < set->first_free)
		set->first_free = queue->member;
	queue->set = NULL;
	pthread_mutex_unlock(&queue->lock);
	pthread_mutex_unlock(&set->lock);
}

static void set_change(struct queue *queue, const struct epoll_event *event)
{
	struct queue_set *set = queue->set;

	pthread_mutex_lock(&set->lock);
	pthread_mutex_lock(&queue->lock);
	arm(queue, event);
	pthread_mutex_unlock(&queue->lock);
	pthread_mutex_unlock(&set->lock);
}

/* The descriptor is watched by the kernel already. */
static int watch(struct queue_set *set, int fd, const struct epoll_event *event)
{
	struct queue *queue;
	int ret = rpal_queue_open(fd, &queue);

	if (ret)
		return ret;
	if (queue->set && queue->set != set) {
		if (same_file(queue->set))
			return -EBUSY;
		set_retire(queue->set);
		ret = rpal_queue_open(fd, &queue);
		if (ret)
			return ret;
	}
	if (queue->set)
		set_change(queue, event);
	else
		ret = set_join(set, queue, event);
	return ret;
}

static int watch_through(int epfd, int fd, const struct epoll_event *event)
{
	struct queue_set *set = NULL;
	int ret = set_make(epfd, &set);

	return ret ? ret : watch(set, fd, event);
}

static int add(int epfd, int fd, const struct epoll_event *event,
	       struct epoll_event *for_kernel)
{
	int ret = kernel_ctl(epfd, EPOLL_CTL_ADD, fd, for_kernel);

	if (ret)
		return ret;
	ret = watch_through(epfd, fd, event);
	if (ret)
		kernel_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
	return ret;
}

static struct queue *member_of(struct queue_set *set, int fd)
{
	struct queue *queue = rpal_queue_of(fd);

	return set && queue && queue->set == set ? queue : NULL;
}

int rpal_queue_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	bool has_event = op != EPOLL_CTL_DEL && event;
	struct queue_set *set = rpal_set_of(epfd);
	struct epoll_event for_kernel;
	struct queue *queue;
	bool wanted;
	int ret;

	wanted = has_event && event->events & QUEUE_EVENTS;
	if (!wanted && !set)
		return kernel_ctl(epfd, op, fd, event);
	if (has_event) {
		for_kernel = *event;
		for_kernel.events &= ~QUEUE_EVENTS;
	}

	pthread_mutex_lock(&rpal_queue_mutex);
	if (op == EPOLL_CTL_ADD && wanted) {
		ret = add(epfd, fd, event, &for_kernel);
		goto unlock;
	}
	ret = kernel_ctl(epfd, op, fd, has_event ? &for_kernel : event);
	set = rpal_set_of(epfd);
	queue = member_of(set, fd);
	switch (op) {
	case EPOLL_CTL_ADD:
	case EPOLL_CTL_DEL:
		/* The kernel did not watch it: it is another file by now. */
		if (queue && (op == EPOLL_CTL_DEL || !ret))
			rpal_queue_close(queue);
		break;
	case EPOLL_CTL_MOD:
		if (ret)
			break;
		if (queue)
			set_change(queue, event);
		else if (wanted)
			ret = watch_through(epfd, fd, event);
		break;
	}
unlock:
	pthread_mutex_unlock(&rpal_queue_mutex);
	return ret;
}

int rpal_queue_events(int epfd, struct epoll_event *events, int maxevents)
{
	struct queue_set *set = rpal_set_of(epfd);

	if (maxevents <= 0)
		return -EINVAL;
	return set ? rpal_set_collect(set, events, maxevents) : 0;
}

void rpal_set_count(struct rpal_queue_counters *counters)
{
	for (struct queue_set *set = all_sets; set; set = set->next) {
		counters->reported += set->reported;
		counters->notified += set->notified;
	}
}
