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
#include <limits.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Of the positions in a slow call, one in so many. */
#define SLOW_SIGNALS 8
#define SLOW_KILLS   32

static volatile sig_atomic_t signals, foreign;
static uint64_t own_fs;
static pid_t own_pid;

static void on_alarm(int signal)
{
	signals++;
	if (current_fs_base() != own_fs || syscall(SYS_gettid) != own_pid)
		foreign++;
}

static struct try try_signal(const struct rpal_target *target, timer_t timer, int kind, long d,
			     unsigned int nops)
{
	struct try try = { .d = d, .nops = nops };
	int seen = signals;

	try.armed = now_tsc();
	arm(timer, d);
	call_behind_sled(&try, target, kind);
	while (signals == seen)
		;
	return try;
}

struct signals {
	const struct rpal_target *target;
	timer_t timer;
	int kind;
	struct coverage coverage;
	long wrong;
};

static void attempt_signal(void *context, long d, unsigned int nops)
{
	struct signals *all = context;
	struct try try = try_signal(all->target, all->timer, all->kind, d, nops);

	count_try(&all->coverage, &try);
	if (was_interrupted(&all->coverage, &try))
		count_met(&all->coverage, &try);
	if (!try.error && is_parked(all->target) && !own_control()->callee)
		return;
	if (!all->wrong++)
		printf("# position %ld: %s, state %llx, callee %llx\n", position(&try),
		       strerror(-try.error), all->target->control->state, own_control()->callee);
}

/* Returns where they met the call. */
static struct run sweep_signals(struct side *side, timer_t timer, int kind)
{
	struct signals all = { .target = &side->target, .timer = timer, .kind = kind };
	struct rpal_counters before, after;
	struct try far;

	for (int i = 0; i < 3; i++)
		far = try_signal(all.target, timer, kind, 10000000, 0);
	all.coverage = coverage_of(&far);
	rpal_counters(&before);
	sweep(&all.coverage, -LATE, far.length, kind == ADD ? 1 : SLOW_SIGNALS,
	      &(struct attempts){ attempt_signal, &all });
	rpal_counters(&after);
	ok(!all.wrong && !foreign, "%s call, %ld signals to the sender: %ld wrong, %d as another",
	   kind == ADD ? "plain" : "slow", all.coverage.tried, all.wrong, (int)foreign);
	printf("# handed back %lu, retried %lu\n", after.handed_back - before.handed_back,
	       after.retries - before.retries);
	ok(!ask_report(all.target).wrong, "the handlers have kept all their registers");
	if (kind == ADD)
		check_coverage(&all.coverage);
	else
		check_slow_coverage(&all.coverage, SLOW_SIGNALS);
	return longest_run(&all.coverage);
}

/* What is known of a victim after its death. */
struct view {
	uint32_t tid;
	uint64_t armed, start, end;
	int error;
};

enum { START_VICTIM = SWEEP_KINDS, END_VICTIM };

#define WARM 3 /* calls of a victim in front of the one that counts */

static volatile struct view *view;
static char view_fd[16];

static volatile struct view *map_view(int fd)
{
	void *address = mmap(NULL, sizeof(struct view), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (address == MAP_FAILED)
		die("mmap", errno);
	return address;
}

/* Calls at a fixed distance from its death. */
static void victim(struct side *side, char **argv)
{
	timer_t timer = sweep_timer(SIGKILL);
	int kind = atoi(argv[1]), nops = atoi(argv[3]);
	long d = atol(argv[2]);
	volatile struct view *view = map_view(atoi(argv[0]));

	meet_receiver(side);
	view->tid = rpal_tid();
	/* The same all the time, so that nothing happens for the first time. */
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
	static struct side side;
	static pid_t pid;
	char number[3][16], *args[] = { view_fd, number[0], number[1], number[2] };
	uint32_t tid = rpal_tid();
	int status;

	switch (m->word[0]) {
	case START_VICTIM:
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
	int fd = memfd_create("view", 0);

	if (fd < 0 || ftruncate(fd, sizeof(struct view)))
		die("memfd_create", errno);
	snprintf(view_fd, sizeof(view_fd), "%d", fd);
	view = map_view(fd);
	sweep_server_init();
	serve_calls(handle);
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

static struct death kill_one(const struct rpal_target *target, int kind, long d, unsigned int nops)
{
	struct rpal_message m = { { START_VICTIM, kind, d, nops } };
	long adds = ask_report(target).adds;
	struct death death;

	MUST(rpal_call(target, &m, -1));
	wait_for_end(m.word[0]);
	m.word[0] = END_VICTIM;
	MUST(rpal_call(target, &m, -1));
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
		.adds = ask_report(target).adds - adds - WARM,
	};
	if (m.word[0] != SIGKILL)
		death.try.error = -ECHILD;
	return death;
}

struct kills {
	const struct rpal_target *target;
	int kind;
	struct coverage coverage;
	long wrong, unhandled, handled, finished;
	struct ids ids;
};

static void attempt_kill(void *context, long d, unsigned int nops)
{
	struct kills *all = context;
	struct death now = kill_one(all->target, all->kind, d, nops);
	bool inside = now.started && !now.ended;
	int error = add_once(all->target, all->kind, d);

	count_try(&all->coverage, &now.try);
	all->finished += now.ended;
	count_id(&all->ids, now.tid);
	if (inside) {
		count_met(&all->coverage, &now.try);
		all->unhandled += !now.adds;
		all->handled += now.adds;
	}
	if (!error && !now.try.error && is_parked(all->target) &&
	    (inside ? now.adds == 0 || now.adds == 1 : now.adds == now.ended))
		return;
	if (!all->wrong++)
		printf("# position %ld: handled %ld times, its call %s: %s, the next: %s, "
		       "state %llx\n",
		       position(&now.try), now.adds, now.ended ? "ended" : "did not end",
		       strerror(-now.try.error), strerror(-error), all->target->control->state);
}

/* Where signals met the call, kills do, too; a fresh client takes a little longer. */
static void sweep_kills(struct side *side, int kind, struct run window)
{
	struct kills all = { .target = &side->target, .kind = kind };
	struct attempts attempts = { attempt_kill, &all };
	struct try far = kill_one(all.target, kind, 500000000, 0).try;

	all.coverage = coverage_of(&far);
	if (kind == ADD)
		sweep(&all.coverage, window.first - 192, window.first + window.length + 64, 1,
		      &attempts);
	else
		sweep(&all.coverage, -LATE, far.length, SLOW_KILLS, &attempts);
	ok(!all.wrong, "%s call, %ld kills of the sender: %ld wrong",
	   kind == ADD ? "plain" : "slow", all.coverage.tried, all.wrong);
	ok(all.unhandled && all.handled && all.finished,
	   "they died without their handler (%ld), with it (%ld), after the call (%ld)",
	   all.unhandled, all.handled, all.finished);
	ok(!ask_report(all.target).wrong, "the handlers have kept all their registers");
	ok(all.ids.count < IDS_IN_FLIGHT, "%d service ids were enough", all.ids.count);
	if (kind == ADD)
		check_coverage(&all.coverage);
	else
		check_slow_coverage(&all.coverage, SLOW_KILLS);
}

static int client(struct side *side, int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct run plain;
	timer_t timer = sweep_timer(SIGALRM);
	int log = kernel_log_from_now();

	own_fs = current_fs_base();
	own_pid = getpid();
	sigaction(SIGALRM, &action, NULL);
	plain = sweep_signals(side, timer, ADD);
	sweep_signals(side, timer, SLOW_ADD);
	sweep_kills(side, ADD, plain);
	sweep_kills(side, SLOW_ADD, (struct run){});
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	run_from_memory(argv);
	if (argc > 6 && !strcmp(argv[1], "--victim")) {
		struct side side = become_peers(atoi(argv[2]));

		victim(&side, argv + 3);
	}
	return two_services(argc, argv, server, client);
}
