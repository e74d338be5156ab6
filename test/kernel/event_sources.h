/* SPDX-License-Identifier: MIT */
/*
 * Kernel events for a server that is also called: of all kinds that epoll
 * knows, each raised again as soon as the last one was seen. If one is not
 * noticed, nothing raises the next, and the test says so.
 *
 * The test creates the descriptors and raises the events from plain threads. The
 * server inherits them by number.
 */
#ifndef EVENT_SOURCES_H
#define EVENT_SOURCES_H

#include "long_run.h"
#include "random.h"
#include "two_services.h"
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

enum source {
	LEVEL,
	EDGE,
	ONCE,
	NESTED, /* in an epoll descriptor of its own */
	TIMER,
	SOURCES
};

static const char *const source_names[] = { "level", "edge", "oneshot", "nested", "timer" };

/* How long an event may take, seconds: for ever. */
#define UNNOTICED 120

/* Shared by the test and the server. */
struct event_sources {
	int fds[SOURCES], seen_fds[SOURCES];
	uint64_t raised[SOURCES], seen[SOURCES];
	bool stop;
	int unnoticed; /* 1 + the source of the event that was not */
};

static inline void make_sources(struct event_sources *sources)
{
	for (int i = 0; i < SOURCES; i++) {
		sources->fds[i] = i == TIMER ? timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK) :
					       eventfd(0, EFD_NONBLOCK);
		sources->seen_fds[i] = eventfd(0, EFD_SEMAPHORE);
		if (sources->fds[i] < 0 || sources->seen_fds[i] < 0)
			die("event sources", errno);
	}
}

/* ---- The server ------------------------------------------------------------- */

#define SOURCE_KEY 100 /* of events; other keys are the server's */

static inline void listen_to(int epfd, int operation, struct event_sources *sources,
			     enum source source)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = SOURCE_KEY + source };
	int fd = sources->fds[source];

	if (source == EDGE)
		event.events |= EPOLLET;
	if (source == ONCE)
		event.events |= EPOLLONESHOT;
	if (source == NESTED) {
		int inner = epoll_create1(EPOLL_CLOEXEC);

		if (epoll_ctl(inner, EPOLL_CTL_ADD, fd, &event))
			die("epoll_ctl", errno);
		fd = inner;
	}
	if (epoll_ctl(epfd, operation, fd, &event))
		die("epoll_ctl", errno);
}

static inline void listen_to_all(int epfd, struct event_sources *sources)
{
	for (int i = 0; i < SOURCES; i++)
		listen_to(epfd, EPOLL_CTL_ADD, sources, i);
}

/* Whether the event is of a source. Then it has been seen. */
static inline bool see_event(int epfd, struct event_sources *sources,
			     const struct epoll_event *event)
{
	uint64_t source = event->data.u64 - SOURCE_KEY, value;

	if (source >= SOURCES)
		return false;
	if (read(sources->fds[source], &value, sizeof(value)) == sizeof(value)) {
		sources->seen[source]++;
		eventfd_write(sources->seen_fds[source], 1);
	}
	if (source == ONCE)
		listen_to(epfd, EPOLL_CTL_MOD, sources, ONCE);
	return true;
}

/* ---- The test ------------------------------------------------------------- */

struct raiser {
	pthread_t thread;
	struct event_sources *sources;
	enum source source;
	struct random random;
};

static inline void raise_event(struct raiser *raiser)
{
	struct event_sources *sources = raiser->sources;

	if (raiser->source == TIMER) {
		struct itimerspec when = {
			.it_value.tv_nsec = 1 + random_below(&raiser->random, 200000),
		};

		timerfd_settime(sources->fds[TIMER], 0, &when, NULL);
	} else {
		eventfd_write(sources->fds[raiser->source], 1);
	}
	sources->raised[raiser->source]++;
}

static inline void *raise_events(void *arg)
{
	struct raiser *raiser = arg;
	struct event_sources *sources = raiser->sources;
	struct pollfd seen = { .fd = sources->seen_fds[raiser->source], .events = POLLIN };
	uint64_t value;

	while (!sources->stop) {
		/* At another moment of a call each time. */
		for (volatile uint64_t i = random_below(&raiser->random, 3000); i > 0; i--)
			;
		/* And now and then leave the receiver alone. */
		if (one_in(&raiser->random, 300))
			usleep(random_below(&raiser->random, 5000));
		raise_event(raiser);
		for (int i = 0; i < UNNOTICED && !poll(&seen, 1, 1000); i++)
			;
		if (!poll(&seen, 1, 0)) {
			sources->unnoticed = 1 + raiser->source;
			return NULL;
		}
		if (read(seen.fd, &value, sizeof(value)) != sizeof(value))
			die("eventfd", errno);
	}
	return NULL;
}

static inline void start_raisers(struct raiser raisers[SOURCES], struct event_sources *sources,
				 uint64_t seed)
{
	for (int i = 0; i < SOURCES; i++) {
		raisers[i] = (struct raiser){
			.sources = sources,
			.source = i,
			.random = random_stream(seed, 50 + i),
		};
		pthread_create(&raisers[i].thread, NULL, raise_events, &raisers[i]);
	}
}

/* Every event that was raised has been seen. */
static inline uint64_t end_raisers(struct raiser raisers[SOURCES], struct event_sources *sources)
{
	uint64_t raised = 0, seen = 0;

	sources->stop = true;
	for (int i = 0; i < SOURCES; i++)
		pthread_join(raisers[i].thread, NULL);
	for (int i = 0; i < SOURCES; i++) {
		raised += sources->raised[i];
		seen += sources->seen[i];
		printf("# %-7s %llu events\n", source_names[i],
		       (unsigned long long)sources->seen[i]);
	}
	if (!ok(raised == seen && !sources->unnoticed, "of %llu events %llu were noticed",
		(unsigned long long)raised, (unsigned long long)seen) &&
	    sources->unnoticed)
		printf("# one was not: %s\n", source_names[sources->unnoticed - 1]);
	return seen;
}

#endif
