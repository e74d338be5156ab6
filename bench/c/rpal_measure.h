/* SPDX-License-Identifier: MIT */
/* What the benchmarks of RPAL measure besides. */
#ifndef RPAL_MEASURE_H
#define RPAL_MEASURE_H

#include "measure.h"
#include "two_services.h"

/* Calls of this thread that were handed back so far. */
static inline uint64_t hand_backs(void)
{
	struct rpal_counters counters;

	MUST(rpal_counters(&counters));
	return counters.handed_back;
}

#endif
