/* guest: icount isolation=mpk,none timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Many who call one receiver all get to it: by a clock that counts instructions,
 * none makes less than half as many calls as another.
 */
#include "now.h"
#include "two_services.h"
#include <pthread.h>

#define SENDERS	 24
#define TIME_NS	 1500000000UL
#define IMPATIENT 3 /* of the threads: they wait for a short time only */

static struct side *side;
static uint64_t until;
static struct {
	uint64_t calls, late;
	int error;
} result[SENDERS];
static int ready;

static int answer(struct rpal_message *m)
{
	for (volatile uint64_t i = 0; i < m->word[1]; i++)
		;
	m->word[0] = ~m->word[0];
	return 0;
}

static void server(struct side *client, int argc, char **argv)
{
	serve_calls(answer);
}

static void *call(void *arg)
{
	long me = (long)arg;
	int timeout = me < IMPATIENT ? 1 : -1;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) <= SENDERS)
		sched_yield();
	while (now_ns() < until && !result[me].error) {
		struct rpal_message m = { { result[me].calls, 100 } };
		int ret = rpal_call(&side->target, &m, timeout);

		if (!ret && m.word[0] == ~result[me].calls)
			result[me].calls++;
		else if (ret == -ETIMEDOUT && timeout > 0)
			result[me].late++;
		else
			result[me].error = ret ? ret : -EPROTO;
	}
	return NULL;
}

static int client(struct side *server_side, int argc, char **argv)
{
	uint64_t slowest = UINT64_MAX, fastest = 0, late = 0;
	pthread_t threads[SENDERS];
	int errors = 0;

	side = server_side;
	for (long i = 0; i < SENDERS; i++)
		pthread_create(&threads[i], NULL, call, (void *)i);
	while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < SENDERS)
		sched_yield();
	until = now_ns() + TIME_NS;
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < SENDERS; i++) {
		pthread_join(threads[i], NULL);
		errors += !!result[i].error;
		late += result[i].late;
		/* The impatient are there to leave the queue. */
		if (i < IMPATIENT)
			continue;
		if (result[i].calls < slowest)
			slowest = result[i].calls;
		if (result[i].calls > fastest)
			fastest = result[i].calls;
	}
	ok(!errors, "no call failed (%d threads), %lu were given up as they should be", errors, late);
	ok(slowest >= fastest / 2, "the slowest made %lu calls, the fastest %lu", slowest, fastest);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
