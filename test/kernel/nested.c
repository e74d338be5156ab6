/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Calls in calls: A calls B, whose handler calls A's second thread, and so on;
 * and calls that come back to a thread that waits for their answer.
 *
 * Two services with two receivers each, A and B; the letter and number of a
 * thread name it. A call carries the rest of its way, one character a step.
 */
#include "registers.h"
#include "two_services.h"
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>

#define THREADS 2
static const char names[] = "A1A2B1B2";

#define WALK 1
#define TELL 2 /* handed back; lets the other process know */

struct place {
	uint32_t tid;
	struct rpal_target target;
};

static struct place places[2 * THREADS];
static uint32_t my_first; /* in places */
static int to_others;	  /* a socket to the other process */

/*
 * Words of a WALK: what to do, the way that is left, an octet a step and 0 at
 * its end, the steps so far, and the sum of the thread ids met.
 */
static int walk(struct rpal_message *m)
{
	unsigned int next = m->word[1] & 0xff;

	m->word[2]++;
	m->word[3] += gettid();
	if (next == 0xff)
		_exit(0);
	if (!next)
		return 0;
	m->word[1] >>= 8;
	return rpal_call(&places[next - 1].target, m, -1);
}

static int handle(struct rpal_message *m)
{
	if (m->word[0] != TELL)
		return walk(m);
	tell(to_others, "", 1);
	return 0;
}

static void become_receiver(unsigned int at)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER));
	places[at].tid = rpal_tid();
}

static pthread_barrier_t attached;

static void *second_thread(void *unused)
{
	become_receiver(my_first + 1);
	pthread_barrier_wait(&attached);
	serve_calls(handle);
	return NULL;
}

/* Both sides: a second thread, and everybody knows everybody. */
static void start(struct side *side, unsigned int first)
{
	pthread_t thread;
	unsigned int theirs = first ? 0 : THREADS;

	my_first = first;
	to_others = side->socket;
	pthread_barrier_init(&attached, NULL, 2);
	become_receiver(first);
	if (pthread_create(&thread, NULL, second_thread, NULL))
		die("pthread_create", EAGAIN);
	pthread_barrier_wait(&attached);
	tell(side->socket, &places[first], THREADS * sizeof(*places));
	hear(side->socket, &places[theirs], THREADS * sizeof(*places));
	for (unsigned int i = 0; i < THREADS; i++)
		MUST(rpal_target_init(&places[theirs + i].target, places[theirs + i].tid,
				      side->peer.pkey));
}

static void server(struct side *side, int argc, char **argv)
{
	start(side, THREADS);
	serve_calls(handle);
}

/* The way as octets, from "B1A2B2"; "!" is the end of the process. */
static uint64_t way(const char *steps)
{
	uint64_t word = 0;

	for (int shift = 0; *steps; shift += 8) {
		uint64_t at = 0xff;

		if (*steps != '!')
			at = (strstr(names, (char[]){ steps[0], steps[1], 0 }) - names) / 2 + 1;
		word |= at << shift;
		steps += *steps == '!' ? 1 : 2;
	}
	return word;
}

/* From A1. Returns the status of the first call. */
static int walk_from_here(const char *steps, struct rpal_message *m)
{
	uint64_t word = way(steps);

	*m = (struct rpal_message){ { WALK, word >> 8 } };
	return rpal_call(&places[(word & 0xff) - 1].target, m, -1);
}

static void expect_circle(const char *steps)
{
	struct rpal_message m;
	int ret = walk_from_here(steps, &m);

	ok(ret == -EDEADLK, "A1%s: EDEADLK at once (%d)", steps, ret);
	/* The status goes back the whole way; nobody is left waiting. */
	ret = walk_from_here("B1A2B2", &m);
	ok(ret == 0 && m.word[2] == 3, "and all of them can be called again (%d)", ret);
}

#define ROUNDS 200

/* Calls B1, which calls back into A1, as soon as B1 has told that it answers A1. */
static void *call_when_told(void *wrong)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	for (int i = 0; i < ROUNDS; i++) {
		struct rpal_message m;
		char byte;

		hear(to_others, &byte, 1);
		*(long *)wrong += walk_from_here("B1A1", &m) != 0;
	}
	return NULL;
}

/*
 * A1 waits for nobody once B1 has answered it, even if it has not run since: it
 * is the last to get the CPU.
 */
static void test_answered(void)
{
	const struct sched_param none = {};
	struct epoll_event event = { .events = EPOLLIN };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	long wrong = 0, missed = 0;
	pthread_t thread;

	MUST(rpal_call_event(&event));
	if (sched_setscheduler(0, SCHED_IDLE, &none))
		die("SCHED_IDLE", errno);
	pthread_create(&thread, NULL, call_when_told, &wrong);
	for (int i = 0; i < ROUNDS; i++) {
		struct rpal_message m = { { TELL } };

		wrong += rpal_call(&places[2].target, &m, -1) != 0;
		missed += rpal_epoll_wait(epfd, &event, 1, 5000) != 1 ||
			  rpal_take(&m, NULL) != 1 || rpal_reply(handle(&m), &m);
		/* Answers. */
		missed += rpal_epoll_wait(epfd, &event, 1, 1) != 0;
	}
	pthread_join(thread, NULL);
	if (sched_setscheduler(0, SCHED_OTHER, &none))
		die("SCHED_OTHER", errno);
	close(epfd);
	ok(!wrong && !missed, "%d times B1 calls A1, which it has just answered: %ld wrong, %ld missed",
	   ROUNDS, wrong, missed);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_message m;
	long wrong = 0;
	uint64_t sum;
	int ret;

	start(side, 0);
	ret = walk_from_here("B1", &m);
	ok(ret == 0 && m.word[2] == 1 && m.word[3] == (uint64_t)side->other, "A1 calls B1 (%d)",
	   ret);
	ret = walk_from_here("B1A2", &m);
	ok(ret == 0 && m.word[2] == 2, "B1 calls back into A2 (%d)", ret);
	ret = walk_from_here("B1A2B2", &m);
	ok(ret == 0 && m.word[2] == 3, "A2 calls B2 (%d)", ret);
	sum = m.word[3];
	ok(sum > (uint64_t)side->other, "each handler is itself");
	for (int i = 0; i < 2000; i++) {
		bool kept;

		m = (struct rpal_message){ { WALK, way("A2B2") } };
		ret = call_keeping_registers(&places[2].target, &m, -1, &kept);
		wrong += ret != 0 || m.word[2] != 3 || m.word[3] != sum || !kept;
	}
	ok(!wrong, "2,000 times, with the caller's registers kept: %ld wrong", wrong);

	expect_circle("B1A1");
	expect_circle("B1A2B1");
	expect_circle("B1A2B2A1");
	for (int i = 0; i < 500; i++) {
		wrong += walk_from_here("B1A1", &m) != -EDEADLK;
		wrong += walk_from_here("B1A2B2A1", &m) != -EDEADLK;
		wrong += walk_from_here("B1A2", &m) != 0;
	}
	ok(!wrong, "500 times in turn with calls that are none: %ld wrong", wrong);

	test_answered();
	ret = walk_from_here("B1A2B2!", &m);
	ok(ret == -EOWNERDEAD, "the process of B1 and B2 ends in B2's handler: EOWNERDEAD (%d)",
	   ret);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
