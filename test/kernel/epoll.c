/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * rpal_epoll_wait: what epoll_wait does, and calls besides. The client drives a
 * server whose only loop is rpal_epoll_wait, through calls and a pipe.
 */
#include "two_services.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>

enum {
	COUNTS,		/* answers: calls, kernel events, timeouts so far */
	SET_TIMEOUT,	/* word[1] ms for the following waits */
	NO_ANSWER,	/* the handler leaves it open */
	TIMER,		/* a timerfd, word[1] ms ahead */
	OTHER_TIMER,	/* another, which another epoll file watches */
	WAIT_FOR_OTHER,	/* that is the one that is waited for next */
	FAIL,
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void server(struct side *side, int argc, char **argv)
{
	uint64_t calls = 0, kernel = 0, timeouts = 0, timer_late = 0, due = 0, others = 0;
	int epfd = epoll_create1(EPOLL_CLOEXEC), other = epoll_create1(EPOLL_CLOEXEC);
	int timeout = -1, waited_for = epfd;
	int other_timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 };
	struct epoll_event socket = { .events = EPOLLIN, .data.u64 = 2 };
	struct epoll_event expiry = { .events = EPOLLIN, .data.u64 = 3 };
	struct epoll_event other_expiry = { .events = EPOLLIN, .data.u64 = 4 };

	epoll_ctl(epfd, EPOLL_CTL_ADD, side->socket, &socket);
	epoll_ctl(epfd, EPOLL_CTL_ADD, timer, &expiry);
	epoll_ctl(other, EPOLL_CTL_ADD, other_timer, &other_expiry);
	MUST(rpal_call_event(&call));
	for (;;) {
		struct epoll_event events[8];
		struct rpal_message m;
		uint64_t value;
		uint32_t from;
		char byte;
		int n = rpal_epoll_wait(waited_for, events, 8, timeout);

		if (n < 0 && errno != EINTR)
			die("rpal_epoll_wait", errno);
		timeouts += n == 0;
		for (int i = 0; i < n; i++) {
			switch (events[i].data.u64) {
			case 2:
				kernel++;
				if (read(side->socket, &byte, 1) != 1)
					_exit(0);
				tell(side->socket, &byte, 1);
				continue;
			case 3:
				if (read(timer, &value, 8) == 8)
					timer_late = now_ms() - due;
				continue;
			case 4:
				others += read(other_timer, &value, 8) == 8;
				waited_for = epfd;
				continue;
			}
			calls++;
			if (rpal_take(&m, &from) != 1 || rpal_take(&m, NULL))
				die("rpal_take", EPROTO);
			switch (m.word[0]) {
			case COUNTS:
				m = (struct rpal_message){
					{ calls, kernel, timeouts, timer_late, others }
				};
				break;
			case SET_TIMEOUT:
				timeout = (int)m.word[1];
				break;
			case WAIT_FOR_OTHER:
				waited_for = other;
				break;
			case OTHER_TIMER:
			case TIMER: {
				struct itimerspec when = {
					.it_value.tv_nsec = m.word[1] * 1000000,
				};

				due = now_ms() + m.word[1];
				timerfd_settime(m.word[0] == TIMER ? timer : other_timer, 0, &when,
						NULL);
				break;
			}
			case NO_ANSWER:
				continue;
			case FAIL:
				rpal_reply(-EHOSTDOWN, NULL);
				continue;
			}
			rpal_reply(0, &m);
		}
	}
}

static int ask(struct side *side, struct rpal_message *m, uint64_t what,
	       uint64_t argument)
{
	*m = (struct rpal_message){ { what, argument } };
	return rpal_call(&side->target, m, 5000);
}

/* Calls for @ms; how often the answer was wrong. */
static long load(struct side *side, int ms)
{
	int64_t end = now_ms() + ms;
	struct rpal_message m;
	long wrong = 0;

	do {
		for (int i = 0; i < 100; i++)
			wrong += ask(side, &m, COUNTS, 0) != 0;
	} while (now_ms() < end);
	return wrong;
}

static int client(struct side *side, int argc, char **argv)
{
	struct pollfd answer = { .fd = side->socket, .events = POLLIN };
	struct rpal_counters before, after;
	struct rpal_message m, n;
	uint64_t passed;
	long wrong = 0;
	char byte;

	ok(ask(side, &m, COUNTS, 0) == 0 && m.word[0] == 1, "a call is an event");
	ok(ask(side, &m, NO_ANSWER, 0) == RPAL_PENDING,
	   "no answer is RPAL_PENDING");
	ok(ask(side, &m, FAIL, 0) == -EHOSTDOWN, "an error is an answer");

	for (int i = 0; i < 2000; i++) {
		ask(side, &m, COUNTS, 0);
		tell(side->socket, "x", 1);
		wrong += ask(side, &n, COUNTS, 0) || n.word[0] != m.word[0] + 1;
		hear(side->socket, &byte, 1);
	}
	ok(!wrong, "2000 rounds of a call and a socket message, %ld wrong",
	   wrong);

	tell(side->socket, "y", 1);
	wrong = 0;
	for (int i = 0; i < 200000 && !poll(&answer, 1, 0); i++)
		wrong += ask(side, &m, COUNTS, 0) != 0;
	ok(poll(&answer, 1, 0) == 1 && !wrong,
	   "a socket is served under full call load");
	hear(side->socket, &byte, 1);

	passed = now_ms();
	ask(side, &m, SET_TIMEOUT, 20);
	usleep(100000);
	ask(side, &m, COUNTS, 0);
	passed = now_ms() - passed;
	ok(m.word[2] >= 1 && m.word[2] <= passed / 20, "20 ms timeouts: %llu in %llu ms",
	   m.word[2], (unsigned long long)passed);
	ask(side, &m, SET_TIMEOUT, -1);

	wrong = 0;
	rpal_counters(&before);
	ask(side, &m, TIMER, 15);
	wrong = load(side, 60);
	ask(side, &m, COUNTS, 0);
	rpal_counters(&after);
	ok(!wrong && m.word[3] < 1000, "a timer fires under load, %llu ms late",
	   m.word[3]);
	printf("# calls %lu, handed back %lu\n", after.calls - before.calls,
	       after.handed_back - before.handed_back);

	for (int i = 0; i < 5; i++) {
		ask(side, &m, OTHER_TIMER, 50);
		ask(side, &m, WAIT_FOR_OTHER, 0);
		usleep(200000);
	}
	ask(side, &m, COUNTS, 0);
	ok(m.word[4] == 5, "who waits for other events, on loan, gets them (%llu of 5)", m.word[4]);

	rpal_counters(&before);
	for (int i = 0; i < 1000; i++)
		ask(side, &m, COUNTS, 0);
	rpal_counters(&after);
	ok(after.handed_back - before.handed_back < 20,
	   "without events calls stay in user mode (%lu of 1000 handed back)",
	   after.handed_back - before.handed_back);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
