/* guest: icount append=preempt=full timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A sender that everybody comes before is preempted in the midst of a call: the
 * receiver does not wait until the scheduler has time for it. Also where the
 * kernel itself can be preempted, so at each lock on the way to the hand-back.
 *
 * By a clock that counts instructions, on one CPU.
 */
#include "handed_back.h"
#include "sweep_clock.h"

#define ROUNDS	   5
#define HANDLE_NS  2000000UL   /* a handler computes for so long */
#define COMPUTE_NS 200000000UL /* a process that comes before the sender, in each round */
#define PAUSE_NS   20000000L   /* and the sender has the CPU between them */
#define LATE_NS	   50000000UL  /* half of the CPU is the receiver's */

enum { HANDLE, LONGEST };

static void compute(uint64_t ns)
{
	uint64_t start = now_tsc();

	while (now_tsc() - start < ns)
		;
}

static int handle(struct rpal_message *m)
{
	static uint64_t longest;
	uint64_t start = now_tsc(), took;

	if (m->word[0] == LONGEST) {
		m->word[1] = longest;
		return 0;
	}
	compute(HANDLE_NS);
	took = now_tsc() - start;
	if (took > longest)
		longest = took;
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static pid_t start_computing(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	for (int i = 0; i < ROUNDS; i++) {
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
		compute(COMPUTE_NS);
	}
	_exit(0);
}

static int client(struct side *side, int argc, char **argv)
{
	const struct sched_param none = {};
	struct rpal_message m = { { HANDLE } };
	uint64_t before;
	long calls = 0;
	pid_t pid;

	/* What happens for the first time takes longer. */
	MUST(rpal_call(&side->target, &m, -1));
	pid = start_computing();
	if (pid < 0 || sched_setscheduler(0, SCHED_IDLE, &none))
		die("fork, or SCHED_IDLE", errno);
	before = handed_back();
	while (!waitpid(pid, NULL, WNOHANG)) {
		m = (struct rpal_message){ { HANDLE } };
		MUST(rpal_call(&side->target, &m, -1));
		calls++;
	}
	ok(handed_back() - before >= ROUNDS, "%ld calls, preempted and handed back %lu times",
	   calls, handed_back() - before);
	m = (struct rpal_message){ { LONGEST } };
	MUST(rpal_call(&side->target, &m, -1));
	ok(m.word[1] < LATE_NS, "a handler of %lu ns took at most %llu", HANDLE_NS, m.word[1]);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
