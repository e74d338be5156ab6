/* SPDX-License-Identifier: MIT */
/* librpal: what the two ways of waiting share. */
#ifndef RPAL_RECEIVE_H
#define RPAL_RECEIVE_H

#include <limits.h>

#include "internal.h"

#define NEVER	INT64_MAX

/* Has the kernel something for us, so that we should leave the loan? */
static inline bool rpal_wanted(const struct rpal_self *self)
{
	return rpal_state(self) & RPAL_FLAG_WANTED;
}

/* Do senders wait for this receiver, which runs on its own task? */
static inline bool rpal_contended(const struct rpal_self *self)
{
	return rpal_state(self) & RPAL_FLAG_CONTENDED && !rpal_on_loan(self);
}

/* How often an answer waits for what an event loop does without waiting. */
#define MOST_PUT_OFFS	4

/*
 * On loan, the application has more to do before it waits: let it, but not for
 * ever. It has answered, and its caller waits.
 */
static inline bool rpal_may_put_off(struct rpal_self *self)
{
	return rpal_on_loan(self) && !rpal_wanted(self) &&
	       self->put_offs++ < MOST_PUT_OFFS;
}

long rpal_give_turn(struct rpal_self *self)
	__attribute__((visibility("hidden")));
long rpal_park_until(struct rpal_self *self, int epfd, int64_t deadline)
	__attribute__((visibility("hidden")));

#endif /* RPAL_RECEIVE_H */
