// SPDX-License-Identifier: MIT
/*
 * A plain rpal_call(), there and back, between two services: the cost of the
 * switch itself. No payload but a number that must come back inverted.
 */
#include "rpal_measure.h"

static int invert(struct rpal_message *message)
{
	message->word[0] = ~message->word[0];
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(invert);
}

static inline void call(struct side *side, uint64_t number)
{
	struct rpal_message message = { { number } };

	MUST(rpal_call(&side->target, &message, -1));
	verify(message.word[0] == ~number, number);
}

static int client(struct side *side, int argc, char **argv)
{
	struct run run = run_of(argv);
	long messages = run.plan.messages;
	uint64_t start, total, before;
	struct syscall_count count;
	int64_t calls;

	for (long i = 0; i < run.counted; i++)
		call(side, i);

	before = hand_backs();
	start = ticks(&run.plan);
	for (long i = 0; i < messages; i++)
		call(side, i);
	total = ticks(&run.plan) - start;
	before = hand_backs() - before;

	for (long i = 0; i < messages; i++) {
		start = ticks(&run.plan);
		call(side, i);
		sample(&run.samples, ticks(&run.plan) - start - run.cost);
	}

	count = count_syscalls();
	calls = syscalls(&count);
	for (long i = 0; i < run.counted; i++)
		call(side, i);
	calls = calls < 0 ? -1 : syscalls(&count) - calls - count.cpus;

	save(&run.plan, "c-rpal-call", &run.samples);
	report(&(struct result){ "rpal", "call", "c-rpal-call", 0, messages,
				 (double)total / messages, (double)before / messages,
				 (double)calls / run.counted });
	return 0;
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
