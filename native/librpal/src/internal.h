/* SPDX-License-Identifier: MIT */
/* librpal: what its files share. */
#ifndef RPAL_INTERNAL_H
#define RPAL_INTERNAL_H

#include <stdbool.h>
#include <rpal.h>
#include "control_offsets.h"

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

/* The open /dev/rpal, or -1. Read by switch.S. */
extern int rpal_device __attribute__((visibility("hidden")));
/* This service, valid while rpal_device is. */
extern struct rpal_info rpal_own __attribute__((visibility("hidden")));
/* There was more than one CPU when the device was opened. */
extern bool rpal_smp __attribute__((visibility("hidden")));

/* ioctl(2) on the device; a negative errno on failure, errno untouched. */
long rpal_ioctl(unsigned long command, const void *arg)
	__attribute__((visibility("hidden")));

enum call_progress {
	NO_CALL,
	CALL_ARRIVED,	/* reported, not taken */
	CALL_TAKEN,	/* no answer yet */
	CALL_ANSWERED,
	NOTIFIED,	/* a call that said nothing and wants nothing */
};

/*
 * The calling thread. The blocks that the switch looks at, @sender and
 * @receiver, are those of a thread that cannot take the short way while it does
 * not have the role: rpal_no_sender says ACTIVE, rpal_no_receiver RUN.
 */
struct rpal_self {
	struct rpal_control *sender, *receiver;
	uint64_t lent;			/* state word of a receiver we claim */
	uint64_t served;		/* calls taken or ended in user mode */
	uint64_t parks;			/* in the kernel */

	struct rpal_control *control;	/* NULL: not attached */
	unsigned int roles;
	/* See struct rpal_counters. */
	uint64_t handed_back, retries, waits;

	/* Sender: see rpal_interruptible(). */
	int (*interrupted)(void *data);
	void *interrupted_data;
	unsigned int in_a_row;		/* calls before others that wait */

	/* Receiver. */
	struct rpal_message message;	/* the call, then its answer */
	int status;
	enum call_progress progress;
	struct epoll_event call_event;
	unsigned int put_offs;		/* of the answer that is ready */
	unsigned int missed_turns;	/* in a row */
	/* When the kernel wakes the parked task, CLOCK_MONOTONIC ns. */
	int64_t armed;
	int armed_epfd;			/* and for whose events; -1: none */
	int same[2];			/* rpal_epoll_same() */
};

extern struct rpal_control rpal_no_sender, rpal_no_receiver
	__attribute__((visibility("hidden")));

#define RPAL_SELF_UNATTACHED						\
	{ .sender = &rpal_no_sender, .receiver = &rpal_no_receiver }

extern __thread struct rpal_self rpal_self
	__attribute__((visibility("hidden"), tls_model("initial-exec")));

static inline uint64_t rpal_state(const struct rpal_self *self)
{
	return __atomic_load_n(&self->control->state, __ATOMIC_RELAXED);
}

/* Is this context on loan, that is, running on a caller's task? */
static inline bool rpal_on_loan(const struct rpal_self *self)
{
	return (rpal_state(self) & 0xff) == RPAL_STATE_ACTIVE;
}

/* Get back to the own task, if on loan: what follows needs the kernel. */
static inline void rpal_leave_loan(const struct rpal_self *self)
{
	if (unlikely(rpal_on_loan(self)))
		rpal_ioctl(RPAL_IOC_DETACH, NULL);
}

int64_t rpal_now(void) __attribute__((visibility("hidden")));

int rpal_notify(const struct rpal_target *target)
	__attribute__((visibility("hidden")));

/* rpal_detach() of some roles. */
int rpal_give_up(unsigned int roles) __attribute__((visibility("hidden")));

/* The protection key of a service that was requested once. */
uint32_t rpal_known_pkey(uint32_t id) __attribute__((visibility("hidden")));

/* switch.S */
long rpal_switch_call(const struct rpal_target *target,
		      struct rpal_message *message, uint64_t flags);
long rpal_switch_notify(const struct rpal_target *target,
			struct rpal_message *message, uint64_t flags);
long rpal_switch_park(struct rpal_control *self, struct rpal_message *message,
		      uint32_t status, struct rpal_park *park);
int rpal_switch_copy(void *to, const void *from, size_t bytes,
		     uint32_t open_pkru, uint32_t own_pkru,
		     struct rpal_control *self, uint32_t peer);
long rpal_switch_guarded(long (*function)(void *), void *argument,
			 struct rpal_control *self, uint32_t peer);
/* Not functions: where the kernel resumes, and where senders enter. */
extern const char rpal_at_resume[], rpal_at_finish[], rpal_at_released[];
extern const char rpal_at_park[], rpal_at_copy[];
extern const char rpal_at_entry[], rpal_at_entry_mpk[];
extern const char rpal_at_notify[], rpal_at_notify_mpk[];
extern const char rpal_at_return[], rpal_at_return_mpk[];

/* What switch.S continues with. */
int rpal_call_unready(const struct rpal_target *target,
		      struct rpal_message *message, int timeout_ms, int mode);
int rpal_call_slowly(const struct rpal_target *target,
		     struct rpal_message *message, int timeout_ms, long ret,
		     int mode);
int rpal_serve_from_kernel(struct rpal_message *message, int answer,
			   int status);
int rpal_serve_notified(struct rpal_message *message);
int rpal_serve_ended(struct rpal_message *message, long why);

#endif /* RPAL_INTERNAL_H */
