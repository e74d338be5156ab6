/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * A debugger on either side. Whenever it stops a thread, it sees that thread's
 * own context, never the other's that was on loan; what it writes there counts;
 * and calls go on as if it was not there.
 */
#include "receiver_state.h"
#include "loan_limit.h"
#include <elf.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

enum {
	ADD,   /* words 1 and 2 */
	SLOW,  /* the same, with a system call */
	STUCK, /* until somebody writes rbx, which is the answer */
	TOUCH, /* writes to a variable, without a system call; how often it has */
	WHERE, /* addresses of that loop and its end, of touch() and its variable */
};

extern const char stuck_loop[], stuck_end[];

__attribute__((noinline, noclone)) static uint64_t stuck(void)
{
	uint64_t value = 0;

	asm volatile("stuck_loop:\n\t"
		     "test %0, %0\n\t"
		     "jz stuck_loop\n\t"
		     "stuck_end:"
		     : "+b"(value));
	return value;
}

static volatile uint64_t touched;

__attribute__((noinline, noclone)) static uint64_t touch(void)
{
	return ++touched;
}

static int handle(struct rpal_message *m)
{
	switch (m->word[0]) {
	case SLOW:
		getppid();
		/* fallthrough */
	case ADD:
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	case STUCK:
		m->word[0] = stuck();
		return 0;
	case TOUCH:
		m->word[0] = touch();
		return 0;
	case WHERE:
		*m = (struct rpal_message){ { (uintptr_t)stuck_loop, (uintptr_t)stuck_end,
					      (uintptr_t)touch, (uintptr_t)&touched } };
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* What the tracer, a process of its own, and the client share. */
static struct board {
	volatile bool ready, stop;
	volatile bool late; /* the loan had ended before the tracer came */
	volatile long stops;	/* of the traced thread */
	volatile long foreign;	/* with another one's context */
	volatile long unpaired; /* ends of system calls without a beginning, or the reverse */
	volatile long calls;	/* of the client, since the tracer began */
} *board;

/* A thread that can be traced. */
struct target {
	pid_t tid;
	uint32_t service;
	uint64_t fs_base;
};

static long trace(int request, pid_t tid, unsigned long address, void *data)
{
	long ret = ptrace(request, tid, address, data);

	if (ret < 0)
		die("ptrace", errno);
	return ret;
}

/* Waits for the thread to stop; what for. */
static int stopped(const struct target *target, struct user_regs_struct *regs)
{
	int status;

	if (waitpid(target->tid, &status, __WALL) != target->tid || !WIFSTOPPED(status)) {
		printf("# the traced thread ended, status %#x\n", status);
		fflush(stdout);
		_exit(1);
	}
	trace(PTRACE_GETREGS, target->tid, 0, regs);
	board->stops++;
	if (regs->rip >> RPAL_SLOT_SHIFT != target->service ||
	    regs->rsp >> RPAL_SLOT_SHIFT != target->service ||
	    regs->fs_base != target->fs_base) {
		if (!board->foreign++)
			printf("# at %#llx, sp %#llx, fs %#llx\n", regs->rip, regs->rsp,
			       regs->fs_base);
		fflush(stdout);
	}
	return status >> 8;
}

static void a_while(void)
{
	usleep(random() % 1000);
}

static void seize(const struct target *target, struct user_regs_struct *regs)
{
	trace(PTRACE_SEIZE, target->tid, 0, (void *)PTRACE_O_TRACESYSGOOD);
	trace(PTRACE_INTERRUPT, target->tid, 0, NULL);
	stopped(target, regs);
}

static void attach_and_detach(const struct target *target)
{
	struct user_regs_struct regs;

	for (int i = 0; i < 50; i++) {
		a_while();
		trace(PTRACE_ATTACH, target->tid, 0, NULL);
		stopped(target, &regs);
		trace(PTRACE_DETACH, target->tid, 0, NULL);
	}
}

/* Reads all registers and writes them back. */
static void interrupt(const struct target *target)
{
	static char state[16384];
	struct user_regs_struct regs;

	seize(target, &regs);
	for (int i = 0; i < 100; i++) {
		struct iovec all = { state, sizeof(state) };

		trace(PTRACE_GETREGSET, target->tid, NT_X86_XSTATE, &all);
		trace(PTRACE_SETREGSET, target->tid, NT_X86_XSTATE, &all);
		trace(PTRACE_SETREGS, target->tid, 0, &regs);
		trace(PTRACE_CONT, target->tid, 0, NULL);
		a_while();
		trace(PTRACE_INTERRUPT, target->tid, 0, NULL);
		stopped(target, &regs);
	}
	trace(PTRACE_DETACH, target->tid, 0, NULL);
}

static void system_calls(const struct target *target)
{
	struct user_regs_struct regs;
	bool inside = false, known = false;

	seize(target, &regs);
	for (int i = 0; i < 400; i++) {
		struct __ptrace_syscall_info info;

		trace(PTRACE_SYSCALL, target->tid, 0, NULL);
		if (stopped(target, &regs) != (SIGTRAP | 0x80))
			continue;
		trace(PTRACE_GET_SYSCALL_INFO, target->tid, sizeof(info), &info);
		if (known && inside == (info.op == PTRACE_SYSCALL_INFO_ENTRY))
			board->unpaired++;
		inside = info.op == PTRACE_SYSCALL_INFO_ENTRY;
		known = true;
	}
	trace(PTRACE_DETACH, target->tid, 0, NULL);
}

/* Over whole calls. */
static void single_steps(const struct target *target)
{
	struct user_regs_struct regs;
	long before;

	seize(target, &regs);
	before = board->calls;
	while (board->stops < 2000 || board->calls < before + 4) {
		trace(PTRACE_SINGLESTEP, target->tid, 0, NULL);
		stopped(target, &regs);
		if (board->stops > 20000) {
			printf("# stuck at %#llx\n", regs.rip);
			_exit(1);
		}
	}
	trace(PTRACE_DETACH, target->tid, 0, NULL);
}

static long load(struct side *side, int calls)
{
	long wrong = 0;

	for (int i = 0; i < calls; i++) {
		struct rpal_message m = { { i % 8 ? ADD : SLOW, i, 7 } };
		int ret = rpal_call(&side->target, &m, -1);

		if ((ret || m.word[0] != i + 7ULL) && !wrong++)
			printf("# call %d: %d, %llu\n", i, ret, m.word[0]);
		board->calls++;
	}
	return wrong;
}

/* In a process of its own. */
static pid_t start_tracer(void (*script)(const struct target *), const struct target *target)
{
	pid_t pid;

	*board = (struct board){ 0 };
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork", errno);
	if (!pid) {
		srandom(1);
		script(target);
		board->stop = true;
		_exit(0);
	}
	return pid;
}

/* 0: it ended well. It is not waited for if calls were wrong. */
static int tracer_status(pid_t pid, bool wrong)
{
	int status;

	if (wrong)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	board->stop = true;
	return status;
}

static const struct {
	const char *name;
	void (*run)(const struct target *target);
} scripts[] = {
	{ "attach, detach", attach_and_detach },
	{ "interrupt, read and write all registers", interrupt },
	{ "system calls", system_calls },
	{ "single steps", single_steps },
};

static void test_under_load(struct side *side, const struct target *target, const char *who)
{
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		pid_t pid = start_tracer(scripts[i].run, target);
		long wrong = 0;
		int status;

		do {
			wrong += load(side, 16);
		} while (!board->stop && !wrong);
		status = tracer_status(pid, wrong);
		ok(!status && !wrong && !board->foreign && !board->unpaired,
		   "%s: %s (%ld stops, %ld foreign, %ld unpaired; %ld calls, %ld wrong)", who,
		   scripts[i].name, board->stops, board->foreign, board->unpaired, board->calls, wrong);
	}
	is(load(side, 2000), 0, "and then calls are right");
}

/* In the tracer of test_stuck(). */
static struct target client_target, server_target;
static uint64_t loop_start, loop_end, touch_start, variable;
static uint32_t receiver_tid;
static uint64_t client_status;

#define ANSWER 0x5e7

static void free_server(const struct target *target)
{
	struct user_regs_struct regs;

	board->late = !wait_until_called(server_target.tid, receiver_tid);
	/* The client first, if it is to be told something. */
	if (client_status) {
		seize(&client_target, &regs);
		if (regs.rax == (uint64_t)-EINPROGRESS) {
			regs.rax = client_status;
			trace(PTRACE_SETREGS, client_target.tid, 0, &regs);
		} else {
			board->late = true;
		}
		trace(PTRACE_DETACH, client_target.tid, 0, NULL);
	}
	seize(&server_target, &regs);
	/* On its way there. */
	while (regs.rip < loop_start || regs.rip >= loop_end) {
		trace(PTRACE_CONT, server_target.tid, 0, NULL);
		a_while();
		trace(PTRACE_INTERRUPT, server_target.tid, 0, NULL);
		stopped(&server_target, &regs);
	}
	regs.rbx = ANSWER;
	trace(PTRACE_SETREGS, server_target.tid, 0, &regs);
	trace(PTRACE_DETACH, server_target.tid, 0, NULL);
}

/* A handler that only a debugger can end. */
static int call_stuck(struct side *side, uint64_t status, uint64_t *answer)
{
	struct rpal_message m = { { STUCK } };
	pid_t pid;
	int ret;

	client_status = status;
	pid = start_tracer(free_server, &server_target);
	ret = rpal_call(&side->target, &m, -1);
	*answer = m.word[0];
	if (tracer_status(pid, false))
		ok(false, "the tracer ended well");
	return ret;
}

static void test_stuck(struct side *side)
{
	struct rpal_message m = { { WHERE } };
	int ret, on_loan = 0;
	uint64_t answer;

	MUST(rpal_call(&side->target, &m, -1));
	loop_start = m.word[0];
	loop_end = m.word[1];
	touch_start = m.word[2];
	variable = m.word[3];
	receiver_tid = side->target.tid;

	/* A loan should not end for another reason, and then does so seldom. */
	limit_loans(LONGEST_LOAN_LIMIT);
	for (int i = 0; i < 20; i++) {
		ret = call_stuck(side, 0, &answer);
		if (ret || answer != ANSWER || board->foreign)
			break;
		on_loan += !board->late;
	}
	ok(!ret && answer == ANSWER && !board->foreign && (on_loan || !loans_can_be_met()),
	   "a register of the server's is written while its context is on loan (%d, %#lx, %d)", ret,
	   answer, on_loan);
	if (loans_can_be_met()) {
		for (int i = 0; i < 20; i++) {
			ret = call_stuck(side, -EHOSTDOWN, &answer);
			if (!board->late)
				break;
		}
		ok(ret == -EHOSTDOWN && !board->foreign,
		   "and one of the client's while it has that context (%d)", ret);
	}
	limit_loans(DEFAULT_LOAN_LIMIT);
	is(load(side, 2000), 0, "and then calls are right");
}

#define TOUCHES 20

/* Of the client's debugger, on memory of the server's. */
static void watch(const struct target *target)
{
	struct user_regs_struct regs;

	seize(target, &regs);
	trace(PTRACE_POKEUSER, target->tid, offsetof(struct user, u_debugreg[0]),
	      (void *)variable);
	/* Enabled for writes of eight bytes. */
	trace(PTRACE_POKEUSER, target->tid, offsetof(struct user, u_debugreg[7]),
	      (void *)(1UL | 1 << 16 | 2 << 18));
	board->stops = 0;
	for (int i = 0; i < TOUCHES; i++) {
		siginfo_t info;

		trace(PTRACE_CONT, target->tid, 0, NULL);
		board->ready = true;
		stopped(target, &regs);
		trace(PTRACE_GETSIGINFO, target->tid, 0, &info);
		if (info.si_signo != SIGTRAP || info.si_code != TRAP_HWBKPT)
			board->foreign++;
	}
	trace(PTRACE_POKEUSER, target->tid, offsetof(struct user, u_debugreg[7]), NULL);
	trace(PTRACE_DETACH, target->tid, 0, NULL);
}

/* Of the server's debugger, in what it executes on loan. */
static void breakpoint(const struct target *target)
{
	struct user_regs_struct regs;
	long text;

	seize(target, &regs);
	errno = 0;
	text = trace(PTRACE_PEEKTEXT, target->tid, touch_start, NULL);
	board->stops = 0;
	for (int i = 0; i < TOUCHES; i++) {
		trace(PTRACE_POKETEXT, target->tid, touch_start, (void *)((text & ~0xffL) | 0xcc));
		trace(PTRACE_CONT, target->tid, 0, NULL);
		board->ready = true;
		if (stopped(target, &regs) != SIGTRAP || regs.rip != touch_start + 1)
			board->foreign++;
		regs.rip = touch_start;
		trace(PTRACE_SETREGS, target->tid, 0, &regs);
		trace(PTRACE_POKETEXT, target->tid, touch_start, (void *)text);
		trace(PTRACE_SINGLESTEP, target->tid, 0, NULL);
		if (stopped(target, &regs) != SIGTRAP || regs.rip == touch_start)
			board->foreign++;
	}
	trace(PTRACE_DETACH, target->tid, 0, NULL);
}

static void test_touch(struct side *side, void (*script)(const struct target *),
		       const struct target *target, long stops, const char *name)
{
	pid_t pid = start_tracer(script, target);
	static uint64_t touches;
	long wrong = 0;
	int status;

	while (!board->ready && !board->stop)
		sched_yield();
	for (int i = 0; i < TOUCHES; i++) {
		struct rpal_message m = { { TOUCH } };

		wrong += rpal_call(&side->target, &m, -1) || m.word[0] != ++touches;
	}
	status = tracer_status(pid, wrong);
	ok(!status && !wrong && board->stops == stops && !board->foreign,
	   "%s (%ld stops, %ld foreign, %ld wrong calls)", name, board->stops, board->foreign,
	   wrong);
	is(load(side, 2000), 0, "and then calls are right");
}

static int client(struct side *side, int argc, char **argv)
{
	const struct rpal_control *server_control = side->target.control;

	board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		die("mmap", errno);
	client_target = (struct target){ getpid(), rpal_service()->id, own_control()->fs_base };
	server_target = (struct target){ side->other, side->peer.id, server_control->fs_base };

	test_stuck(side);
	test_touch(side, watch, &client_target, TOUCHES,
		   "a watchpoint of the client's debugger on the server's memory");
	test_touch(side, breakpoint, &server_target, 2 * TOUCHES,
		   "a breakpoint of the server's debugger in a handler on loan");
	test_under_load(side, &client_target, "client");
	test_under_load(side, &server_target, "server");
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
