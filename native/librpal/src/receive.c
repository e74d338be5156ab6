// SPDX-License-Identifier: MIT
/* librpal: being called. */
#include <errno.h>

#include "queue.h"
#include "receive.h"

/*
 * How much later than asked for the kernel may wake us without being told
 * anew. Event loops ask for whole milliseconds, counted from a clock that they
 * read a moment before: the same timer gives a slightly different time every
 * time.
 */
#define TOLERANCE	1000000

/*
 * For how long senders that wait may claim a receiver that has always something
 * else to do, in ns. Twice as long each time that none of them came: they may
 * have to be scheduled first.
 */
#define SHORTEST_TURN	250000
#define MOST_DOUBLINGS	4

/* Before rpal_serve_one(): no receiver, or not on loan. */
int rpal_serve_from_kernel(struct rpal_message *message, int answer, int status)
{
	struct rpal_self *self = &rpal_self;
	struct rpal_park park = {
		.epfd = -1,
		.flags = answer ? RPAL_PARK_REPLY : 0,
		.timeout_ns = -1,
		.message = (uintptr_t)message,
		.status = status,
	};
	long ret;

	if (!(self->roles & RPAL_ROLE_RECEIVER))
		return -EPERM;
	self->armed = NEVER;
	self->armed_epfd = -1;
	for (;;) {
		ret = rpal_switch_park(self->control, message, status, &park);
		switch (ret) {
		case RPAL_SWITCH_CALLED:
			self->served++;
			return 0;
		case RPAL_SWITCH_NOTIFIED:
			/* Who waits here does not wait for words. */
			*message = (struct rpal_message){ 0 };
			status = 0;
			park.flags = RPAL_PARK_REPLY;
			park.status = 0;
			break;
		case RPAL_PARK_EVENT:
		case RPAL_PARK_TIMEOUT:
			park.flags = 0;
			break;
		default:
			return ret;
		}
	}
}

/* rpal_serve_one() was notified, as above. */
int rpal_serve_notified(struct rpal_message *message)
{
	rpal_self.served--;
	*message = (struct rpal_message){ 0 };
	return rpal_serve_from_kernel(message, 1, 0);
}

/*
 * rpal_serve_one() had given its answer and was parked in user mode when its
 * task took the context back: @why, as rpal_switch_park(). No call has come.
 */
int rpal_serve_ended(struct rpal_message *message, long why)
{
	rpal_self.served--;
	return why < 0 ? why : rpal_serve_from_kernel(message, 0, 0);
}

int rpal_call_event(const struct epoll_event *event)
{
	struct rpal_self *self = &rpal_self;

	if (!(self->roles & RPAL_ROLE_RECEIVER))
		return -EPERM;
	self->call_event = *event;
	return 0;
}

int rpal_take(struct rpal_message *message, uint32_t *caller)
{
	struct rpal_self *self = &rpal_self;

	if (self->progress != CALL_ARRIVED)
		return 0;
	self->progress = CALL_TAKEN;
	*message = self->message;
	if (caller)
		*caller = rpal_state(self) >> RPAL_STATE_TID_SHIFT;
	return 1;
}

int rpal_reply(int status, const struct rpal_message *message)
{
	struct rpal_self *self = &rpal_self;

	if (self->progress != CALL_ARRIVED && self->progress != CALL_TAKEN)
		return -EINVAL;
	self->progress = CALL_ANSWERED;
	self->status = status;
	self->message = message ? *message : (struct rpal_message){ 0 };
	return 0;
}

int rpal_epoll_same(int epfd, int other)
{
	struct rpal_self *self = &rpal_self;

	if (!(self->roles & RPAL_ROLE_RECEIVER))
		return -EPERM;
	self->same[0] = epfd;
	self->same[1] = other;
	return 0;
}

static int set_errno(long ret)
{
	errno = -ret;
	return -1;
}

/*
 * The own task looks at the descriptors itself. There is no answer that waits
 * to be given, so kernel events come first, as in epoll_wait(2).
 */
static bool look_first(const struct rpal_self *self)
{
	return (self->progress == NO_CALL || self->progress == NOTIFIED) &&
	       !rpal_on_loan(self);
}

static int64_t time_until(int64_t deadline)
{
	int64_t left = deadline - rpal_now();

	return left > 0 ? left : 0;
}

/* Does the task, parked for another wait, sleep on these descriptors? */
static inline bool sleeps_on(const struct rpal_self *self, int epfd)
{
	int armed = self->armed_epfd;

	return likely(epfd == armed) ||
	       ((epfd == self->same[0] || epfd == self->same[1]) &&
		(armed == self->same[0] || armed == self->same[1]));
}

/*
 * On loan, may this wait stay in user mode? Not if the task would be woken too
 * late, or by other events. If it is awake and wants its context, it gets it as
 * the call ends.
 */
static inline bool park_lightly(const struct rpal_self *self, int epfd,
				int64_t deadline)
{
	return rpal_on_loan(self) && sleeps_on(self, epfd) &&
	       (deadline == NEVER || deadline >= self->armed - TOLERANCE ||
		rpal_wanted(self));
}

/* A peer has called to say that one of our queues has words. */
static void take_notice(struct rpal_self *self)
{
	/* It gets an answer like any caller, but nothing that is another's. */
	self->progress = NOTIFIED;
	self->message = (struct rpal_message){ 0 };
}

/*
 * Ends the call, if there is one, and waits. Returns as rpal_switch_park(). In
 * line where every instruction counts, once.
 */
static inline __attribute__((always_inline)) long
park_until(struct rpal_self *self, int epfd, int64_t deadline)
{
	/*
	 * The time of a wait that stays in user mode: if it does not, as the
	 * context was handed back just now, nobody has set a timer for it. Then
	 * the caller waits anew.
	 */
	struct rpal_park park = {
		.epfd = epfd,
		.timeout_ns = 0,
		.message = (uintptr_t)&self->message,
	};
	int status = 0;
	long ret;

	if (self->progress != NO_CALL) {
		if (likely(self->progress == CALL_ANSWERED))
			status = self->status;
		else if (self->progress != NOTIFIED)
			status = RPAL_PENDING;
		park.flags = RPAL_PARK_REPLY;
		park.status = status;
	}
	if (!park_lightly(self, epfd, deadline)) {
		rpal_leave_loan(self);
		park.timeout_ns = deadline == NEVER ? -1 : time_until(deadline);
		self->armed = deadline;
		self->armed_epfd = epfd;
	}
	self->progress = NO_CALL;
	ret = rpal_switch_park(self->control, &self->message, status, &park);
	if (ret == RPAL_SWITCH_CALLED) {
		self->progress = CALL_ARRIVED;
		self->put_offs = 0;
		self->served++;
	} else if (unlikely(ret == RPAL_SWITCH_NOTIFIED)) {
		take_notice(self);
	}
	return ret;
}

long rpal_park_until(struct rpal_self *self, int epfd, int64_t deadline)
{
	return park_until(self, epfd, deadline);
}

/*
 * Lets senders that wait have their turn before this receiver looks at its
 * descriptors again: there may be something every time, and then it would never
 * park. What comes meanwhile is seen when the turn is over.
 */
long rpal_give_turn(struct rpal_self *self)
{
	int64_t turn = SHORTEST_TURN << self->missed_turns;
	long ret = rpal_park_until(self, -1, rpal_now() + turn);

	if (ret == RPAL_SWITCH_CALLED)
		self->missed_turns = 0;
	else if (self->missed_turns < MOST_DOUBLINGS)
		self->missed_turns++;
	return ret;
}

static inline int64_t deadline_of(int timeout)
{
	return timeout < 0 ? NEVER : rpal_now() + timeout * 1000000LL;
}

static int report_call(const struct rpal_self *self, struct epoll_event *events)
{
	events[0] = self->call_event;
	return 1;
}

/* Without waiting, and without the doorbell of queues that are watched, too. */
static int look_at(int epfd, struct epoll_event *events, int maxevents)
{
	int n = epoll_wait(epfd, events, maxevents, 0);
	struct queue_set *set = rpal_set_of(epfd);

	return n > 0 && unlikely(set) ? rpal_set_silence(set, events, n) : n;
}

int rpal_epoll_wait(int epfd, struct epoll_event *events, int maxevents,
		    int timeout)
{
	struct rpal_self *self = &rpal_self;
	struct queue_set *set = rpal_set_of(epfd);
	int64_t deadline;
	bool over;
	long ret;
	int n;

	if (!(self->roles & RPAL_ROLE_RECEIVER) || maxevents <= 0)
		return epoll_wait(epfd, events, maxevents, timeout);
	if (unlikely(set))
		return rpal_queue_wait(set, events, maxevents,
				       deadline_of(timeout), timeout == 0);

	if (timeout == 0 && sleeps_on(self, epfd) && rpal_may_put_off(self))
		return 0;

	if (look_first(self)) {
		ret = rpal_contended(self) ? rpal_give_turn(self) : 0;
		if (ret == RPAL_SWITCH_CALLED)
			return report_call(self, events);
		n = look_at(epfd, events, maxevents);
		if (n != 0 || timeout == 0)
			return n;
		if (ret < 0)
			return set_errno(ret);
	}
	deadline = deadline_of(timeout);
	for (;;) {
		ret = park_until(self, epfd, deadline);
		if (ret == RPAL_SWITCH_CALLED)
			return report_call(self, events);
		/*
		 * Events come before a signal, and before the end of the time.
		 * Either may have ended a turn, which looks at no events.
		 */
		over = ret < 0 || (deadline != NEVER && rpal_now() >= deadline);
		if (over || ret == RPAL_PARK_EVENT) {
			n = look_at(epfd, events, maxevents);
			if (n != 0)
				return n;
			/* Another thread has made it, and has rung. */
			set = rpal_set_of(epfd);
			if (unlikely(set) && !over)
				return rpal_queue_wait(set, events, maxevents,
						       deadline, false);
		}
		if (ret < 0)
			return set_errno(ret);
		/* If not: an event that is gone, or an older timeout. */
		if (over)
			return 0;
	}
}
