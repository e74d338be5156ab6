/* guest: icount isolation=mpk,none timeout=600 */
// SPDX-License-Identifier: MIT
/*
 * What a third process does at every instruction of a call.
 *
 * Of a real-time class, it wakes up there. It uses every register that a task
 * switch has to save: the call has to go on as if nothing had been. It stops
 * the sender or the receiver, by SIGSTOP or as its debugger: who is stopped has
 * its own context and nobody else's; who is not goes on; and when both do, the
 * answer is right.
 */
#include "sweep.h"
#include "receiver_state.h"
#include <poll.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/user.h>

/* What is done, and to whom. */
enum { PREEMPT, STOP_SENDER, STOP_RECEIVER, TRACE_SENDER, TRACE_RECEIVER };

static const struct fate {
	const char *name;
	bool stop, trace, receiver;
} fates[] = {
	[PREEMPT] = { "preemptions" },
	[STOP_SENDER] = { "stops of the sender", .stop = true },
	[STOP_RECEIVER] = { "stops of the receiver", .stop = true, .receiver = true },
	[TRACE_SENDER] = { "looks at the sender", .trace = true },
	[TRACE_RECEIVER] = { "looks at the receiver", .trace = true, .receiver = true },
};

static struct row rows[] = {
	{ PREEMPT, ADD, SERVES, 1 },
	{ STOP_SENDER, ADD, SERVES, 1 },
	{ STOP_SENDER, ADD, LISTENS, 1 },
	{ STOP_SENDER, SLOW_ADD, SERVES, 16 },
	{ STOP_SENDER, SLOW_ADD, LISTENS, 32 },
	{ STOP_SENDER, FAULT_ADD, SERVES, 32 },
	{ STOP_SENDER, NESTED_ADD, SERVES, 16 },
	{ STOP_RECEIVER, ADD, SERVES, 1 },
	{ STOP_RECEIVER, ADD, LISTENS, 1 },
	{ STOP_RECEIVER, SLOW_ADD, SERVES, 16 },
	{ STOP_RECEIVER, SLOW_ADD, LISTENS, 32 },
	{ STOP_RECEIVER, FAULT_ADD, SERVES, 32 },
	{ STOP_RECEIVER, NESTED_ADD, SERVES, 16 },
	{ TRACE_SENDER, ADD, SERVES, 1 },
	{ TRACE_SENDER, ADD, LISTENS, 1 },
	{ TRACE_SENDER, SLOW_ADD, SERVES, 16 },
	{ TRACE_SENDER, SLOW_ADD, LISTENS, 32 },
	{ TRACE_SENDER, FAULT_ADD, SERVES, 32 },
	{ TRACE_SENDER, NESTED_ADD, SERVES, 16 },
	{ TRACE_RECEIVER, ADD, SERVES, 1 },
	{ TRACE_RECEIVER, ADD, LISTENS, 1 },
	{ TRACE_RECEIVER, SLOW_ADD, SERVES, 16 },
	{ TRACE_RECEIVER, SLOW_ADD, LISTENS, 32 },
	{ TRACE_RECEIVER, FAULT_ADD, SERVES, 32 },
	{ TRACE_RECEIVER, NESTED_ADD, SERVES, 16 },
};

/* A side of the call, as the third process sees it. */
struct party {
	pid_t pid;
	uint32_t tid;
	uint64_t fs_base;
};

/* What the third process and the client share. */
struct board {
	int fate;
	struct party sender, receiver, next;
	long times;   /* that it has acted */
	long foreign; /* who was stopped had something of the other's */
};

static volatile struct board *board;
static int timer_fd, ready[2];
static pid_t listener;

/* Waits until a child or tracee stops. Does not return if it ends. */
static int status_of_stop(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status))
		die("who was to stop has ended", ECHILD);
	return status >> 8;
}

static void complain_of(const char *what, uint64_t value)
{
	if (!board->foreign++)
		printf("# %s: %#lx\n", what, value);
}

static unsigned int state_of(struct party party)
{
	return receiver_state(party.pid, party.tid);
}

/*
 * While one of the two is stopped, nobody has the receiver's context on loan;
 * and if it is the receiver, it has nobody else's.
 */
static void look_at_states(void)
{
	bool receiver = fates[board->fate].receiver;
	unsigned int state = state_of(board->receiver);

	if (state != RPAL_STATE_RUN && (receiver || state != RPAL_STATE_PARKED))
		complain_of("the receiver's state", state);
	state = receiver ? state_of(board->next) : RPAL_STATE_RUN;
	if (state >= RPAL_STATE_LENT)
		complain_of("the state of the next", state);
}

static void stop(const struct party *party)
{
	int why;

	kill(party->pid, SIGSTOP);
	why = status_of_stop(party->pid);
	if (why != SIGSTOP)
		complain_of("stopped by", why);
	look_at_states();
	kill(party->pid, SIGCONT);
}

static void trace(int request, pid_t pid, void *data)
{
	if (ptrace(request, pid, NULL, data) < 0)
		die("ptrace", errno);
}

/* The party that is being traced; 0: none. */
static pid_t traced;

static void go_on_with(uintptr_t signal)
{
	trace(PTRACE_CONT, traced, (void *)signal);
}

/* Who handles a fault of its own stops before that, too. */
static void let_it_handle_faults(void)
{
	int status;

	if (traced && waitpid(traced, &status, WNOHANG) == traced)
		go_on_with(WSTOPSIG(status));
}

static void interrupt(void)
{
	int why;

	trace(PTRACE_INTERRUPT, traced, NULL);
	while ((why = status_of_stop(traced)) == SIGSEGV)
		go_on_with(SIGSEGV);
	if (why != (SIGTRAP | PTRACE_EVENT_STOP << 8))
		complain_of("stopped by", why);
}

static void end_trace(void)
{
	interrupt();
	trace(PTRACE_DETACH, traced, NULL);
	traced = 0;
}

static void look(const struct party *party)
{
	uint64_t slot = RPAL_TID_SERVICE(party->tid);
	struct user_regs_struct regs;

	if (!traced) {
		traced = party->pid;
		trace(PTRACE_SEIZE, traced, NULL);
	}
	interrupt();
	trace(PTRACE_GETREGS, traced, &regs);
	if (regs.fs_base != party->fs_base)
		complain_of("fs", regs.fs_base);
	if (regs.rip >> RPAL_SLOT_SHIFT != slot)
		complain_of("rip", regs.rip);
	if (regs.rsp >> RPAL_SLOT_SHIFT != slot)
		complain_of("rsp", regs.rsp);
	look_at_states();
	go_on_with(0);
}

static void act(void)
{
	const struct fate *fate = &fates[board->fate];
	const struct board now = *board;
	const struct party *party = fate->receiver ? &now.receiver : &now.sender;

	if (traced && (!fate->trace || traced != party->pid))
		end_trace();
	if (fate->stop)
		stop(party);
	else if (fate->trace)
		look(party);
	board->times++;
}

/* Wakes up when the timer says so, and leaves no register as it was. */
static void third_process(const pid_t pids[2])
{
	struct pollfd fds[] = {
		{ .fd = timer_fd, .events = POLLIN },
		{ .fd = syscall(SYS_pidfd_open, pids[1], 0), .events = POLLIN },
		{ .events = POLLIN },
	};
	struct signalfd_siginfo stopped;
	struct vector_image image;
	uint64_t expiries;
	sigset_t children;

	sigemptyset(&children);
	sigaddset(&children, SIGCHLD);
	sigprocmask(SIG_BLOCK, &children, NULL);
	fds[2].fd = signalfd(-1, &children, SFD_CLOEXEC);
	vector_image_init(&image);
	use_image_control_words(&image);
	run_first(2);
	tell(ready[1], "r", 1);
	for (;;) {
		registers_over_nops(image.area, image.after, image.mask);
		if (poll(fds, 3, -1) < 0)
			die("poll", errno);
		if (fds[1].revents)
			break;
		if (fds[2].revents) {
			hear(fds[2].fd, &stopped, sizeof(stopped));
			let_it_handle_faults();
		}
		if (!fds[0].revents)
			continue;
		hear(timer_fd, &expiries, sizeof(expiries));
		act();
	}
	kill(listener, SIGKILL);
	waitpid(listener, NULL, 0);
}

struct sweep {
	const struct row *row;
	const struct rpal_target *target;
	struct coverage coverage;
};

static struct try try_third(const struct sweep *all, long d, unsigned int nops)
{
	struct try try = { .d = d, .nops = nops };
	long seen = board->times;

	try.armed = now_tsc();
	set_timerfd(timer_fd, d);
	call_behind_sled(&try, all->target, all->row->kind);
	while (board->times == seen)
		;
	return try;
}

static void attempt(void *context, long d, unsigned int nops)
{
	struct sweep *all = context;
	struct try try = try_third(all, d, nops);

	check_survived(&all->coverage, &try, all->target);
	if (board->foreign)
		complain(&all->coverage, &try, "who was stopped had something of another");
	board->foreign = 0;
}

static struct party receiver_of(const struct side *side)
{
	return (struct party){ side->other, side->target.tid, side->target.control->fs_base };
}

static void sweep_third(const struct row *row, const struct side *side)
{
	struct sweep all = { .row = row, .target = &side->target };
	struct rpal_counters before, after;
	struct try far = {};

	board->fate = row->fate;
	board->receiver = receiver_of(side);
	board->foreign = 0;
	for (int i = 0; i < TRIES; i++)
		take_least(&far, i, try_third(&all, 10000000, 0));
	all.coverage = coverage_of(&far);
	rpal_counters(&before);
	sweep_row(&all.coverage, row, &(struct attempts){ attempt, &all });
	rpal_counters(&after);
	check_row(&all.coverage, row, fates[row->fate].name);
	printf("# handed back %lu, retried %lu\n", after.handed_back - before.handed_back,
	       after.retries - before.retries);
	/* The receiver would wait for the sender's next turn otherwise. */
	if (row->fate == PREEMPT)
		ok((long)(after.handed_back - before.handed_back) > all.coverage.met / 2,
		   "who is preempted with a context on loan gives it back");
}

/* Woken for its signal, or with its context, it runs before the client does. */
static void server(struct side *side, int argc, char **argv)
{
	serve(SERVES, SIGNAL, sweep_handle);
}

static int client(struct side *side, int argc, char **argv)
{
	struct side sides[STYLES] = { [SERVES] = *side };
	int log = kernel_log_from_now();
	char byte;

	use_step(rows, sizeof(rows) / sizeof(rows[0]), argc - 4, argv + 4);
	/* Without the third process it would wait for ever. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	board = map_shared(atoi(argv[1]), sizeof(*board));
	timer_fd = atoi(argv[2]);
	sides[LISTENS] = become_peers(atoi(argv[3]));
	meet_receiver(&sides[LISTENS]);
	lead_on(&sides[SERVES], &sides[LISTENS]);
	board->sender = (struct party){ getpid(), rpal_tid(), current_fs_base() };
	board->next = receiver_of(&sides[LISTENS]);
	hear(atoi(argv[4]), &byte, 1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		sweep_third(&rows[i], &sides[rows[i].style]);
		ok(!ask_report(&sides[SERVES].target).wrong &&
		   !ask_report(&sides[LISTENS].target).wrong,
		   "the handlers have kept all their registers");
	}
	return end_of_sweep(log);
}

int main(int argc, char **argv)
{
	char numbers[4][16], *args[16] = { argv[0], numbers[0], numbers[1], numbers[2], numbers[3] };
	char style[16], fate[16], *served[] = { style, fate };
	int board_fd, sockets[2];

	run_from_memory(argv);
	run_own_server(argc, argv, sweep_handle);
	if (argc > 1 && strcmp(argv[1], "--step"))
		return two_services(argc, argv, server, client);

	/* The servers are children of who waits for them to stop. */
	board_fd = shared_memory(sizeof(*board));
	board = map_shared(board_fd, sizeof(*board));
	timer_fd = timerfd_create(CLOCK_MONOTONIC, 0);
	if (timer_fd < 0 || pipe(ready) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		die("third process", errno);
	snprintf(numbers[0], sizeof(numbers[0]), "%d", board_fd);
	snprintf(numbers[1], sizeof(numbers[1]), "%d", timer_fd);
	snprintf(numbers[2], sizeof(numbers[2]), "%d", sockets[1]);
	snprintf(numbers[3], sizeof(numbers[3]), "%d", ready[0]);
	snprintf(style, sizeof(style), "%d", LISTENS);
	snprintf(fate, sizeof(fate), "%d", SIGNAL);
	listener = start_service("--own-server", sockets[0], 2, served);
	meanwhile = third_process;
	for (int i = 1; i < argc && i < 8; i++)
		args[4 + i] = argv[i];
	return two_services(4 + argc, args, server, client);
}
