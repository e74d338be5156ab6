/* SPDX-License-Identifier: MIT */
/*
 * Numbers that look random and are the same again for the same seed, so that a
 * run that found something can be repeated.
 */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
	uint64_t state;
};

/* splitmix64: every seed is a good one, also small and consecutive ones. */
static inline uint64_t random_word(struct random *random)
{
	uint64_t z = random->state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* Another stream for the same seed: of a process, a thread, a round. */
static inline struct random random_stream(uint64_t seed, uint64_t stream)
{
	struct random random = { seed };

	random.state = random_word(&random) ^ stream * 0xd1342543de82ef95;
	random_word(&random);
	return random;
}

static inline uint64_t random_below(struct random *random, uint64_t limit)
{
	return random_word(random) % limit;
}

static inline bool one_in(struct random *random, uint64_t times)
{
	return !random_below(random, times);
}

#define RANDOM_OF(random, array) \
	((array)[random_below(random, sizeof(array) / sizeof((array)[0]))])

#endif
