// SPDX-License-Identifier: MIT
/* librpal: waiting for calls, events of the kernel and words in queues. */
#include <errno.h>

#include "queue.h"
#include "receive.h"

/* Is there a call whose sender waits for the answer? */
static bool call_open(const struct rpal_self *self)
{
	return self->progress != NO_CALL && self->progress != NOTIFIED;
}

static int kernel_events(struct queue_set *set, struct epoll_event *events,
			 int maxevents)
{
	int n = maxevents > 0 ? epoll_wait(set->epfd, events, maxevents, 0) : 0;

	return n > 0 ? rpal_set_silence(set, events, n) : n;
}

/*
 * What there is, without waiting. Those of the kernel first, unless there was
 * no room for others behind them the last time. On loan only what needs no
 * system call, as long as the kernel does not ask for us.
 */
static int look(struct rpal_self *self, struct queue_set *set,
		struct epoll_event *events, int maxevents)
{
	bool queues_first = set->queues_first;
	int n = 0, more;

	if (rpal_on_loan(self) && rpal_wanted(self))
		rpal_leave_loan(self);
	if (rpal_on_loan(self))
		return rpal_set_collect(set, events, maxevents);

	if (queues_first)
		n = rpal_set_collect(set, events, maxevents);
	more = kernel_events(set, events + n, maxevents - n);
	if (more < 0)
		return n ? n : more;
	n += more;
	if (!queues_first)
		n += rpal_set_collect(set, events + n, maxevents - n);
	set->queues_first = n == maxevents && !queues_first;
	return n;
}

/*
 * Ends the call, if there is one, and sleeps, unless there are words. Returns
 * as rpal_park_until().
 */
static long sleep_until(struct rpal_self *self, struct queue_set *set,
			int64_t deadline)
{
	uint32_t tid = rpal_tid();
	long ret = RPAL_PARK_EVENT;
	bool news;

	if (peek(set->shared->receiver) != tid)
		poke(set->shared->receiver, tid);
	/* Full barrier, then the look: pairs with rpal_raise_news(). */
	swap(set->shared->sleeper, tid);
	news = rpal_set_has_news(set);
	/* An answer is given in any case, before the words are looked at. */
	if (!news || call_open(self))
		ret = rpal_park_until(self, set->epfd, news ? 0 : deadline);
	poke(set->shared->sleeper, 0);
	if (ret == RPAL_SWITCH_NOTIFIED)
		set->notified++;
	return ret;
}

/* A call, for which a turn was given or the receiver slept, and what else is. */
static int report_call(struct rpal_self *self, struct queue_set *set,
		       struct epoll_event *events, int maxevents)
{
	int n = 1 + rpal_set_collect(set, events + 1, maxevents - 1);

	events[0] = self->call_event;
	/* Calls are not all that there is, if there is no end of them. */
	set->starved = n == maxevents && rpal_set_has_news(set);
	return n;
}

/*
 * rpal_epoll_wait() for an epoll file that watches queues, by a receiver.
 * @at_once: only look, the deadline is now
 */
int rpal_queue_wait(struct queue_set *set, struct epoll_event *events,
		    int maxevents, int64_t deadline, bool at_once)
{
	struct rpal_self *self = &rpal_self;
	bool last = at_once;
	long ret;
	int n;

	for (;;) {
		/* Not before an answer that has to be given, unless asked to. */
		if (!call_open(self) || set->starved ||
		    (at_once && rpal_may_put_off(self))) {
			set->starved = false;
			ret = 0;
			if (!call_open(self) && rpal_contended(self))
				ret = rpal_give_turn(self);
			if (ret == RPAL_SWITCH_CALLED)
				return report_call(self, set, events, maxevents);
			n = look(self, set, events, maxevents);
			if (n != 0 || last)
				return n;
			/* A signal has ended the turn. */
			if (ret < 0) {
				errno = -ret;
				return -1;
			}
		}
		ret = sleep_until(self, set, deadline);
		if (ret == RPAL_SWITCH_CALLED)
			return report_call(self, set, events, maxevents);
		if (ret < 0) {
			errno = -ret;
			return -1;
		}
		/* News, an event that may be gone, or the time. */
		last = deadline != NEVER && rpal_now() >= deadline;
	}
}
