/* guest: icount isolation=mpk,none timeout=300 */
// SPDX-License-Identifier: MIT
/*
 * The end of a loan that has lasted too long, at every instruction of a call.
 *
 * The tick that finds that cannot be set like a timer. It comes when the clock
 * is at a multiple of its length, so the call is made where the tick will meet
 * it. No signal, nobody acts for one of the two: the context on loan goes back
 * and the answer is right.
 */
#include "loan_limit.h"
#include "now.h"
#include "sweep.h"

static struct row rows[] = {
	{ NOTHING, ADD, SERVES, 1 },
	{ NOTHING, ADD, LISTENS, 3 },
};

/*
 * The first tick in a call only remembers the call's number, the next one finds
 * that it is still the same, with a limit below the length of a tick. All calls
 * here have the same number: every tick is the next one.
 */
#define SEQ 1000

struct sweep {
	const struct row *row;
	const struct rpal_target *target;
	int timer;
	long tick; /* its length in ns */
	struct coverage coverage;
};

static void sleep_until(long ns)
{
	struct timespec then = { ns / 1000000000, ns % 1000000000 };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
}

#define EARLY 200000 /* ns, more than a sleep can be late */
#define LOOK  128    /* ns, more than a look at the clock takes */

/* Returns when a tick is @d ns ahead. */
static void until_before_tick(long tick, long d)
{
	long at, left;

	do {
		at = ((now_ns() + d + EARLY) / tick + 1) * tick - d;
		sleep_until(at - EARLY);
		do
			left = at - now_ns();
		while (left > LOOK);
	} while (left < 0);
	skip(left, LOOK);
}

/*
 * A timer that is set and taken back makes the kernel set the hardware's for
 * the tick anew: here, at a fixed distance from the call.
 */
static struct try try_tick(const struct sweep *all, long d, unsigned int nops)
{
	struct try try = { .d = d, .nops = nops };

	own_control()->call_seq = SEQ;
	until_before_tick(all->tick, d);
	try.armed = now_tsc();
	set_timerfd(all->timer, d / 2);
	set_timerfd(all->timer, 0);
	call_behind_sled(&try, all->target, all->row->kind);
	return try;
}

static void attempt(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	struct try try = try_tick(all, d, nops);

	check_survived(&all->coverage, &try, all->target);
}

static void sweep_ticks(struct sweep *all)
{
	struct rpal_counters before, after;
	long handed_back;
	struct try far = {};

	for (int i = 0; i < TRIES; i++)
		take_least(&far, i, try_tick(all, all->tick / 2, 0));
	all->coverage = coverage_of(&far);
	rpal_counters(&before);
	sweep_row(&all->coverage, all->row, &(struct attempts){ attempt, all });
	rpal_counters(&after);
	handed_back = after.handed_back - before.handed_back;
	check_row(&all->coverage, all->row, "ticks");
	ok(handed_back > far.length / all->row->step / 2, "%ld of the calls were handed back",
	   handed_back);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(SERVES, NOTHING, sweep_handle);
}

static int client(struct side *side, int argc, char **argv)
{
	struct side sides[STYLES] = { [SERVES] = *side };
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);
	int log = kernel_log_from_now();
	struct timespec tick;
	pid_t pid;

	use_step(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	sides[LISTENS] = own_server(LISTENS, NOTHING, &pid);
	limit_loans(1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sweep all = {
			.row = &rows[i],
			.target = &sides[rows[i].style].target,
			.timer = timer,
			.tick = tick.tv_nsec,
		};

		sweep_ticks(&all);
		ok(!ask_report(all.target).wrong, "the handlers have kept all their registers");
	}
	limit_loans(DEFAULT_LOAN_LIMIT);
	end_server(&sides[LISTENS], pid);
	return end_of_sweep(log);
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	run_own_server(argc, argv, sweep_handle);
	return two_services(argc, argv, server, client);
}
