// SPDX-License-Identifier: MIT
/*
 * 32 bytes to an event loop and 32 bytes back, through rpal_epoll_wait(): what
 * an epoll program gets that changes one call. One way is the time from before
 * the call until the receiver has the message.
 */
#include "rpal_measure.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void server(struct side *side, int argc, char **argv)
{
	struct plan plan = plan_of(argv);
	struct samples samples = samples_for(plan.messages);
	uint64_t cost = clock_cost(&plan), next = 0;
	struct epoll_event event = { .events = EPOLLIN, .data.fd = -1 };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int quiet = eventfd(0, EFD_CLOEXEC);
	struct rpal_message message;
	struct record record;

	/* An event loop watches something; this is never ready. */
	MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, quiet, &event));
	MUST(rpal_call_event(&event));
	for (;;) {
		if (rpal_epoll_wait(epfd, &event, 1, -1) < 0) {
			if (errno != EINTR)
				die("rpal_epoll_wait", errno);
			continue;
		}
		if (rpal_take(&message, NULL) != 1)
			continue;
		memcpy(&record, message.word, sizeof(record));
		/* No stamp: not a message whose way is measured. */
		if (record.stamp)
			sample(&samples, ticks(&plan) - record.stamp - cost);
		if (record.number == LAST) {
			save(&plan, "c-rpal-one-way", &samples);
			next = LAST;
		}
		/* A pass starts anew at 0. */
		if (record.number == 0)
			next = 0;
		verify(right(&record, next++), record.number);
		enter_kernel(&plan);
		answer(&record);
		memcpy(message.word, &record, sizeof(record));
		MUST(rpal_reply(0, &message));
	}
}

static inline void send_one(struct side *side, uint64_t number, uint64_t stamp)
{
	struct rpal_message message = { 0 };
	struct record record;

	fill(&record, number, stamp);
	memcpy(message.word, &record, sizeof(record));
	MUST(rpal_call(&side->target, &message, -1));
	memcpy(&record, message.word, sizeof(record));
	verify(right(&record, ~number), number);
}

static int client(struct side *side, int argc, char **argv)
{
	struct run run = run_of(argv);
	long messages = run.plan.messages;
	uint64_t start, total, before;
	struct syscall_count count;
	double calls;

	for (long i = 0; i < run.counted; i++)
		send_one(side, i, 0);

	before = hand_backs();
	start = ticks(&run.plan);
	for (long i = 0; i < messages; i++)
		send_one(side, i, 0);
	total = ticks(&run.plan) - start;
	before = hand_backs() - before;

	for (long i = 0; i < messages; i++) {
		start = ticks(&run.plan);
		send_one(side, i, start);
		sample(&run.samples, ticks(&run.plan) - start - run.cost);
	}

	count = count_syscalls();
	calls = syscalls(&count);
	for (long i = 0; i < run.counted; i++)
		send_one(side, i, 0);
	calls = calls < 0 ? -1 : (syscalls(&count) - calls - count.cpus) / run.counted;

	send_one(side, LAST, 0);
	if (run.plan.system_call) {
		save(&run.plan, "c-rpal-system-call", &run.samples);
		report(&(struct result){ "rpal", "system-call", "c-rpal-system-call", 32, messages,
					 (double)total / messages, (double)before / messages,
					 calls });
		return 0;
	}
	save(&run.plan, "c-rpal-round-trip", &run.samples);
	report(&(struct result){ "rpal", "one-way", "c-rpal-one-way", 32, messages, -1,
				 (double)before / messages, calls });
	report(&(struct result){ "rpal", "round-trip", "c-rpal-round-trip", 32, messages,
				 (double)total / messages, (double)before / messages, calls });
	return 0;
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
