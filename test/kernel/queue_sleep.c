/* guest: icount timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * No word is missed by a receiver that is about to sleep: it is stopped by a
 * signal at the instructions between its last look and its sleep, one after the
 * other, and a word is put while it stands there. The writer does not wait for
 * it either, nor does it have a second chance to say something.
 */
#include "queue_pair.h"
#include "sweep_clock.h"
#include <poll.h>

static int control;

/* Stands still until the client has put a word. */
static void on_signal(int signal)
{
	char byte;

	tell(control, "i", 1);
	hear(control, &byte, 1);
}

static void server(struct side *side, int argc, char **argv)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	timer_t timer = sweep_timer(SIGUSR1);
	uint64_t word, expected = 0;
	long d;

	control = side->socket;
	signal(SIGUSR1, on_signal);
	MUST(watch(epfd, EPOLL_CTL_ADD, side->socket, EPOLLRPALIN));
	tell(control, "w", 1);
	for (;;) {
		struct epoll_event event;
		char how = 'w'; /* it waited, or was interrupted */
		int n;

		if (read(control, &d, sizeof(d)) != sizeof(d))
			_exit(0);
		arm(timer, d / SLED * SLED);
		sled(d % SLED);
		while ((n = rpal_epoll_wait(epfd, &event, 1, -1)) < 0 && errno == EINTR)
			how = 'e';
		if (n != 1 || rpal_queue_take(side->socket, &word, 1) != 1 || word != expected++)
			die("the word", EPROTO);
		tell(control, &how, 1);
	}
}

static int client(struct side *side, int argc, char **argv)
{
	struct pollfd answer = { .fd = side->socket, .events = POLLIN };
	long looked = 0, in_between = 0, asleep = 0, lost = 0;
	struct rpal_queue_counters before, after;
	struct rpal_writer *writer;
	uint64_t word = 0;
	char byte;

	hear(side->socket, &byte, 1);
	writer = open_writer(&side->peer, side->socket);
	for (long d = 2000; d < 7000 && !lost; d += 5) {
		rpal_queue_counters(&before);
		tell(side->socket, &d, sizeof(d));
		hear(side->socket, &byte, 1);
		if (byte != 'i')
			die("the server was not interrupted", EPROTO);
		if (rpal_queue_put(writer, &word, 1) != 1)
			die("rpal_queue_put", EPROTO);
		word++;
		rpal_queue_counters(&after);
		tell(side->socket, "g", 1);
		lost = poll(&answer, 1, 10000) != 1;
		if (lost)
			break;
		hear(side->socket, &byte, 1);
		if (byte == 'e')
			asleep++;
		else if (after.woken > before.woken)
			in_between++;
		else
			looked++;
	}
	ok(!lost, "%lu words for a receiver that falls asleep, %ld lost", word, lost);
	ok(looked > 100 && in_between > 3 && asleep > 100,
	   "%ld before its last look, %ld behind it, %ld in its sleep", looked, in_between, asleep);
	return done();
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	if (argc > 2)
		enable_queues();
	return two_services(argc, argv, server, client);
}
