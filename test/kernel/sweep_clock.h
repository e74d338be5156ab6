/* SPDX-License-Identifier: MIT */
/*
 * Time in a guest with one CPU and -icount, where one instruction takes one ns:
 * what the processes of a sweep need to do something at a known instruction.
 */
#ifndef SWEEP_CLOCK_H
#define SWEEP_CLOCK_H

#include "shared_memory.h"
#include "two_services.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>

/*
 * Executes this program from memory. While a guest with such a clock waits for
 * its host's disk, no instruction passes, but time does: until the next timer.
 * And always at the same addresses: an emulator that has seen this code there
 * need not translate it again.
 */
static inline void run_from_memory(char **argv)
{
	struct stat stat;
	int from, to;
	off_t at = 0;

	/* The processes that it starts are. */
	if (getenv("SWEEP_IN_MEMORY"))
		return;
	from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	to = memfd_create("sweep", MFD_CLOEXEC);
	if (from < 0 || to < 0 || fstat(from, &stat))
		die("a copy in memory", errno);
	while (at < stat.st_size)
		if (sendfile(to, from, &at, stat.st_size - at) <= 0)
			die("sendfile", errno);
	if (personality(ADDR_NO_RANDOMIZE) < 0)
		die("personality", errno);
	setenv("SWEEP_IN_MEMORY", "1", 1);
	fexecve(to, argv, environ);
	die("fexecve", errno);
}

static inline uint64_t now_tsc(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* Executes @nops of at most @most nops, and the same few other instructions always. */
static inline __attribute__((always_inline)) void skip(unsigned int nops, const int most)
{
	asm volatile("lea 1f(%%rip), %%rax\n\t"
		     "sub %0, %%rax\n\t"
		     "jmp *%%rax\n\t"
		     ".rept %c1\n\tnop\n\t.endr\n\t"
		     "1:"
		     :
		     : "r"((uint64_t)nops), "i"(most)
		     : "rax", "memory");
}

#define SLED 16

/* Executes the same 2,000 instructions always, and then @nops of SLED nops. */
static inline void sled(unsigned int nops)
{
	asm volatile("mov $1000, %%eax\n\t"
		     "2: dec %%eax\n\t"
		     "jnz 2b"
		     :
		     :
		     : "rax", "memory");
	skip(nops, SLED);
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

/* Of a real-time class: woken by a timer, it runs at once. */
static inline void run_first(int priority)
{
	const struct sched_param first = { .sched_priority = priority };

	if (sched_setscheduler(0, SCHED_FIFO, &first))
		die("sched_setscheduler", errno);
}

#endif
