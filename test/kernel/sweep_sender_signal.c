/* guest: icount timeout=300 */
// SPDX-License-Identifier: MIT
/*
 * A signal to the sender at every instruction of a call: the handler runs with
 * the sender's identity, and the call gives the right answer.
 */
#include "sweep.h"
#include <asm/prctl.h>
#include <sys/syscall.h>

static volatile sig_atomic_t signals, foreign;
static uint64_t own_fs;
static pid_t own_pid;

static void on_alarm(int signal, siginfo_t *info, void *context)
{
	uint64_t fs;

	signal_time = now_tsc();
	asm volatile("rdfsbase %0" : "=r"(fs));
	signals++;
	if (fs != own_fs || syscall(SYS_getpid) != own_pid)
		foreign++;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_adds(0);
}

static int sweep(struct side *side, timer_t timer, int kind, long from, long to)
{
	struct rpal_counters before, after;
	long wrong = 0, inside = 0, first = -1, last = -1, distance, length;
	int seen;

	/* How far away is the call, and how long is it, undisturbed? */
	for (int i = 0; i < 3; i++) {
		uint64_t armed, start;

		armed = now_tsc();
		arm(timer, 10000000);
		sled(0);
		start = now_tsc();
		add_once(&side->target, kind, i);
		distance = start - armed;
		length = now_tsc() - start;
		seen = signals;
		while (signals == seen)
			;
		printf("# armed: call at %ld, %ld long; signal at %ld\n",
		       distance, length, (long)(signal_time - armed));
	}
	rpal_counters(&before);
	for (long d = from; d < to; d += 16) {
		for (unsigned int nops = 0; nops < SLED; nops++) {
			uint64_t seed = d * SLED + nops;
			uint64_t start, end;
			int error;

			seen = signals;
			arm(timer, d);
			sled(nops);
			start = now_tsc();
			error = add_once(&side->target, kind, seed);
			end = now_tsc();
			/* Interrupted between the two: it took longer. */
			if (signals != seen && (long)(end - start) > length + 500) {
				inside++;
				last = d;
				if (first < 0)
					first = d;
			}
			while (signals == seen)
				;
			if (error && !wrong++)
				printf("# offset %ld+%u: %s\n", d, nops,
				       strerror(-error));
		}
	}
	rpal_counters(&after);
	ok(wrong == 0 && !foreign, "kind %d: %ld offsets, %ld wrong, %d foreign",
	   kind, to - from, wrong, (int)foreign);
	printf("# inside calls %ld (d %ld..%ld): handed back %lu, retried %lu\n",
	       inside, first, last, after.handed_back - before.handed_back,
	       after.retries - before.retries);
	/* The sweep is one only if it hit every phase of the call. */
	ok(inside > 40 && after.handed_back > before.handed_back &&
	   (kind == SLOW_ADD || after.retries > before.retries),
	   "the signals fell into the call");
	return 0;
}

static int client(struct side *side, int argc, char **argv)
{
	struct sigaction action = {
		.sa_sigaction = on_alarm,
		.sa_flags = SA_SIGINFO,
	};
	timer_t timer = sweep_timer(SIGALRM);

	asm volatile("rdfsbase %0" : "=r"(own_fs));
	own_pid = getpid();
	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < 100; i++)
		add_once(&side->target, ADD, i);

	sweep(side, timer, ADD, 1600, argc > 1 ? atol(argv[1]) : 4000);
	sweep(side, timer, SLOW_ADD, 1600, argc > 1 ? atol(argv[1]) : 16000);
	return tap_end();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
