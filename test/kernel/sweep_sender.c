/* guest: icount isolation=mpk,none timeout=900 */
// SPDX-License-Identifier: MIT
/*
 * A signal to the sender, and its death by SIGKILL, at every instruction of a
 * call.
 *
 * After a signal the answer is right, and the handler has run as the sender.
 * After a kill the receiver is as if nothing had been: its handler has come to
 * its end with all its registers, and the next caller gets a right answer.
 */
#include "sweep.h"
#include <poll.h>
#include <sys/syscall.h>

static struct row rows[] = {
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
};

static volatile sig_atomic_t signals, foreign;
static uint64_t own_fs;
static pid_t own_pid;

static void on_alarm(int signal)
{
	signals++;
	if (current_fs_base() != own_fs || syscall(SYS_gettid) != own_pid)
		foreign++;
}

struct sweep {
	const struct row *row;
	const struct rpal_target *target;
	timer_t timer;
	struct coverage coverage;
	/* Of victims. */
	long unhandled, handled, finished;
	struct ids ids;
};

static struct try try_signal(const struct sweep *all, long d, unsigned int nops)
{
	struct try try = { .d = d, .nops = nops };
	int seen = signals;

	try.armed = now_tsc();
	arm(all->timer, d);
	call_behind_sled(&try, all->target, all->row->kind);
	while (signals == seen)
		;
	return try;
}

static void attempt_signal(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	struct try try = try_signal(all, d, nops);

	check_survived(&all->coverage, &try, all->target);
	if (foreign)
		complain(&all->coverage, &try, "the signal was handled by another");
	foreign = 0;
}

static void sweep_signals(struct sweep *all)
{
	struct rpal_counters before, after;
	struct try far = {};

	for (int i = 0; i < TRIES; i++)
		take_least(&far, i, try_signal(all, 10000000, 0));
	all->coverage = coverage_of(&far);
	rpal_counters(&before);
	sweep_row(&all->coverage, all->row, &(struct attempts){ attempt_signal, all });
	rpal_counters(&after);
	check_row(&all->coverage, all->row, "signals to the sender");
	printf("# handed back %lu, retried %lu\n", after.handed_back - before.handed_back,
	       after.retries - before.retries);
}

/* What is known of a victim after its death. */
struct view {
	uint32_t tid;
	uint64_t armed, start, end;
	int error;
};

enum { START_VICTIM = SWEEP_KINDS, END_VICTIM };

/* Calls WARM times, and once more at a fixed distance from its death. */
static void victim(struct side *side, char **argv)
{
	timer_t timer = sweep_timer(SIGKILL);
	int kind = atoi(argv[1]), nops = atoi(argv[3]);
	long d = atol(argv[2]);
	volatile struct view *view = map_shared(atoi(argv[0]), sizeof(*view));

	meet_receiver(side);
	view->tid = rpal_tid();
	for (int i = 0; i <= WARM; i++) {
		view->start = view->end = 0;
		view->armed = now_tsc();
		arm(timer, i < WARM ? 500000000 : d);
		sled(i < WARM ? 0 : nops);
		view->start = now_tsc();
		view->error = add_once(&side->target, kind, d);
		view->end = now_tsc();
	}
	for (;;)
		pause();
}

/* In the server. */
static int handle(struct rpal_message *m)
{
	static volatile struct view *view;
	static char view_fd[16];
	static struct side side;
	static pid_t pid;
	char number[3][16], *args[] = { view_fd, number[0], number[1], number[2] };
	uint32_t tid = rpal_tid();
	int status;

	switch (m->word[0]) {
	case START_VICTIM:
		if (!view) {
			int fd = shared_memory(sizeof(*view));

			snprintf(view_fd, sizeof(view_fd), "%d", fd);
			view = map_shared(fd, sizeof(*view));
		}
		for (int i = 0; i < 3; i++)
			snprintf(number[i], sizeof(number[i]), "%lld", m->word[1 + i]);
		memset((void *)view, 0, sizeof(*view));
		side = start_peer("--victim", 4, args, &pid);
		tell(side.socket, &tid, sizeof(tid));
		m->word[0] = pid;
		return 0;
	case END_VICTIM:
		if (waitpid(pid, &status, 0) != pid)
			return -errno;
		close(side.socket);
		*m = (struct rpal_message){ { status, view->tid, view->start - view->armed,
					      view->start, view->end ? view->end - view->start : 0,
					      view->error } };
		return 0;
	}
	return sweep_handle(m);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(SERVES, NOTHING, handle);
}

/* The victim's last call, or what it has lived to see of it. */
struct death {
	struct try try;
	uint32_t tid;
	bool started, ended;
	long adds;
};

static void wait_for_end(pid_t pid)
{
	struct pollfd end = { .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };

	if (end.fd < 0 || poll(&end, 1, -1) != 1)
		die("waiting for a victim", errno);
	close(end.fd);
}

static struct death kill_one(const struct sweep *all, long d, unsigned int nops)
{
	struct rpal_message m = { { START_VICTIM, all->row->kind, d, nops } };
	long adds = ask_report(all->target).adds;
	struct death death;

	MUST(rpal_call(all->target, &m, -1));
	wait_for_end(m.word[0]);
	m.word[0] = END_VICTIM;
	MUST(rpal_call(all->target, &m, -1));
	death = (struct death){
		.try = {
			.d = d,
			.nops = nops,
			.distance = m.word[3] ? m.word[2] : LONG_MAX / 2,
			.length = m.word[4],
			.error = m.word[5],
		},
		.tid = m.word[1],
		.started = m.word[3],
		.ended = m.word[4],
		.adds = ask_report(all->target).adds - adds - WARM,
	};
	if (m.word[0] != SIGKILL)
		death.try.error = -ECHILD;
	return death;
}

static void attempt_kill(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	struct death now = kill_one(all, d, nops);
	bool inside = now.started && !now.ended;
	int error = add_once(all->target, all->row->kind, d);

	count_try(&all->coverage, &now.try);
	all->finished += now.ended;
	count_id(&all->ids, now.tid);
	if (inside) {
		count_met(&all->coverage, &now.try);
		all->unhandled += !now.adds;
		all->handled += now.adds;
	}
	if (now.try.error)
		complain(&all->coverage, &now.try, "-");
	else if (error)
		complain(&all->coverage, &now.try, strerror(-error));
	else if (!is_parked(all->target))
		complain(&all->coverage, &now.try, "the server is not parked as it was");
	else if (inside ? now.adds != 0 && now.adds != 1 : now.adds != now.ended)
		complain(&all->coverage, &now.try, "not handled once");
}

static void sweep_kills(struct sweep *all, const struct window *window)
{
	struct try far = {};

	for (int i = WARM; i < TRIES; i++)
		take_least(&far, i, kill_one(all, 500000000, 0).try);
	all->coverage = coverage_of(&far);
	sweep_row_in(&all->coverage, all->row, window, &(struct attempts){ attempt_kill, all });
	check_row(&all->coverage, all->row, "kills of the sender");
	/* Few instructions come before the handler: a large step can miss them. */
	ok((all->unhandled || all->row->step > 1) && all->handled && all->finished,
	   "they died without their handler (%ld), with it (%ld), after the call (%ld)",
	   all->unhandled, all->handled, all->finished);
	ok(all->ids.count < IDS_IN_FLIGHT, "%d service ids were enough", all->ids.count);
}

static int client(struct side *side, int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_alarm };
	timer_t timer = sweep_timer(SIGALRM);
	int log = kernel_log_from_now();
	struct side sides[STYLES] = { [SERVES] = *side };
	struct window plain[STYLES];
	pid_t pid;

	use_step(rows, sizeof(rows) / sizeof(rows[0]), argc, argv);
	own_fs = current_fs_base();
	own_pid = getpid();
	sigaction(SIGALRM, &action, NULL);
	sides[LISTENS] = own_server(LISTENS, NOTHING, &pid);
	lead_on(&sides[SERVES], &sides[LISTENS]);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct sweep all = {
			.row = row,
			.target = &sides[row->style].target,
			.timer = timer,
		};

		if (row->fate == SIGNAL)
			sweep_signals(&all);
		else
			sweep_kills(&all, &plain[row->style]);
		if (row->fate == SIGNAL && row->kind == ADD)
			plain[row->style] = window_of(&all.coverage);
		ok(!ask_report(&sides[SERVES].target).wrong &&
		   !ask_report(&sides[LISTENS].target).wrong,
		   "the handlers have kept all their registers");
	}
	end_server(&sides[LISTENS], pid);
	return end_of_sweep(log);
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	run_own_server(argc, argv, handle);
	if (argc > 6 && !strcmp(argv[1], "--victim")) {
		struct side side = become_peers(atoi(argv[2]));

		victim(&side, argv + 3);
	}
	return two_services(argc, argv, server, client);
}
