/* SPDX-License-Identifier: MIT */
/*
 * The instruction sweep: one event at every instruction of a call.
 *
 * The guest runs on one CPU with -icount: one instruction takes one ns. A timer
 * is set d ns ahead and the call follows at a fixed distance. The local APIC
 * timer counts in steps of 16 ns, so d alone reaches every 16th instruction: a
 * sled of 0 to 15 nops in front of the call reaches the others.
 *
 * An event's position is d less the distance from setting the timer to the
 * call, both measured for each try: two tries with different positions differ
 * in the instruction that the timer interrupts. A sweep counts the positions
 * that fell into the call, and proves nothing unless there are as many as the
 * call has instructions.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "kernel_log.h"
#include "registers.h"
#include "two_services.h"
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>

/*
 * Executes this program from memory. While a guest with such a clock waits for
 * its host's disk, no instruction passes, but time does: until the next timer.
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

#define SLED 16

/* Executes the same 2,000 instructions always, and then @nops of SLED nops. */
static inline void sled(unsigned int nops)
{
	asm volatile("mov $1000, %%eax\n\t"
		     "2: dec %%eax\n\t"
		     "jnz 2b\n\t"
		     "lea 1f(%%rip), %%rax\n\t"
		     "sub %0, %%rax\n\t"
		     "jmp *%%rax\n\t"
		     ".rept 16\n\tnop\n\t.endr\n\t"
		     "1:"
		     :
		     : "r"((uint64_t)nops)
		     : "rax", "memory");
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

/* What can be asked of a server, in word 0. */
enum {
	ADD = 1,  /* words 1 and 2; the handler stays in user mode */
	SLOW_ADD, /* the same, with a system call in between */
	ARM,	  /* the server's own timer, word 1 ns ahead; when that was */
	REPORT,	  /* struct report */
	SWEEP_KINDS,
};

/* A server about itself; all but its identity is counted since it began. */
struct report {
	uint64_t pid, adds;
	uint64_t events; /* that reached the server */
	uint64_t event;	 /* when the last one did */
	uint64_t wrong;	 /* handlers that found a register or an identity changed */
	uint64_t unused;
};

_Static_assert(sizeof(struct report) == sizeof(struct rpal_message), "a report fits a message");

static volatile struct report report;
static struct vector_image image;

static inline void sweep_server_init(void)
{
	report.pid = getpid();
	vector_image_init(&image);
	use_image_control_words(&image);
}

/* How a server sets its timer; NULL: it has none. */
static void (*arm_own)(long ns);

static inline int sweep_handle(struct rpal_message *m)
{
	static pid_t parent;

	if (!parent)
		parent = getppid();
	switch (m->word[0]) {
	case SLOW_ADD:
		report.wrong += getppid() != parent || gettid() != (pid_t)report.pid;
		/* fall through */
	case ADD:
		report.wrong += !registers_are_kept(&image);
		report.adds++;
		m->word[0] = m->word[1] + m->word[2];
		break;
	case ARM:
		/* In the own task first: from here on the distance is fixed. */
		getppid();
		m->word[0] = now_tsc();
		arm_own(m->word[1]);
		break;
	case REPORT:
		memcpy(m, (const void *)&report, sizeof(*m));
		break;
	default:
		return -ENOSYS;
	}
	return 0;
}

/* One verified call: 0, or what went wrong. */
static inline int add_once(const struct rpal_target *target, int kind, uint64_t seed)
{
	struct rpal_message m = { { kind, seed, seed * 3, 7, 8, seed ^ 9 } };
	bool kept;
	int ret = call_keeping_registers(target, &m, -1, &kept);

	if (!kept)
		return -ENOTRECOVERABLE;
	if (ret)
		return ret;
	return m.word[0] == seed * 4 && m.word[1] == seed && m.word[3] == 7 && m.word[4] == 8 &&
			       m.word[5] == (seed ^ 9)
		       ? 0
		       : -EBADMSG;
}

static inline struct report ask_report(const struct rpal_target *target)
{
	struct rpal_message m = { { REPORT } };
	struct report answer;

	MUST(rpal_call(target, &m, -1));
	memcpy(&answer, &m, sizeof(answer));
	return answer;
}

/* Nobody has it, nobody waits for it, nobody wants it back. */
static inline bool is_parked(const struct rpal_target *target)
{
	return (__atomic_load_n(&target->control->state, __ATOMIC_RELAXED) & 0xff) ==
	       RPAL_STATE_PARKED;
}

/* One try: a timer, a sled, a call. */
struct
try {
	long d;
	unsigned int nops;
	long distance;	/* from setting the timer to the call */
	long length;	/* of the call, with what happened in it */
	int error;	/* of the call */
	uint64_t armed; /* when the timer was set */
};

/* The call of a try, behind the sled; its timer was set at try->armed. */
static inline void call_behind_sled(struct try *try, const struct rpal_target *target, int kind)
{
	uint64_t start;

	sled(try->nops);
	start = now_tsc();
	try->error = add_once(target, kind, try->d * SLED + try->nops);
	try->length = now_tsc() - start;
	try->distance = start - try->armed;
}

static inline long position(const struct try *try)
{
	return try->d - try->distance;
}

/*
 * What a sweep has met. An interrupt takes more instructions than INTERRUPT: a
 * call that it falls into takes longer, and one behind it comes later.
 */
#define INTERRUPT 500
#define POSITIONS 32768

struct coverage {
	struct try far; /* undisturbed */
	long distance;	/* of late, without nops: it depends on how far the timer is */
	bool inside[POSITIONS];
	long tried, met;
};

static inline struct coverage coverage_of(const struct try *far)
{
	printf("# undisturbed: the call comes after %ld instructions and has %ld\n", far->distance,
	       far->length);
	return (struct coverage){ .far = *far, .distance = far->distance };
}

static inline bool came_undisturbed(const struct coverage *coverage, const struct try *try)
{
	return try->distance < coverage->far.distance + SLED + INTERRUPT;
}

static inline void count_try(struct coverage *coverage, const struct try *try)
{
	coverage->tried++;
	if (came_undisturbed(coverage, try))
		coverage->distance = try->distance - try->nops;
}

static inline bool was_interrupted(const struct coverage *coverage, const struct try *try)
{
	return came_undisturbed(coverage, try) && try->length > coverage->far.length + INTERRUPT;
}

static inline bool *at_position(struct coverage *coverage, long position)
{
	static bool nowhere;
	long at = position + POSITIONS / 2;

	nowhere = false;
	return at < 0 || at >= POSITIONS ? &nowhere : &coverage->inside[at];
}

static inline void count_met(struct coverage *coverage, const struct try *try)
{
	bool *inside = at_position(coverage, position(try));

	coverage->met += !*inside;
	*inside = true;
}

/* The most positions that met the call in one piece. */
struct run {
	long first, length;
};

static inline struct run longest_run(struct coverage *coverage)
{
	struct run now = {}, longest = {};

	for (long at = -POSITIONS / 2; at < POSITIONS / 2; at++) {
		if (!*at_position(coverage, at))
			now.length = 0;
		else if (!now.length++)
			now.first = at;
		if (now.length > longest.length)
			longest = now;
	}
	return longest;
}

/* How a test makes one try. */
struct attempts {
	void (*attempt)(void *context, long d, unsigned int nops);
	void *context;
};

/* Tries a position with every number of nops until one meets the call there. */
static inline bool insist(struct coverage *coverage, const struct attempts *all, long at)
{
	for (unsigned int nops = 0; nops < SLED && !*at_position(coverage, at); nops++)
		all->attempt(all->context, at + coverage->distance + nops, nops);
	return *at_position(coverage, at);
}

/*
 * A tick, or work that the kernel has put off, displaces an event now and then,
 * sometimes many in a row. A call of plain instructions can be met at each of
 * them: all that were missed between those that were met, and at both ends.
 */
static inline void fill_gaps(struct coverage *coverage, const struct attempts *all)
{
	long first = longest_run(coverage).first, last = first;

	for (long at = -POSITIONS / 2; at < POSITIONS / 2; at++) {
		if (!*at_position(coverage, at))
			continue;
		first = at < first ? at : first;
		last = at;
	}
	for (long at = first; at <= last; at++)
		insist(coverage, all, at);
	while (insist(coverage, all, first - 1))
		first--;
	while (insist(coverage, all, last + 1))
		last++;
}

/* Makes one try for every position of @from..@to, or one in @step. */
static inline void sweep(struct coverage *coverage, long from, long to, int step,
			 const struct attempts *all)
{
	/* Behind the call: says what the distance is with such a timer. */
	all->attempt(all->context, coverage->far.distance + coverage->far.length + 1000, 0);
	for (long at = from; at <= to; at += step) {
		unsigned int nops = -(at + coverage->distance) & (SLED - 1);

		all->attempt(all->context, at + coverage->distance + nops, nops);
	}
	if (step == 1)
		fill_gaps(coverage, all);
}

/*
 * How long before the event its timer may be set at least: it takes some
 * instructions to set one, and some from the interrupt to the event.
 */
#define LATE  1024

/* Reading the clock in front of the call and behind it. */
#define EDGES 4

/*
 * A sweep is one only if it met every instruction of the call, less the edges.
 */
static inline void check_coverage(struct coverage *coverage)
{
	struct run run = longest_run(coverage);

	ok(run.length >= coverage->far.length - EDGES,
	   "of %ld events %ld fell into the call of %ld instructions, each at another one",
	   coverage->tried, run.length, coverage->far.length);
	printf("# positions %ld..%ld and %ld others\n", run.first, run.first + run.length - 1,
	       coverage->met - run.length);
}

/* A slow call is in the kernel most of the time: one position in @step is tried. */
static inline void check_slow_coverage(const struct coverage *coverage, int step)
{
	ok(coverage->met > coverage->far.length / step / 2,
	   "of %ld events %ld fell into the call of %ld instructions", coverage->tried,
	   coverage->met, coverage->far.length);
}

/* Service ids that have been seen: many if they are not used again. */
struct ids {
	bool seen[256];
	int count;
};

static inline void count_id(struct ids *ids, uint32_t tid)
{
	ids->count += !ids->seen[RPAL_TID_SERVICE(tid)];
	ids->seen[RPAL_TID_SERVICE(tid)] = true;
}

/* Ids come back after a grace period of RCU, during which some more die. */
#define IDS_IN_FLIGHT 32

#endif
