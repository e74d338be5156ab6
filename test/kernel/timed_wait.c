/* guest: icount timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A receiver that waits with a timeout is woken in time, wherever its context
 * was when the last call was handed back: a signal comes to the caller at every
 * instruction of a call, and then nobody calls any more.
 *
 * On one CPU, whose clock counts instructions.
 */
#include "handed_back.h"
#include "sweep_clock.h"
#include <sys/epoll.h>

#define BOARD	  100 /* a descriptor of memory that both see */
#define WAIT_MS	  40
#define REST_NS	  100000000L
#define FROM	  2000L /* from setting the timer: before the call */
#define TO	  3600L /* and behind it */
#define LEAST_MET 150	/* events that handed a call back */

static volatile uint64_t *timeouts;
static volatile sig_atomic_t signals;

static void server(struct side *side, int argc, char **argv)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct rpal_message m;

	timeouts = map_shared(BOARD, sizeof(*timeouts));
	MUST(rpal_call_event(&event));
	for (;;) {
		int n = rpal_epoll_wait(epfd, &event, 1, WAIT_MS);

		if (n == 1 && rpal_take(&m, NULL) == 1)
			rpal_reply(0, &m);
		*timeouts += n == 0;
	}
}

static void on_alarm(int signal)
{
	signals++;
}

/* A call that a signal falls into, or near. */
static void disturb(const struct side *side, timer_t timer, long d, unsigned int nops)
{
	struct rpal_message m = {};
	int seen = signals;

	arm(timer, d);
	sled(nops);
	MUST(rpal_call(&side->target, &m, -1));
	while (signals == seen)
		;
}

static int client(struct side *side, int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_alarm };
	const struct timespec rest = { .tv_nsec = REST_NS };
	timer_t timer = sweep_timer(SIGALRM);
	uint64_t before = handed_back();
	long tried = 0, missed = 0;

	timeouts = map_shared(BOARD, sizeof(*timeouts));
	sigaction(SIGALRM, &action, NULL);
	for (long d = FROM; d < TO; d += SLED) {
		for (unsigned int nops = 0; nops < SLED; nops++) {
			struct rpal_message m = {};
			uint64_t seen;

			/* The kernel has a timer for the wait before this call. */
			MUST(rpal_call(&side->target, &m, -1));
			disturb(side, timer, d, nops);
			seen = *timeouts;
			nanosleep(&rest, NULL);
			tried++;
			if (*timeouts == seen && !missed++)
				printf("# a signal after %ld ns, %u nops\n", d, nops);
		}
	}
	ok(!missed, "%ld signals near a call: %ld times the wait behind it did not end", tried,
	   missed);
	ok(handed_back() - before > LEAST_MET, "%lu calls were handed back", handed_back() - before);
	return done();
}

int main(int argc, char **argv)
{
	if (argc == 1 && dup2(shared_memory(sizeof(*timeouts)), BOARD) != BOARD)
		die("dup2", errno);
	run_from_memory(argv);
	return two_services(argc, argv, server, client);
}
