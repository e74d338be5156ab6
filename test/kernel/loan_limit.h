/* SPDX-License-Identifier: MIT */
/*
 * How long a loan may last (kernel.rpal_loan_limit_ms). It is counted in ticks
 * of the guest, and a guest on a busy host has many of them in no time: a test
 * that wants a call to stay in user mode allows long loans.
 *
 * Even then a call is handed back when its sender is preempted, or when a tick
 * falls into it that gives the sender's task work of its own (task_tick_mm_cid()
 * does, ten times a second): such a test calls until one has stayed there, and
 * hangs if none ever does.
 */
#ifndef LOAN_LIMIT_H
#define LOAN_LIMIT_H

#include "setting.h"
#include <stdbool.h>
#include <unistd.h>

#define DEFAULT_LOAN_LIMIT 10 /* ms */
#define LONGEST_LOAN_LIMIT 1000

static inline void limit_loans(int ms)
{
	set("/proc/sys/kernel/rpal_loan_limit_ms", "%d", ms);
}

/*
 * Whether anybody can meet a computing context on loan: with one CPU, who looks
 * for it has preempted the sender, which has handed it back.
 */
static inline bool loans_can_be_met(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

#endif
