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

int64_t rpal_deadline_of(int timeout) __attribute__((visibility("hidden")));
long rpal_park_until(struct rpal_self *self, int epfd, int64_t deadline)
	__attribute__((visibility("hidden")));

#endif /* RPAL_RECEIVE_H */
