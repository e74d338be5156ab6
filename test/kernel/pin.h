/* SPDX-License-Identifier: MIT */
#ifndef PIN_H
#define PIN_H

#include "tap.h"
#include <sched.h>

/* The calling thread runs on this CPU only. */
static inline void pin(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		bail_out("sched_setaffinity");
}

#endif
