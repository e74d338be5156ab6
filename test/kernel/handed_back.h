/* SPDX-License-Identifier: MIT */
#ifndef HANDED_BACK_H
#define HANDED_BACK_H

#include <rpal.h>

/* How many calls of this thread the kernel has handed back. */
static inline uint64_t handed_back(void)
{
	struct rpal_counters counters;

	rpal_counters(&counters);
	return counters.handed_back;
}

#endif
