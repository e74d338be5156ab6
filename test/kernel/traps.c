/* guest: cpus=1,2 isolation=mpk,none debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Exceptions of the processor in a handler. Its context is on loan then: the
 * task that meets the exception is the client's. The server gets the signal
 * that an ordinary process would get, at the same instruction, or dies of it,
 * and the client keeps its flags and control words.
 *
 * What would be the right signal is asked an ordinary process first: not every
 * machine raises each of these exceptions (QEMU 7.2 without KVM does not know
 * alignment checks, for example).
 */
#include "handed_back.h"
#include "raw_syscall.h"
#include "registers.h"
#include "trap_handler.h"
#include "two_services.h"
#include <time.h>

#define FLAG_TF 0x100
#define FLAG_DF 0x400
#define FLAG_AC 0x40000

enum {
	ALL_EXCEPTIONS = 0x3f, /* of x87, in both of its words */
	MASKED_MXCSR = 0x1f80,
	NON_CANONICAL = 62, /* the bit of such an address */
	ROUNDS = 50,
};

/* Changes flags by the stack, beyond the red zone. */
#define CHANGE_FLAGS(operation)               \
	"lea -128(%%rsp), %%rsp\n\t"          \
	"pushfq\n\t" operation ", (%%rsp)\n\t" \
	"popfq\n\t"
#define STACK_BACK "lea 128(%%rsp), %%rsp\n\t"

/* Below, each is of the length that its row says, so that it can be left out. */
__attribute__((noinline)) static void privileged(void)
{
	asm volatile("hlt");
}

__attribute__((noinline)) static void closed_gate(void)
{
	asm volatile("int $0x21");
}

__attribute__((noinline)) static void non_canonical(void)
{
	uint32_t value;

	asm volatile("mov (%%rax), %%eax" : "=a"(value) : "a"(1UL << NON_CANONICAL));
}

/* The same, by the segment of the stack. */
__attribute__((noinline)) static void non_canonical_stack(void)
{
	uint32_t value;

	asm volatile("mov %%rbp, %%rdx\n\t"
		     "mov %1, %%rbp\n\t"
		     "mov 0(%%rbp), %%eax\n\t"
		     "mov %%rdx, %%rbp"
		     : "=&a"(value)
		     : "r"(1UL << NON_CANONICAL)
		     : "rdx");
}

/* With UMIP the kernel emulates it, and then notices the bad address itself. */
__attribute__((noinline)) static void emulated(void)
{
	asm volatile("sgdt (%%rax)" : : "a"(8) : "memory");
}

__attribute__((noinline)) static void icebp(void)
{
	asm volatile(".byte 0xf1");
}

__attribute__((noinline)) static void step_oneself(void)
{
	asm volatile(CHANGE_FLAGS("orq $0x100") "nop\n\t"
						"nop\n\t" STACK_BACK
		     :
		     :
		     : "memory", "cc");
}

__attribute__((noinline)) static void overflow(void)
{
	asm volatile("int $4");
}

__attribute__((noinline)) static void divide_x87(void)
{
	uint16_t before, unmasked = 0x37f & ~4;

	asm volatile("fnstcw %0\n\t"
		     "fldcw %1\n\t"
		     "fldz\n\t"
		     "fld1\n\t"
		     "fdiv %%st(1), %%st\n\t"
		     "fwait\n\t"
		     "fninit\n\t"
		     "fldcw %0"
		     : "=m"(before)
		     : "m"(unmasked)
		     : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
}

__attribute__((noinline)) static void divide_sse(void)
{
	uint32_t before, unmasked = MASKED_MXCSR & ~0x200;
	float one = 1, zero = 0;

	asm volatile("stmxcsr %0\n\t"
		     "ldmxcsr %1\n\t"
		     "movss %2, %%xmm0\n\t"
		     "divss %3, %%xmm0\n\t"
		     "ldmxcsr %0"
		     : "=m"(before)
		     : "m"(unmasked), "m"(one), "m"(zero)
		     : "xmm0");
}

__attribute__((noinline)) static void misaligned(void)
{
	static uint32_t words[2];

	asm volatile(CHANGE_FLAGS("orq $0x40000") "mov 1(%0), %%eax\n\t" STACK_BACK
						  CHANGE_FLAGS("andq $~0x40000") STACK_BACK
		     :
		     : "r"(words)
		     : "rax", "memory", "cc");
}

static const struct trap {
	const char *name;
	void (*raise)(void);
	int signal;
	unsigned int length; /* of the instruction, if it would be met again */
} traps[] = {
	{ "hlt (#GP)", privileged, SIGSEGV, 1 },
	{ "int $0x21 (#GP)", closed_gate, SIGSEGV, 2 },
	{ "a non-canonical address (#GP)", non_canonical, SIGSEGV, 2 },
	{ "a non-canonical address of the stack (#SS)", non_canonical_stack, SIGBUS, 3 },
	{ "sgdt to an address that is not there (#GP or #PF)", emulated, SIGSEGV, 3 },
	{ "int1 (#DB)", icebp, SIGTRAP, 0 },
	{ "TF, set by popf (#DB)", step_oneself, SIGTRAP, 0 },
	{ "int $4 (#OF)", overflow, SIGSEGV, 0 },
	{ "a division of x87 (#MF)", divide_x87, SIGFPE, 0 },
	{ "a division of SSE (#XM)", divide_sse, SIGFPE, 0 },
	{ "a misaligned access (#AC)", misaligned, SIGBUS, 0 },
};

enum {
	TRAPS = sizeof(traps) / sizeof(traps[0]),
	/* What else a handler is asked for. */
	HANDLE_SIGNALS = TRAPS,
	ODD_FLAGS, /* over a system call; answers with the flags after it */
	KEEP_AC,   /* returns with AC, which it has set; answers with its flags before */
	KEEP_AC_HANDED_BACK,
	READ_CLOCK, /* by a vsyscall; answers with the seconds */
};

/* What came of a trap. */
struct outcome {
	int signal;
	int code;
	long offset; /* of the instruction pointer, from where the function begins */
};

static const struct trap *current_trap;
static volatile struct outcome caught;
static volatile bool caught_as_server;
static pid_t server_pid;

/* So that it is not met again. */
static void go_on_after(const struct trap *trap, mcontext_t *context)
{
	/* What does not know int1 takes it for an invalid opcode. */
	context->gregs[REG_RIP] += caught.signal == SIGILL ? 1 : trap->length;
	context->gregs[REG_EFL] &= ~(FLAG_TF | FLAG_AC);
	context->fpregs->cwd |= ALL_EXCEPTIONS;
	/* Nor is any pending. */
	context->fpregs->swd &= ~(ALL_EXCEPTIONS | 0x8080);
	context->fpregs->mxcsr = MASKED_MXCSR;
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	ucontext_t *where = context;

	/* Each is raised once. */
	if (caught.signal)
		_exit(97);
	caught.signal = signal;
	caught.code = info->si_code;
	caught.offset = where->uc_mcontext.gregs[REG_RIP] - (uintptr_t)current_trap->raise;
	caught_as_server = getpid() == server_pid && gettid() == server_pid;
	go_on_after(current_trap, &where->uc_mcontext);
}

static void spring(const struct trap *trap)
{
	caught = (struct outcome){ 0 };
	caught_as_server = false;
	current_trap = trap;
	trap->raise();
}

/* The flags after a system call that was made with AC and DF. */
static uint64_t flags_over_syscall(void)
{
	uint64_t flags;

	asm volatile(CHANGE_FLAGS("orq $0x40400") "mov $39, %%eax\n\t"
						  "syscall\n\t"
						  "pushfq\n\t"
						  "pop %0\n\t" STACK_BACK
						  CHANGE_FLAGS("andq $~0x40400") STACK_BACK
		     : "=&r"(flags)
		     :
		     : "rax", "rcx", "r11", "memory", "cc");
	return flags;
}

static uint64_t current_flags(void)
{
	uint64_t flags;

	asm volatile("lea -128(%%rsp), %%rsp\n\t"
		     "pushfq\n\t"
		     "pop %0\n\t" STACK_BACK
		     : "=r"(flags));
	return flags;
}

static void set_ac(void)
{
	asm volatile(CHANGE_FLAGS("orq $0x40000") STACK_BACK : : : "memory", "cc");
}

static void clear_ac(void)
{
	asm volatile(CHANGE_FLAGS("andq $~0x40000") STACK_BACK : : : "memory", "cc");
}

static int handle(struct rpal_message *m)
{
	uint64_t what = m->word[0];

	if (what == HANDLE_SIGNALS) {
		handle_traps(on_signal);
	} else if (what == ODD_FLAGS) {
		m->word[1] = flags_over_syscall();
	} else if (what == READ_CLOCK) {
		m->word[1] = vsyscall_time();
	} else if (what == KEEP_AC || what == KEEP_AC_HANDED_BACK) {
		m->word[1] = current_flags();
		if (what == KEEP_AC_HANDED_BACK)
			getppid();
		set_ac();
	} else {
		spring(&traps[what]);
		m->word[1] = caught.signal;
		m->word[2] = caught.code;
		m->word[3] = caught.offset;
		m->word[4] = caught_as_server;
	}
	return 0;
}

static void serve(void)
{
	server_pid = getpid();
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	serve();
}

/* A call; *kept: the client has its registers, flags and control words. */
static int ask(const struct side *side, struct rpal_message *m, uint64_t what, bool *kept)
{
	uint64_t flags;
	int ret;

	*m = (struct rpal_message){ { what } };
	ret = call_keeping_registers(&side->target, m, -1, kept);
	flags = current_flags();
	*kept &= !(flags & (FLAG_TF | FLAG_DF | FLAG_AC));
	return ret;
}

static void test_handled(const struct side *side, const struct trap *trap,
			 const struct outcome *expected)
{
	uint64_t before = handed_back();
	long wrong = 0, lost = 0;

	for (int i = 0; i < ROUNDS; i++) {
		struct rpal_message m;
		bool kept;
		int ret = ask(side, &m, trap - traps, &kept);
		bool right = !ret && (int)m.word[1] == expected->signal &&
			     (int)m.word[2] == expected->code &&
			     (long)m.word[3] == expected->offset && m.word[4];

		if (!right && !wrong++)
			printf("# %d: signal %d, code %d, at %ld, as server %d\n", ret,
			       (int)m.word[1], (int)m.word[2], (long)m.word[3], (int)m.word[4]);
		lost += !kept;
	}
	ok(!wrong, "%s is handled by the server: signal %d, code %d, at %ld (%ld wrong)",
	   trap->name, expected->signal, expected->code, expected->offset, wrong);
	ok(!lost, "and the client keeps its registers, flags and control words");
	ok(handed_back() == before + ROUNDS, "and every call was handed back");
}

/* A server of its own, without handlers. */
static void test_death(const struct trap *trap, const struct outcome *expected)
{
	struct rpal_message m;
	struct side mortal;
	int ret, status;
	bool kept;
	pid_t pid;

	mortal = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&mortal);
	ret = ask(&mortal, &m, trap - traps, &kept);
	/* It lives on. */
	if (ret != -EOWNERDEAD)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok(ret == -EOWNERDEAD && kept, "%s without a handler: the client gets %s", trap->name,
	   strerror(-ret));
	ok(WIFSIGNALED(status) && WTERMSIG(status) == expected->signal,
	   "and the server died of it (status %x)", status);
	close(mortal.socket);
}

static void test_flags(const struct side *side)
{
	struct rpal_message m;
	bool kept;
	int ret = ask(side, &m, ODD_FLAGS, &kept);

	ok(!ret && (m.word[1] & (FLAG_AC | FLAG_DF)) == (FLAG_AC | FLAG_DF),
	   "AC and DF of a handler are kept over a system call (%#llx)", m.word[1]);
	ok(kept, "and the client does not get them");
}

/*
 * A call with or without AC that sets it, and the flags after that. Repeated if
 * it was handed back, as it is when the client is preempted.
 */
static int call_on_loan(const struct side *side, struct rpal_message *m, bool ac, uint64_t *after)
{
	uint64_t before;
	int ret;

	do {
		*m = (struct rpal_message){ { KEEP_AC } };
		before = handed_back();
		if (ac)
			set_ac();
		ret = rpal_call(&side->target, m, -1);
		*after = current_flags();
		clear_ac();
	} while (handed_back() != before);
	return ret;
}

/*
 * Flags are not preserved by a call in user mode, no more than by a call of a
 * function: the caller gets the handler's, and the handler the caller's. Each
 * has its own when the kernel has handed the context back.
 */
static void test_ac(const struct side *side)
{
	struct rpal_message m;
	uint64_t after;
	bool kept;
	int ret;

	ret = call_on_loan(side, &m, true, &after);
	ok(!ret && m.word[1] & FLAG_AC && after & FLAG_AC,
	   "AC of the caller is there in a handler (%#llx)", m.word[1]);
	ret = call_on_loan(side, &m, false, &after);
	ok(!ret && after & FLAG_AC, "AC of a handler is there in the caller (%#lx)", after);
	ret = ask(side, &m, KEEP_AC_HANDED_BACK, &kept);
	ok(!ret && kept, "but not if the call was handed back");
	/* The handler's context has it until it is called again. */
	ret = ask(side, &m, ODD_FLAGS, &kept);
	ok(!ret && kept, "and it is gone with the next call");
}

/* What is repeated in the server's own task, not what was reported before. */
static void test_after_overflow(const struct side *side)
{
	struct rpal_message m;
	time_t start = time(NULL);
	bool kept;

	for (int i = 0; i < TRAPS; i++)
		if (traps[i].raise == overflow)
			ask(side, &m, i, &kept);
	ok(!ask(side, &m, READ_CLOCK, &kept) && (time_t)m.word[1] >= start,
	   "int $4 is over when a handler makes a vsyscall");
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_message m;
	bool kept;

	test_flags(side);
	MUST(ask(side, &m, HANDLE_SIGNALS, &kept));
	for (int i = 0; i < TRAPS; i++) {
		struct outcome expected;

		if (sscanf(argv[1 + i], "%d,%d,%ld", &expected.signal, &expected.code,
			   &expected.offset) != 3)
			die("what an ordinary process gets", EINVAL);
		if (expected.signal != traps[i].signal) {
			ok(true, "%s # SKIP not what this machine raises (signal %d)",
			   traps[i].name, expected.signal);
			/* Without exceptions, AC can be looked at. */
			if (traps[i].raise == misaligned)
				test_ac(side);
			continue;
		}
		test_handled(side, &traps[i], &expected);
		test_death(&traps[i], &expected);
	}
	test_after_overflow(side);
	return done();
}

/* What an ordinary process gets. */
static char *probe(const struct trap *trap)
{
	char *text;

	spring(trap);
	if (asprintf(&text, "%d,%d,%ld", caught.signal, caught.code, caught.offset) < 0)
		bail_out("asprintf");
	return text;
}

static int start(int argc, char **argv)
{
	char *args[1 + TRAPS] = { argv[0] };

	handle_traps(on_signal);
	for (int i = 0; i < TRAPS; i++)
		args[1 + i] = probe(&traps[i]);
	return two_services(1 + TRAPS, args, server, client);
}

int main(int argc, char **argv)
{
	struct side side;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve();
	/* Of a service: two_services() started it. */
	if (argc > 1)
		return two_services(argc, argv, server, client);
	return start(argc, argv);
}
