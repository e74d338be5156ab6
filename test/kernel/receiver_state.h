/* SPDX-License-Identifier: MIT */
/* The state word of a receiver, for processes that are no peers of it. */
#ifndef RECEIVER_STATE_H
#define RECEIVER_STATE_H

#include "two_services.h"
#include <sched.h>
#include <sys/uio.h>

/* The word, read as a debugger does; @tid: what rpal_tid() says there. */
static inline uint64_t receiver_word(pid_t pid, uint32_t tid)
{
	struct rpal_target target;
	uint64_t state;
	struct iovec here = { &state, sizeof(state) }, there;

	MUST(rpal_target_init(&target, tid, 0));
	there = (struct iovec){ &target.control->state, sizeof(state) };
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof(state))
		die("process_vm_readv", errno);
	return state;
}

/* One of RPAL_STATE_*. */
static inline unsigned int receiver_state(pid_t pid, uint32_t tid)
{
	return receiver_word(pid, tid) & 0xff;
}

/* Waits until a receiver that nobody calls has parked. */
static inline void wait_until_parked(pid_t pid, uint32_t tid)
{
	while (receiver_state(pid, tid) != RPAL_STATE_PARKED)
		sched_yield();
}

/*
 * Waits until a receiver that was parked has been called. True: its context is
 * on loan; false: that has ended already, as it does after rpal_loan_limit_ms,
 * and when the sender is preempted. The handler must not end before, or this
 * waits for the next call.
 */
static inline bool wait_until_called(pid_t pid, uint32_t tid)
{
	unsigned int state;

	while ((state = receiver_state(pid, tid)) == RPAL_STATE_PARKED || state == RPAL_STATE_LENT)
		sched_yield();
	return state == RPAL_STATE_ACTIVE;
}

#endif
