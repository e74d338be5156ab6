/* guest: icount isolation=mpk,none timeout=900 */
// SPDX-License-Identifier: MIT
/*
 * A signal to the receiver, an event that it waits for, and its death by
 * SIGKILL, at every instruction of a call that runs on the sender's task.
 *
 * The server sets a timer on itself in one call; the next call comes at a
 * distance that the client measures. After a signal or an event the answer is
 * right, and the server has handled it once, as itself, before the next call.
 * After a kill the client has an answer or -EOWNERDEAD and all its registers,
 * and other servers can be called.
 */
#include "sweep.h"
#include <limits.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

/* What happens to a server. */
enum { SIGNAL, RECLAIM, KILL };
static const char *const names[] = { "signals to", "events for", "kills of" };

/* In the server, which is itself. */
static void note_event(void)
{
	report.event = now_tsc();
	report.events++;
	if (getpid() != (pid_t)report.pid || gettid() != (pid_t)report.pid)
		report.wrong++;
}

static void on_signal(int signal)
{
	note_event();
}

static timer_t own_timer;

static void arm_signal(long ns)
{
	arm(own_timer, ns);
}

static int own_timerfd;

static void arm_timerfd(long ns)
{
	struct itimerspec when = { .it_value.tv_nsec = ns };

	if (timerfd_settime(own_timerfd, 0, &when, NULL))
		die("timerfd_settime", errno);
}

/* An event loop: what wants its context back is the kernel's event. */
static void serve_and_listen(void)
{
	struct epoll_event event = { .events = EPOLLIN },
			   call = { .events = EPOLLIN, .data.fd = -1 };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct rpal_message m;
	uint64_t expiries;

	own_timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	event.data.fd = own_timerfd;
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, own_timerfd, &event))
		die("epoll_ctl", errno);
	arm_own = arm_timerfd;
	MUST(rpal_call_event(&call));
	for (;;) {
		if (rpal_epoll_wait(epfd, &event, 1, -1) != 1)
			die("rpal_epoll_wait", errno);
		if (event.data.fd == own_timerfd) {
			if (read(own_timerfd, &expiries, sizeof(expiries)) != sizeof(expiries))
				die("read from the timer", errno);
			note_event();
		} else {
			if (rpal_take(&m, NULL) != 1)
				die("rpal_take", EPROTO);
			MUST(rpal_reply(sweep_handle(&m), &m));
		}
	}
}

static void serve(int fate)
{
	struct sched_param first = { .sched_priority = 1 };

	/* Woken by its timer, it interrupts the client at once. */
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		die("sched_setscheduler", errno);
	sweep_server_init();
	if (fate == RECLAIM)
		serve_and_listen();
	if (fate == SIGNAL) {
		struct sigaction action = { .sa_handler = on_signal };

		sigaction(SIGUSR1, &action, NULL);
	}
	own_timer = sweep_timer(fate == KILL ? SIGKILL : SIGUSR1);
	arm_own = arm_signal;
	serve_calls(sweep_handle);
}

static struct try try_once(const struct rpal_target *target, int kind, long d, unsigned int nops)
{
	struct rpal_message m = { { ARM, d } };
	struct try try = { .d = d, .nops = nops };

	/* Other work of the kernel may come in between: too late for the timer. */
	try.error = rpal_call(target, &m, -1);
	if (try.error) {
		try.distance = LONG_MAX / 2;
		return try;
	}
	try.armed = m.word[0];
	call_behind_sled(&try, target, kind);
	return try;
}

static struct side new_server(int fate, pid_t *pid)
{
	char number[16], *args[] = { number };
	struct side side;

	snprintf(number, sizeof(number), "%d", fate);
	side = start_peer("--own-server", 1, args, pid);
	meet_receiver(&side);
	/* The same all the time, so that nothing happens for the first time. */
	for (int i = 0; i < 3; i++)
		MUST(try_once(&side.target, ADD, 500000000, 0).error);
	return side;
}

static void end_server(struct side *side, pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(side->socket);
}

struct sweep {
	const struct rpal_target *target, *other;
	int fate, kind;
	struct coverage coverage;
	long wrong, dead, alive;
	struct ids ids;
};

static bool sender_is_free(void)
{
	return !__atomic_load_n(&own_control()->callee, __ATOMIC_RELAXED);
}

static void complain(struct sweep *all, const struct try *try, const char *what)
{
	if (!all->wrong++)
		printf("# position %ld: %s, then: %s\n", position(try), strerror(-try->error),
		       what);
}

/*
 * How often it has come since there were so many: it may be late, as the call
 * may have been shorter than the longest, and once in a while the server's
 * task has to wait, although it is of a real-time class (the scheduler's fair
 * server). If it never comes this never returns, and the test fails by that.
 */
static long wait_for_event(const struct rpal_target *target, uint64_t events)
{
	uint64_t now;

	do {
		now = ask_report(target).events;
	} while (now == events);
	return now - events;
}

static void attempt_event(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	uint64_t events = ask_report(all->target).events;
	struct try try = try_once(all->target, all->kind, d, nops);
	bool parked, calls;
	long times;

	/* As a rule the event has come by now. Before the next call changes both: */
	sled(0);
	parked = is_parked(all->target);
	calls = !sender_is_free();
	times = wait_for_event(all->target, events);
	count_try(&all->coverage, &try);
	if (was_interrupted(&all->coverage, &try))
		count_met(&all->coverage, &try);
	if (try.error)
		complain(all, &try, "-");
	else if (!parked)
		complain(all, &try, "the server is not parked as it was");
	else if (calls)
		complain(all, &try, "the client is still calling");
	if (times != 1)
		complain(all, &try, "the event has come more than once");
}

/* A server of its own dies. */
static void attempt_kill(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	struct side side;
	struct try try;
	pid_t pid;
	int error;

	side = new_server(KILL, &pid);
	count_id(&all->ids, side.target.tid);
	try = try_once(&side.target, all->kind, d, nops);
	count_try(&all->coverage, &try);
	if (was_interrupted(&all->coverage, &try) ||
	    (came_undisturbed(&all->coverage, &try) && try.error)) {
		count_met(&all->coverage, &try);
		all->dead += try.error == -EOWNERDEAD;
		all->alive += !try.error;
	}
	if (try.error && try.error != -EOWNERDEAD)
		complain(all, &try, "-");
	else if (!sender_is_free())
		complain(all, &try, "the client is still calling");
	waitpid(pid, NULL, 0);
	error = add_once(&side.target, all->kind, 1);
	if (error != -EOWNERDEAD)
		complain(all, &try, strerror(-error));
	error = add_once(all->other, all->kind, d);
	if (error)
		complain(all, &try, strerror(-error));
	close(side.socket);
}

/* Of the positions in a slow call, one in so many. */
static int step_of(const struct sweep *all)
{
	if (all->kind == ADD)
		return 1;
	return all->fate == KILL ? 32 : 8;
}

static void check_sweep(struct sweep *all)
{
	ok(!all->wrong, "%s call, %ld %s the receiver: %ld wrong",
	   all->kind == ADD ? "plain" : "slow", all->coverage.tried, names[all->fate], all->wrong);
	if (all->kind == ADD)
		check_coverage(&all->coverage);
	else
		check_slow_coverage(&all->coverage, step_of(all));
}

/* Where they met an undisturbed call, and that. */
struct window {
	struct try far;
	struct run run;
};

static struct window sweep_events(int fate, int kind)
{
	struct sweep all = { .fate = fate, .kind = kind };
	struct side side;
	struct try far;
	pid_t pid;

	side = new_server(fate, &pid);
	all.target = &side.target;
	for (int i = 0; i < 3; i++)
		far = try_once(all.target, kind, 500000000, 0);
	all.coverage = coverage_of(&far);
	sweep(&all.coverage, -LATE, far.length, step_of(&all),
	      &(struct attempts){ attempt_event, &all });
	check_sweep(&all);
	ok(!ask_report(all.target).wrong, "handled as the server, with all registers kept");
	end_server(&side, pid);
	return (struct window){ far, longest_run(&all.coverage) };
}

static void sweep_kills(const struct side *other, int kind, const struct window *window)
{
	struct sweep all = {
		.other = &other->target,
		.fate = KILL,
		.kind = kind,
		.coverage = coverage_of(&window->far),
	};
	struct attempts attempts = { attempt_kill, &all };

	/* What a fresh server does takes a little longer. */
	if (kind == ADD)
		sweep(&all.coverage, window->run.first - 192,
		      window->run.first + window->run.length + 128, 1, &attempts);
	else
		sweep(&all.coverage, -LATE, window->far.length, step_of(&all), &attempts);
	check_sweep(&all);
	ok(all.dead && all.alive, "in the call, before (%ld) and after (%ld) the answer", all.dead,
	   all.alive);
	ok(all.ids.count < IDS_IN_FLIGHT, "%d service ids were enough", all.ids.count);
}

static void server(struct side *side, int argc, char **argv)
{
	sweep_server_init();
	serve_calls(sweep_handle);
}

static int client(struct side *side, int argc, char **argv)
{
	int log = kernel_log_from_now();
	struct window plain, slow;

	sweep_events(RECLAIM, ADD);
	sweep_events(RECLAIM, SLOW_ADD);
	plain = sweep_events(SIGNAL, ADD);
	slow = sweep_events(SIGNAL, SLOW_ADD);
	sweep_kills(side, ADD, &plain);
	sweep_kills(side, SLOW_ADD, &slow);
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	if (argc > 3 && !strcmp(argv[1], "--own-server")) {
		struct side side = become_peers(atoi(argv[2]));

		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		serve(atoi(argv[3]));
		return 0;
	}
	return two_services(argc, argv, server, client);
}
