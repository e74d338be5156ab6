/* SPDX-License-Identifier: MIT */
/*
 * Tests that can go on for as long as one likes: `npm test` runs a few seconds
 * of them, `npm run stress` gives them minutes and a seed of its own.
 *
 *	PROGRAM [--seconds N] [--seed S]
 */
#ifndef LONG_RUN_H
#define LONG_RUN_H

#include "tap.h"
#include <getopt.h>
#include <stdint.h>
#include <time.h>

struct long_run {
	uint64_t seed;
	double seconds;
	double until; /* on CLOCK_MONOTONIC */
	double next;  /* when to say how far it is */
};

static inline double now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* The time begins now. */
static inline struct long_run long_run(int argc, char **argv, double seconds)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 's' },
		{},
	};
	struct long_run run = { .seed = 1, .seconds = seconds };
	int option;

	optind = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 't':
			run.seconds = atof(optarg);
			break;
		case 's':
			run.seed = strtoull(optarg, NULL, 0);
			break;
		default:
			exit(2);
		}
	}
	run.until = now_seconds() + run.seconds;
	printf("# seed %llu, %.0f s\n", (unsigned long long)run.seed, run.seconds);
	return run;
}

/* Once a minute it says how far it is: @count of what it counts. */
static inline bool goes_on_after(struct long_run *run, unsigned long count)
{
	double now = now_seconds();

	if (!run->next)
		run->next = now + 60;
	if (now > run->next) {
		printf("# %lu, %.0f s to go\n", count, run->until - now);
		run->next += 60;
	}
	return now < run->until;
}

static inline bool goes_on(const struct long_run *run)
{
	return now_seconds() < run->until;
}

#endif
