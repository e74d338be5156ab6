// SPDX-License-Identifier: MIT
/*
 * A plain rpal_call(), there and back, between two services: the cost of the
 * switch itself. No payload but a number that must come back inverted.
 */
#include "measure.h"
#include "two_services.h"

static void server(struct side *side, int argc, char **argv)
{
	struct rpal_message message = { 0 };
	int ret, answer = 0;

	for (;;) {
		ret = rpal_serve_one(&message, answer, 0);
		if (ret == -EINTR) {
			answer = 0;
			continue;
		}
		MUST(ret);
		answer = 1;
		message.word[0] = ~message.word[0];
	}
}

static inline void call(struct side *side, uint64_t number)
{
	struct rpal_message message = { { number } };

	MUST(rpal_call(&side->target, &message, -1));
	verify(message.word[0] == ~number, number);
}

static uint64_t hand_backs(void)
{
	struct rpal_counters counters;

	MUST(rpal_counters(&counters));
	return counters.handed_back;
}

static int client(struct side *side, int argc, char **argv)
{
	struct plan plan = plan_of(argv);
	struct samples samples = samples_for(plan.messages);
	uint64_t cost = clock_cost(&plan), start, total, before;
	long counted = plan.messages / 10;
	struct syscall_count count;
	int64_t calls;

	for (long i = 0; i < plan.messages / 10; i++)
		call(side, i);

	before = hand_backs();
	start = ticks(&plan);
	for (long i = 0; i < plan.messages; i++)
		call(side, i);
	total = ticks(&plan) - start;
	before = hand_backs() - before;

	for (long i = 0; i < plan.messages; i++) {
		start = ticks(&plan);
		call(side, i);
		sample(&samples, ticks(&plan) - start - cost);
	}

	count = count_syscalls();
	calls = syscalls(&count);
	for (long i = 0; i < counted; i++)
		call(side, i);
	calls = calls < 0 ? -1 : syscalls(&count) - calls - count.cpus;

	save(&plan, "c-rpal-call", &samples);
	report(&(struct result){ "rpal", "call", "c-rpal-call", 0, plan.messages,
				 (double)total / plan.messages, (double)before / plan.messages,
				 (double)calls / counted });
	return 0;
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
