/* guest: icount isolation=mpk,none timeout=300 */
// SPDX-License-Identifier: MIT
/*
 * A preemption of the sender at every instruction of a call.
 *
 * Another process, of a real-time class, wakes up there and uses every register
 * that a task switch has to save. No signal, nobody acts for the sender: the
 * call has to go on in user mode as if nothing had been.
 */
#include "sweep.h"
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

/* Wakes up when the timer says so, and leaves nothing as it was. */
static void run_preemptor(int timer, int ready)
{
	const struct sched_param first = { .sched_priority = 1 };
	struct vector_image image;
	uint64_t times;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	vector_image_init(&image);
	use_image_control_words(&image);
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		die("sched_setscheduler", errno);
	tell(ready, "r", 1);
	for (;;) {
		registers_over_nops(image.area, image.after, image.mask);
		if (read(timer, &times, sizeof(times)) != sizeof(times))
			die("read from the timer", errno);
	}
}

static pid_t start_preemptor(int timer)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (pipe(ready))
		die("pipe", errno);
	pid = fork();
	if (pid < 0)
		die("fork", errno);
	if (!pid)
		run_preemptor(timer, ready[1]);
	hear(ready[0], &byte, 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

struct preemptions {
	const struct rpal_target *target;
	int timer;
	struct coverage coverage;
	long wrong;
};

static struct try try_preempt(const struct preemptions *all, long d, unsigned int nops)
{
	const struct itimerspec when = { .it_value.tv_nsec = d };
	struct try try = { .d = d, .nops = nops };

	try.armed = now_tsc();
	if (timerfd_settime(all->timer, 0, &when, NULL))
		die("timerfd_settime", errno);
	call_behind_sled(&try, all->target, ADD);
	return try;
}

static void attempt_preempt(void *context, long d, unsigned int nops)
{
	struct preemptions *all = context;
	struct try try = try_preempt(all, d, nops);

	count_try(&all->coverage, &try);
	if (was_interrupted(&all->coverage, &try))
		count_met(&all->coverage, &try);
	if (!try.error && is_parked(all->target) && !own_control()->callee)
		return;
	if (!all->wrong++)
		printf("# position %ld: %s, state %llx, callee %llx\n", position(&try),
		       strerror(-try.error), all->target->control->state, own_control()->callee);
}

static void server(struct side *side, int argc, char **argv)
{
	sweep_server_init();
	serve_calls(sweep_handle);
}

static int client(struct side *side, int argc, char **argv)
{
	struct preemptions all = {
		.target = &side->target,
		.timer = timerfd_create(CLOCK_MONOTONIC, 0),
	};
	int log = kernel_log_from_now();
	struct rpal_counters before, after;
	struct try far;
	pid_t preemptor;

	if (all.timer < 0)
		die("timerfd_create", errno);
	preemptor = start_preemptor(all.timer);
	for (int i = 0; i < 3; i++)
		far = try_preempt(&all, 10000000, 0);
	all.coverage = coverage_of(&far);
	rpal_counters(&before);
	sweep(&all.coverage, -LATE, far.length, 1, &(struct attempts){ attempt_preempt, &all });
	rpal_counters(&after);
	ok(!all.wrong, "plain call, %ld preemptions: %ld wrong", all.coverage.tried, all.wrong);
	ok(after.handed_back == before.handed_back && after.retries == before.retries,
	   "no call was handed back (%lu) or tried again (%lu)",
	   after.handed_back - before.handed_back, after.retries - before.retries);
	ok(!ask_report(all.target).wrong, "the handlers have kept all their registers");
	check_coverage(&all.coverage);
	kernel_log_is_quiet(log);
	kill(preemptor, SIGKILL);
	waitpid(preemptor, NULL, 0);
	return done();
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	return two_services(argc, argv, server, client);
}
