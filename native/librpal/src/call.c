// SPDX-License-Identifier: MIT
/* librpal: calling a receiver. */
#include <errno.h>

#include "internal.h"

int rpal_target_init(struct rpal_target *target, uint32_t tid, uint32_t pkey)
{
	uint64_t service = RPAL_TID_SERVICE(tid);

	if (service < RPAL_ID_MIN || service > RPAL_ID_MAX)
		return -EINVAL;
	target->control = (struct rpal_control *)(uintptr_t)
		((service << RPAL_SLOT_SHIFT) + RPAL_CONTROL_OFFSET +
		 RPAL_TID_INDEX(tid) * RPAL_CONTROL_STRIDE);
	target->parked = (uint64_t)tid << RPAL_STATE_TID_SHIFT |
			 RPAL_STATE_PARKED;
	target->tid = tid;
	target->service = service;
	target->pkey = pkey;
	return 0;
}

/* Nanoseconds that are left, for an ioctl; -1: for ever. */
static int64_t time_left(int64_t deadline)
{
	int64_t left;

	if (deadline < 0)
		return -1;
	left = deadline - rpal_now();
	return left > 0 ? left : 0;
}

/* The longest timeout: the kernel looks up from it once a second. */
#define LOOKING_UP INT64_MAX

/* Does the application want a call that waits to end? */
static bool given_up(const struct rpal_self *self)
{
	return self->interrupted && self->interrupted(self->interrupted_data);
}

static long wait_reply(struct rpal_self *self, struct rpal_message *message,
		       int64_t deadline)
{
	struct rpal_wait_reply wait = {
		.seq = self->control->call_seq,
		.message = (uintptr_t)message,
	};
	bool over = false;
	long ret;

	for (;;) {
		wait.timeout_ns = over ? 0 : time_left(deadline);
		if (wait.timeout_ns < 0 && self->interrupted)
			wait.timeout_ns = LOOKING_UP;
		ret = rpal_ioctl(RPAL_IOC_WAIT_REPLY, &wait);
		if (ret != -EINTR)
			break;
		/* Then once more: so that the kernel drops the answer. */
		over = given_up(self);
	}
	if (ret == -ETIMEDOUT && over)
		return -ECANCELED;
	return ret < 0 ? ret : (int)wait.status;
}

/* So many calls in a row may go before those who wait. */
#define CALLS_IN_A_ROW 16

static int wait_parked(const struct rpal_self *self,
		       const struct rpal_target *target, int64_t deadline,
		       uint32_t flags)
{
	struct rpal_wait_parked wait = {
		.tid = target->tid,
		.flags = flags,
		.timeout_ns = time_left(deadline),
	};
	int ret;

	/* Not after the wait: who was woken claims, or nobody does. */
	if (given_up(self))
		return -ECANCELED;
	ret = rpal_ioctl(RPAL_IOC_WAIT_PARKED, &wait);
	return ret == -ESRCH ? -EOWNERDEAD : ret;
}

/* How often to look before sleeping: for about as long as a sleep takes. */
#define LOOKS 100

/*
 * Is the receiver free soon? A call that has it may be about to end on another
 * CPU. Not if it runs in its own task, and not if others wait for it, who would
 * be passed over, unless this is our @turn. Sets what to claim it with.
 */
static bool parked_soon(const struct rpal_target *target, bool turn,
			uint64_t *flags)
{
	for (int looks = rpal_smp ? LOOKS : 0; looks; looks--) {
		uint64_t word;

		*flags = 0;
		/* Then the next claim says what is wrong. */
		if (rpal_read_peer(target->service, 0, &word,
				   &target->control->state, sizeof(word)))
			return true;
		if (turn)
			*flags = word & RPAL_FLAG_CONTENDED;
		if (word == (target->parked | *flags))
			return true;
		if ((word & 0xff) < RPAL_STATE_LENT ||
		    word & (RPAL_FLAG_WANTED | RPAL_FLAG_CONTENDED) & ~*flags)
			return false;
		__builtin_ia32_pause();
	}
	return false;
}

int rpal_interruptible(int (*interrupted)(void *data), void *data)
{
	struct rpal_self *self = &rpal_self;

	if (!self->control)
		return -EPERM;
	self->interrupted = interrupted;
	self->interrupted_data = data;
	return 0;
}

/*
 * Continues rpal_call() and rpal_post(): the first attempt did not end with an
 * answer, @ret says why.
 */
int rpal_call_slowly(const struct rpal_target *target,
		     struct rpal_message *message, int timeout_ms, long ret,
		     int mode)
{
	struct rpal_self *self = &rpal_self;
	int64_t deadline = timeout_ms < 0 ? -1 :
			   rpal_now() + timeout_ms * 1000000LL;
	int tries = CALLS_IN_A_ROW, error;
	bool turn = false;
	uint64_t flags;

	/* Oneself is never parked while one runs. */
	if (target->control == self->control)
		return -EDEADLK;
	for (;;) {
		switch (ret) {
		case -EINPROGRESS:
			self->handed_back++;
			if (mode == RPAL_MODE_CALL)
				return wait_reply(self, message, deadline);
			/* Who does not wait says so: the kernel drops it. */
			wait_reply(self, message, 0);
			return ret;
		case -EAGAIN:
			self->retries++;
			break;
		case -EBUSY:
			if (tries-- > 0 && parked_soon(target, turn, &flags)) {
				ret = rpal_switch_call(target, message, flags);
				continue;
			}
			/* Parked, but others wait for it, too? */
			if (self->in_a_row < CALLS_IN_A_ROW) {
				self->in_a_row++;
				ret = rpal_switch_call(target, message,
						       RPAL_FLAG_CONTENDED);
				if (ret != -EBUSY)
					continue;
			}
			self->waits++;
			error = wait_parked(self, target, deadline,
					    self->in_a_row < CALLS_IN_A_ROW ?
						    0 : RPAL_WAIT_TURN);
			if (error && error != -EINTR)
				return error;
			/* Who was interrupted has passed its turn on. */
			turn = !error;
			if (turn)
				self->in_a_row = 0;
			break;
		default:
			return ret;
		}
		ret = rpal_switch_call(target, message, 0);
	}
}

/* Before rpal_call() and rpal_post(): no sender, or on loan. */
int rpal_call_unready(const struct rpal_target *target,
		      struct rpal_message *message, int timeout_ms, int mode)
{
	struct rpal_self *self = &rpal_self;

	if (!(self->roles & RPAL_ROLE_SENDER))
		return -EPERM;
	/* A task can run one loan at a time. */
	rpal_leave_loan(self);
	return mode == RPAL_MODE_CALL ?
		       rpal_call(target, message, timeout_ms) :
		       rpal_post(target, message, timeout_ms);
}

/*
 * Lets a receiver know that there is something in memory that it will look at.
 * Runs it if it is parked; if it is not, it is not waited for, but its next park
 * will end at once. Returns 0 it ran, -EINPROGRESS it was handed back, -EBUSY it
 * will look, -ESRCH there is no such receiver, -EOWNERDEAD it died.
 */
int rpal_notify(const struct rpal_target *target)
{
	struct rpal_message nothing = { 0 };
	struct rpal_self *self = &rpal_self;
	uint64_t flags = 0;
	long ret;

	rpal_leave_loan(self);
	self->control->call_seq++;
	for (;;) {
		ret = rpal_switch_notify(target, &nothing, flags);
		if (ret == -EAGAIN)
			self->retries++;
		else if (ret == -EBUSY && !flags)
			flags = RPAL_FLAG_CONTENDED;
		else
			break;
	}
	switch (ret) {
	case -EINPROGRESS:
		self->handed_back++;
		wait_reply(self, &nothing, 0);
		return ret;
	case -EBUSY:
		if (rpal_ioctl(RPAL_IOC_WAKE, (void *)(uintptr_t)target->tid))
			return -ESRCH;
		return ret;
	default:
		return ret < 0 ? ret : 0;
	}
}
