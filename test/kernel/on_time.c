/* guest: icount isolation=mpk,none timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * The receiver's own timers fire on time, and its sockets are served, while it
 * is called without pause. By a clock that counts instructions, on one CPU: so
 * its task has to take the CPU from the caller's, and its context from the call.
 */
#include "now.h"
#include "two_services.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#define PERIOD_NS 10000000L
#define PERIODS	  40
#define LATE	  1000000UL /* ns; without load it is a few thousand */
#define ALLOWED	  (PERIODS / 10) /* times: a guest has other work now and then */

enum { NOTHING, RESTART, REPORT };

struct report {
	uint64_t expirations, late, latest_ns, echoes;
};

/* ---- The server: an event loop ------------------------------------------- */

static void take_call(struct report *report)
{
	struct rpal_message m;
	uint64_t what;

	if (rpal_take(&m, NULL) != 1)
		die("rpal_take", EPROTO);
	what = m.word[0];
	m = (struct rpal_message){ { report->expirations, report->late, report->latest_ns,
				     report->echoes } };
	if (what == RESTART)
		*report = (struct report){};
	rpal_reply(0, &m);
}

static void server(struct side *side, int argc, char **argv)
{
	enum { CALL, TIMER, SOCKET };
	struct epoll_event event[3] = {
		{ .events = EPOLLIN, .data.u64 = CALL },
		{ .events = EPOLLIN, .data.u64 = TIMER },
		{ .events = EPOLLIN, .data.u64 = SOCKET },
	};
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t expected = now_ns() + PERIOD_NS, expired;
	struct itimerspec every = {
		{ 0, PERIOD_NS },
		{ expected / 1000000000, expected % 1000000000 },
	};
	struct report report = {};

	if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &every, NULL))
		die("timerfd_settime", errno);
	epoll_ctl(epfd, EPOLL_CTL_ADD, timer, &event[TIMER]);
	epoll_ctl(epfd, EPOLL_CTL_ADD, side->socket, &event[SOCKET]);
	MUST(rpal_call_event(&event[CALL]));
	for (;;) {
		struct epoll_event ready[3];
		int n = rpal_epoll_wait(epfd, ready, 3, -1);
		uint64_t late = now_ns() - expected;

		for (int i = 0; i < n; i++) {
			char byte;

			switch (ready[i].data.u64) {
			case TIMER:
				if (read(timer, &expired, sizeof(expired)) != sizeof(expired))
					die("read from the timer", errno);
				expected += expired * PERIOD_NS;
				report.expirations += expired;
				report.late += late > LATE;
				if (late > report.latest_ns)
					report.latest_ns = late;
				break;
			case SOCKET:
				hear(side->socket, &byte, 1);
				tell(side->socket, &byte, 1);
				report.echoes++;
				break;
			default:
				take_call(&report);
			}
		}
	}
}

/* ---- The client ------------------------------------------------------------ */

static struct report ask(struct side *side, uint64_t what)
{
	struct rpal_message m = { { what } };

	MUST(rpal_call(&side->target, &m, -1));
	return (struct report){ m.word[0], m.word[1], m.word[2], m.word[3] };
}

static uint64_t echoes;

/* One echo in a period, each awaited before the next: the pause is the load. */
static void *use_socket(void *arg)
{
	struct side *side = arg;
	char byte = 0;

	for (;;) {
		struct timespec pause = { 0, PERIOD_NS };

		nanosleep(&pause, NULL);
		tell(side->socket, &byte, 1);
		hear(side->socket, &byte, 1);
		__atomic_add_fetch(&echoes, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void is_on_time(const struct report *report, const char *when)
{
	ok(report->expirations >= PERIODS - ALLOWED && report->late <= ALLOWED,
	   "a timer %s: %lu times, %lu of them late, the latest %lu ns", when,
	   report->expirations, report->late, report->latest_ns);
}

static int client(struct side *side, int argc, char **argv)
{
	struct timespec rest = { 0, PERIODS * PERIOD_NS };
	struct report idle, loaded;
	uint64_t calls = 0, until;
	pthread_t thread;

	ask(side, RESTART);
	/* Without load: what is measured is this time. */
	nanosleep(&rest, NULL);
	idle = ask(side, REPORT);
	is_on_time(&idle, "without load");

	pthread_create(&thread, NULL, use_socket, side);
	ask(side, RESTART);
	for (until = now_ns() + PERIODS * PERIOD_NS; now_ns() < until; calls += 100)
		for (int i = 0; i < 100; i++)
			ask(side, NOTHING);
	loaded = ask(side, REPORT);
	printf("# %lu calls meanwhile\n", calls);
	is_on_time(&loaded, "under load");
	ok(loaded.echoes >= PERIODS / 2 && __atomic_load_n(&echoes, __ATOMIC_RELAXED),
	   "sockets are served: %lu times", loaded.echoes);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
