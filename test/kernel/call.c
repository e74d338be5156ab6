/* guest: cpus=1,2 isolation=mpk,none append=pti=on debug timeout=180 */
// SPDX-License-Identifier: MIT
/* A call reaches the receiver, its answer comes back, and nothing else moves. */
#include "registers.h"
#include "two_services.h"
#include <sys/ioctl.h>

#define ADD 1
#define PID 2
#define COUNT 3

static uint64_t runs;

static int handle(struct rpal_message *m)
{
	struct rpal_counters counters;

	runs++;
	switch (m->word[0]) {
	case ADD:
		m->word[0] = m->word[1] + m->word[2];
		m->word[5] = ~m->word[5];
		return 0;
	case PID:
		m->word[0] = getpid();
		m->word[1] = gettid();
		m->word[2] = getuid();
		return 0;
	case COUNT:
		MUST(rpal_counters(&counters));
		m->word[0] = runs;
		m->word[1] = counters.served;
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/*
 * A receiver whose own task takes its context back, for nothing, while it waits
 * for calls. It may do so after the next call or, given a pause, before: both
 * have to be right, and sweep_receiver.c forces what lies between.
 */
static void check_woken(struct side *side, uint64_t made, long pause_us)
{
	struct rpal_message m = { { COUNT } };
	int ret;

	MUST(result(ioctl(rpal_open(), RPAL_IOC_WAKE, (unsigned long)side->target.tid)));
	usleep(pause_us);
	ret = rpal_call(&side->target, &m, -1);
	ok(ret == 0 && m.word[0] == made && m.word[1] == made,
	   "after %llu calls and a wake-up, a handler has run %llu times, and %llu calls have come",
	   (unsigned long long)made, m.word[0], m.word[1]);
}

static int client(struct side *side, int argc, char **argv)
{
	long calls = argc > 1 ? atol(argv[1]) : 1000000, wrong = 0;
	struct rpal_counters counters;
	struct rpal_message m = { { ADD, 40, 2, 3, 4, 5 } };
	bool kept;
	int ret;

	ret = rpal_call(&side->target, &m, -1);
	ok(ret == 0 && m.word[0] == 42, "a call is answered (%d, %llu)", ret, m.word[0]);
	ok(m.word[3] == 3 && m.word[4] == 4 && m.word[5] == ~5ULL, "all words travel both ways");

	m = (struct rpal_message){ { ADD, 1, 2 } };
	ret = call_keeping_registers(&side->target, &m, -1, &kept);
	ok(ret == 0 && m.word[0] == 3 && kept, "registers and control words are kept");

	m = (struct rpal_message){ { PID } };
	ret = call_keeping_registers(&side->target, &m, -1, &kept);
	ok(ret == 0 && (pid_t)m.word[0] == side->other && (pid_t)m.word[1] == side->other &&
		   m.word[2] == getuid(),
	   "the handler's system calls are the server's (pid %llu of %d)", m.word[0], side->other);
	ok(kept, "registers and control words are kept over a hand-back");
	ok(getpid() != side->other, "the client is itself again");

	m = (struct rpal_message){ { 77 } };
	ok(rpal_call(&side->target, &m, -1) == -ENOSYS, "the receiver's error arrives");

	for (long i = 0; i < calls; i++) {
		m = (struct rpal_message){ { ADD, i, i * 7, 0, i, i ^ 0x55 } };
		ret = rpal_call(&side->target, &m, -1);
		wrong += ret != 0 || m.word[0] != (uint64_t)i * 8 || m.word[4] != (uint64_t)i ||
			 m.word[5] != ~(uint64_t)(i ^ 0x55);
	}
	for (int i = 0; i < 10; i++)
		check_woken(side, 5 + calls + i, i % 2 * 20000);
	rpal_counters(&counters);
	ok(wrong == 0, "%ld verified calls, %ld wrong", calls, wrong);
	printf("# calls %lu handed back %lu retries %lu waits %lu\n", counters.calls,
	       counters.handed_back, counters.retries, counters.waits);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
