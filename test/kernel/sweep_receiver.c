/* guest: icount isolation=mpk,none timeout=900 */
// SPDX-License-Identifier: MIT
/*
 * A signal to the receiver, an event that it waits for, a wake-up for nothing,
 * and its death by SIGKILL, at every instruction of a call that runs on the
 * sender's task; and the death of the service that the receiver calls in its
 * turn.
 *
 * The server sets a timer on itself in one call; the next call comes at a
 * distance that the client measures. A wake-up comes from another thread of the
 * client. After a signal, an event or a wake-up the answer is right, and the
 * server has handled the call once, and the event once, as itself, before the
 * next call.
 * After a kill the client has an answer or -EOWNERDEAD and all its registers,
 * and other servers can be called.
 */
#include "sweep.h"
#include <pthread.h>
#include <sys/ioctl.h>

enum { KILL_NEXT = KILL + 1, WAKE };

static const char *const names[] = {
	[SIGNAL] = "signals to the receiver",
	[RECLAIM] = "events for the receiver",
	[KILL] = "kills of the receiver",
	[KILL_NEXT] = "kills of whom it calls",
	[WAKE] = "wake-ups of the receiver",
};

/* A signal comes before the kills at the same kind of call. */
static struct row rows[] = {
	{ RECLAIM, ADD, LISTENS, 1 },
	{ RECLAIM, SLOW_ADD, LISTENS, 8 },
	{ RECLAIM, NESTED_ADD, LISTENS, 16 },
	{ SIGNAL, ADD, SERVES, 1 },
	{ SIGNAL, ADD, LISTENS, 1 },
	{ SIGNAL, SLOW_ADD, SERVES, 8 },
	{ SIGNAL, SLOW_ADD, LISTENS, 16 },
	{ SIGNAL, FAULT_ADD, SERVES, 16 },
	{ SIGNAL, NESTED_ADD, SERVES, 16 },
	{ KILL, ADD, SERVES, 1 },
	{ KILL, ADD, LISTENS, 3 },
	{ KILL, SLOW_ADD, SERVES, 32 },
	{ KILL, SLOW_ADD, LISTENS, 96 },
	{ KILL, FAULT_ADD, SERVES, 96 },
	{ KILL, NESTED_ADD, SERVES, 96 },
	{ KILL_NEXT, NESTED_ADD, SERVES, 96 },
	{ WAKE, ADD, SERVES, 1 },
	{ WAKE, ADD, LISTENS, 3 },
	{ WAKE, SLOW_ADD, SERVES, 32 },
	{ WAKE, SLOW_ADD, LISTENS, 32 },
	{ WAKE, FAULT_ADD, SERVES, 96 },
	{ WAKE, NESTED_ADD, SERVES, 32 },
};

/* Whom the client calls, and whose timer is set before; NULL: that of the waker. */
struct servers {
	const struct side *called, *armed;
};

struct sweep {
	const struct row *row;
	const struct side *other; /* nothing happens to it */
	struct servers servers;
	struct coverage coverage;
	long dead, alive;
	struct ids ids;
};

/* A thread of the client, of a real-time class. */
static struct waker {
	int timer;
	uint64_t receiver;
} waker;

static void *wake_when_it_is_time(void *arg)
{
	uint64_t expiries;

	run_first(2);
	for (;;) {
		hear(waker.timer, &expiries, sizeof(expiries));
		if (ioctl(rpal_open(), RPAL_IOC_WAKE, waker.receiver))
			die("RPAL_IOC_WAKE", errno);
	}
	return NULL;
}

static void wake_from_now(const struct rpal_target *target)
{
	pthread_t thread;

	waker.receiver = target->tid;
	if (waker.timer)
		return;
	waker.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (pthread_create(&thread, NULL, wake_when_it_is_time, NULL))
		die("pthread_create", EAGAIN);
}

static struct try try_once(struct servers servers, int kind, long d, unsigned int nops)
{
	struct rpal_message m = { { ARM, d } };
	struct try try = { .d = d, .nops = nops };

	if (!servers.armed) {
		try.armed = now_tsc();
		set_timerfd(waker.timer, d);
		call_behind_sled(&try, &servers.called->target, kind);
		return try;
	}
	/* Other work of the kernel may come in between: too late for the timer. */
	try.error = rpal_call(&servers.armed->target, &m, -1);
	if (try.error) {
		try.distance = LONG_MAX / 2;
		return try;
	}
	try.armed = m.word[0];
	call_behind_sled(&try, &servers.called->target, kind);
	return try;
}

static struct try undisturbed(struct servers servers, int kind, int tries)
{
	struct try least = {};

	for (int i = 0; i < tries; i++) {
		struct try try = try_once(servers, kind, 500000000, 0);

		MUST(try.error);
		take_least(&least, i, try);
	}
	return least;
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
	const struct rpal_target *target = &all->servers.called->target;
	struct report before = ask_report(target);
	struct try try = try_once(all->servers, all->row->kind, d, nops);

	/* As a rule the event has come by now. The next call would hide what is left. */
	sled(0);
	check_survived(&all->coverage, &try, target);
	if (ask_report(target).adds != before.adds + 1)
		complain(&all->coverage, &try, "the call was not handled once");
	if (all->row->fate != WAKE && wait_for_event(target, before.events) != 1)
		complain(&all->coverage, &try, "the event has come more than once");
}

/* A server of its own dies, the one that is called or the next one. */
static void attempt_kill(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	struct coverage *coverage = &all->coverage;
	struct servers servers = all->servers;
	bool next = all->row->fate == KILL_NEXT;
	int kind = all->row->kind;
	struct side mortal;
	struct try try;
	pid_t pid;

	mortal = own_server(next ? SERVES : all->row->style, KILL, &pid);
	count_id(&all->ids, mortal.target.tid);
	servers.armed = &mortal;
	if (next)
		lead_on(servers.called, &mortal);
	else
		servers.called = &mortal;
	if (!next && kind == NESTED_ADD)
		lead_on(&mortal, all->other);
	undisturbed(servers, kind, WARM);
	try = try_once(servers, kind, d, nops);
	count_try(coverage, &try);
	if (was_interrupted(coverage, &try) || (came_undisturbed(coverage, &try) && try.error)) {
		count_met(coverage, &try);
		all->dead += try.error == -EOWNERDEAD;
		all->alive += !try.error;
	}
	waitpid(pid, NULL, 0);
	if (try.error && try.error != -EOWNERDEAD)
		complain(coverage, &try, "-");
	else if (!calls_nobody(own_control()))
		complain(coverage, &try, "the client is still calling");
	else if (add_once(&mortal.target, ADD, 1) != -EOWNERDEAD)
		complain(coverage, &try, "the dead server answers");
	else if (add_once(&all->other->target, ADD, d))
		complain(coverage, &try, "another server does not answer");
	else if (next && add_once(&servers.called->target, ADD, d))
		complain(coverage, &try, "who called the dead server does not answer");
	else if (next && !calls_nobody(servers.called->target.control))
		complain(coverage, &try, "it still calls the dead server");
	close(mortal.socket);
}

static struct window sweep_events(struct sweep *all)
{
	struct side side;
	struct try far;
	pid_t pid;

	side = own_server(all->row->style, all->row->fate, &pid);
	all->servers = (struct servers){ &side, all->row->fate == WAKE ? NULL : &side };
	if (all->row->fate == WAKE)
		wake_from_now(&side.target);
	lead_on(&side, all->other);
	far = undisturbed(all->servers, all->row->kind, TRIES);
	all->coverage = coverage_of(&far);
	sweep_row(&all->coverage, all->row, &(struct attempts){ attempt_event, all });
	check_row(&all->coverage, all->row, names[all->row->fate]);
	ok(!ask_report(&side.target).wrong, "handled as the server, with all registers kept");
	end_server(&side, pid);
	return window_of(&all->coverage);
}

static void sweep_kills(struct sweep *all, const struct window *window)
{
	struct side caller;
	pid_t pid;

	/* It lives, and calls those that do not. */
	caller = own_server(all->row->style, SIGNAL, &pid);
	all->servers.called = &caller;
	all->coverage = coverage_of(&window->far);
	sweep_row_in(&all->coverage, all->row, window, &(struct attempts){ attempt_kill, all });
	check_row(&all->coverage, all->row, names[all->row->fate]);
	ok(all->dead && all->alive, "in the call, before (%ld) and after (%ld) the answer",
	   all->dead, all->alive);
	ok(all->ids.count < IDS_IN_FLIGHT, "%d service ids were enough", all->ids.count);
	ok(!ask_report(&caller.target).wrong && !ask_report(&all->other->target).wrong,
	   "the others have kept all their registers");
	end_server(&caller, pid);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(SERVES, NOTHING, sweep_handle);
}

static int client(struct side *side, int argc, char **argv)
{
	static struct window windows[STYLES][CALLS];
	int log = kernel_log_from_now();

	use_step(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct sweep all = { .row = row, .other = side };

		if (row->fate == SIGNAL)
			windows[row->style][row->kind] = sweep_events(&all);
		else if (row->fate == RECLAIM || row->fate == WAKE)
			sweep_events(&all);
		else
			sweep_kills(&all, &windows[row->style][row->kind]);
	}
	return end_of_sweep(log);
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	run_own_server(argc, argv, sweep_handle);
	return two_services(argc, argv, server, client);
}
