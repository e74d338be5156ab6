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
#include "sweep_server.h"
#include <limits.h>

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

/*
 * The length and the distance of a call that nothing disturbs are the least of
 * several: a tick, or work that the kernel has put off, can fall into one. Not
 * of the first: things happen for the first time there.
 */
#define WARM  3
#define TRIES (WARM + 5)

static inline void take_least(struct try *least, int nth, struct try again)
{
	if (nth < WARM)
		return;
	if (nth == WARM || again.length < least->length)
		least->length = again.length;
	if (nth == WARM || again.distance < least->distance)
		least->distance = again.distance;
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
#define POSITIONS (1 << 16)
#define RECENT	  5

struct coverage {
	struct try far; /* undisturbed */
	/* Of late, without nops: it depends on how far the timer is. */
	long distances[RECENT];
	unsigned int undisturbed; /* so many came */
	bool inside[POSITIONS];
	long tried, met, wrong;
};

static inline struct coverage coverage_of(const struct try *far)
{
	printf("# undisturbed: the call comes after %ld instructions and has %ld\n", far->distance,
	       far->length);
	return (struct coverage){ .far = *far };
}

static inline bool came_undisturbed(const struct coverage *coverage, const struct try *try)
{
	return try->distance < coverage->far.distance + SLED + INTERRUPT;
}

static inline void count_try(struct coverage *coverage, const struct try *try)
{
	coverage->tried++;
	if (came_undisturbed(coverage, try))
		coverage->distances[coverage->undisturbed++ % RECENT] = try->distance - try->nops;
}

/*
 * From setting the timer to the sled: what it was most of the last times. Now and
 * then it is shorter, as the kernel need not set its hardware if a tick is due
 * first. Who believed that one try would set the timer too early, have that
 * event in front of the call, learn nothing from it, and so for ever.
 */
static inline long usual_distance(const struct coverage *coverage)
{
	long sorted[RECENT];

	for (int i = 0; i < RECENT; i++) {
		int at = i;

		for (; at && sorted[at - 1] > coverage->distances[i]; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = coverage->distances[i];
	}
	return sorted[RECENT / 2];
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

static inline void complain(struct coverage *coverage, const struct try *try, const char *what)
{
	if (!coverage->wrong++)
		printf("# position %ld: %s, then: %s\n", position(try), strerror(-try->error),
		       what);
}

/* After a call that nobody died of: it is right, and nothing is left of it. */
static inline void check_survived(struct coverage *coverage, const struct try *try,
				  const struct rpal_target *target)
{
	count_try(coverage, try);
	if (was_interrupted(coverage, try))
		count_met(coverage, try);
	if (try->error)
		complain(coverage, try, "-");
	else if (!is_parked(target))
		complain(coverage, try, "the server is not parked as it was");
	else if (!calls_nobody(own_control()))
		complain(coverage, try, "the client is still calling");
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

/* Makes a try that is to meet position @at, with this number of nops. */
static inline void aim(const struct coverage *coverage, const struct attempts *all, long at,
		       unsigned int nops)
{
	all->attempt(all->context, at + usual_distance(coverage) + nops, nops);
}

/* Tries a position with every number of nops, some times, until one meets the call there. */
static inline bool insist(struct coverage *coverage, const struct attempts *all, long at)
{
	for (int tries = 0; tries < 4 * SLED && !*at_position(coverage, at); tries++)
		aim(coverage, all, at, tries % SLED);
	return *at_position(coverage, at);
}

/* Learns the distance, from events behind the call; from the far ones if none is undisturbed. */
static inline void find_distance(struct coverage *coverage, const struct attempts *all)
{
	for (int i = 0; i < RECENT; i++)
		coverage->distances[i] = coverage->far.distance;
	for (int tries = 0; tries < 4 * RECENT && coverage->undisturbed < RECENT; tries++)
		all->attempt(all->context, coverage->far.distance + coverage->far.length + 1000, 0);
}

/*
 * A tick, or work that the kernel has put off, displaces an event now and then,
 * sometimes many in a row: what was missed is tried again, from the most that
 * were met in one piece to both sides. What cannot be met ends it, so that a
 * displaced event far away is not a reason to try all up to there.
 */
static inline void fill_gaps(struct coverage *coverage, const struct attempts *all)
{
	struct run run = longest_run(coverage);

	while (insist(coverage, all, run.first - 1))
		run.first--;
	while (insist(coverage, all, run.first + run.length))
		run.length++;
}

/* Makes one try for every position of @from..@to, or one in @step. */
static inline void sweep(struct coverage *coverage, long from, long to, int step,
			 const struct attempts *all)
{
	find_distance(coverage, all);
	for (long at = from; at <= to; at += step)
		aim(coverage, all, at, -(at + usual_distance(coverage)) & (SLED - 1));
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
 * How many positions met the call in the best stretch as long as it: one that the
 * clock of a busy host kept from being met cuts a run in two, but an event that was
 * displaced from far away does not count.
 */
static inline long met_in_stretch(struct coverage *coverage)
{
	long length = coverage->far.length, met = 0, most = 0;

	for (long at = -POSITIONS / 2; at < POSITIONS / 2; at++) {
		met += *at_position(coverage, at) - *at_position(coverage, at - length);
		most = met > most ? met : most;
	}
	return most;
}

/*
 * A sweep is one only if it met every instruction of the call, less the edges.
 */
static inline void check_coverage(struct coverage *coverage)
{
	long met = met_in_stretch(coverage);

	ok(met >= coverage->far.length - EDGES,
	   "of %ld events %ld fell into the call of %ld instructions, each at another one",
	   coverage->tried, met, coverage->far.length);
}

/* Where every instruction takes too long, one in @step is tried. */
static inline void check_steps(const struct coverage *coverage, int step)
{
	ok(coverage->met > coverage->far.length / step / 2,
	   "of %ld events %ld fell into the call of %ld instructions", coverage->tried,
	   coverage->met, coverage->far.length);
}

/* A line of the table "The sweep" in docs/testing.md. */
struct row {
	int fate;  /* what happens, and to whom: each test has its own */
	int kind;  /* of call */
	int style; /* of the server */
	int step;  /* 1: at every instruction */
};

/* "--step N" makes it the step of all rows. */
static inline void use_step(struct row *rows, size_t count, int argc, char **argv)
{
	if (argc < 2)
		return;
	if (argc != 3 || strcmp(argv[1], "--step") || atoi(argv[2]) < 1)
		die("arguments other than --step N", EINVAL);
	for (size_t i = 0; i < count; i++)
		rows[i].step = atoi(argv[2]);
}

static inline const char *call_of(const struct row *row)
{
	static char text[64];

	snprintf(text, sizeof(text), "%s call%s", call_names[row->kind],
		 row->style == LISTENS ? " of an event loop" : "");
	return text;
}

/* Of all rows. */
static long all_tried, all_met, all_wrong;

static inline void check_row(struct coverage *coverage, const struct row *row, const char *events)
{
	struct run run = longest_run(coverage);

	ok(!coverage->wrong, "%s, %ld %s: %ld wrong", call_of(row), coverage->tried, events,
	   coverage->wrong);
	/* A call that goes through the kernel is not always as long. */
	if (row->step == 1 && row->kind == ADD)
		check_coverage(coverage);
	else
		check_steps(coverage, row->step);
	if (row->step == 1)
		printf("# positions %ld..%ld and %ld others\n", run.first,
		       run.first + run.length - 1, coverage->met - run.length);
	all_tried += coverage->tried;
	all_met += coverage->met;
	all_wrong += coverage->wrong;
}

static inline int end_of_sweep(int log)
{
	kernel_log_is_quiet(log);
	printf("# in all: %ld events, %ld met a call at another instruction each, %ld wrong\n",
	       all_tried, all_met, all_wrong);
	return done();
}

/* An undisturbed call, and between which positions events met it. */
struct window {
	struct try far;
	long first, last;
};

static inline struct window window_of(struct coverage *coverage)
{
	struct window window = { coverage->far, coverage->far.length, -LATE };

	for (long at = -LATE; at <= coverage->far.length; at++) {
		if (!*at_position(coverage, at))
			continue;
		window.first = at < window.first ? at : window.first;
		window.last = at;
	}
	return window;
}

/* Events at a whole call, or at one in row->step of its positions. */
static inline void sweep_row(struct coverage *coverage, const struct row *row,
			     const struct attempts *all)
{
	sweep(coverage, -LATE, coverage->far.length, row->step, all);
}

/*
 * Where events of another sweep met a plain call, these do, too; with a fresh
 * process things take a little longer.
 */
static inline void sweep_row_in(struct coverage *coverage, const struct row *row,
				const struct window *window, const struct attempts *all)
{
	if (row->kind == ADD)
		sweep(coverage, window->first - 192, window->last + 128, row->step, all);
	else
		sweep_row(coverage, row, all);
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
