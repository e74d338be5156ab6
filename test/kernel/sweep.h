/* SPDX-License-Identifier: MIT */
/*
 * The instruction sweep: one event at every instruction of a call.
 *
 * The guest runs on one CPU with -icount: one instruction takes one ns. A
 * POSIX timer is set d ns ahead and the call follows at a fixed distance. The
 * local APIC timer counts in steps of 16 ns, so d alone reaches every 16th
 * instruction: a sled of 0 to 15 nops in front of the call reaches the others.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "two_services.h"
#include <time.h>
#include <ucontext.h>

#define SLED	16

static inline uint64_t now_tsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

#define DELAY	2000	/* instructions, about */

/* Executes the delay, and @nops of SLED nops. */
static inline void sled(unsigned int nops)
{
	asm volatile("mov %1, %%eax\n\t"
		     "2: dec %%eax\n\t"
		     "jnz 2b\n\t"
		     "lea 1f(%%rip), %%rax\n\t"
		     "sub %0, %%rax\n\t"
		     "jmp *%%rax\n\t"
		     ".rept 16\n\tnop\n\t.endr\n\t"
		     "1:"
		     : : "r"((uint64_t)nops), "i"(DELAY / 2) : "rax", "memory");
}

static inline timer_t sweep_timer(int signal)
{
	struct sigevent event = {
		.sigev_notify = SIGEV_SIGNAL,
		.sigev_signo = signal,
	};
	timer_t timer;

	if (timer_create(CLOCK_MONOTONIC, &event, &timer))
		die("timer_create", errno);
	return timer;
}

static inline void arm(timer_t timer, long ns)
{
	struct itimerspec when = { .it_value.tv_nsec = ns };

	if (timer_settime(timer, 0, &when, NULL))
		die("timer_settime", errno);
}

/* When the last signal was handled; the server tells it in every answer. */
static volatile uint64_t signal_time;

#define ADD	1
#define SLOW_ADD 2	/* the handler makes a system call */
#define ARM	3	/* set the server's own timer, word[1] ns ahead */

static inline void serve_adds(int signal)
{
	timer_t timer = signal ? sweep_timer(signal) : 0;
	struct rpal_message m = { 0 };
	int answer = 0;

	for (;;) {
		int ret = rpal_serve_one(&m, answer, 0);

		answer = ret != -EINTR;
		if (ret == -EINTR)
			continue;
		MUST(ret);
		switch (m.word[0]) {
		case SLOW_ADD:
			getppid();
			/* fall through */
		case ADD:
			m.word[0] = m.word[1] + m.word[2];
			m.word[1] = signal_time;
			break;
		case ARM:
			/* Detached first: from here on the distance is fixed. */
			getppid();
			m.word[0] = now_tsc();
			arm(timer, m.word[1]);
		}
	}
}

/* One verified call; 0 or what went wrong. */
static inline int add_once(const struct rpal_target *target, int kind,
			   uint64_t seed)
{
	struct rpal_message m = { { kind, seed, seed * 3, 7, 8, seed ^ 9 } };
	int ret = rpal_call(target, &m, -1);

	if (ret)
		return ret;
	return m.word[0] == seed * 4 && m.word[3] == 7 && m.word[4] == 8 &&
	       m.word[5] == (seed ^ 9) ? 0 : -EBADMSG;
}

#endif
