/* guest: cpus=1,2 isolation=mpk,none debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * FS base is any program's to set. The kernel looks at it to tell whose context
 * a registered thread has, but a thread that has nobody's on loan keeps what it
 * sets over all that can happen meanwhile: memory of its own, 0, or a low value.
 *
 * libc has no thread pointer meanwhile: nothing of it is used.
 */
#include "now.h"
#include "raw_syscall.h"
#include "two_services.h"
#include <asm/prctl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/time.h>

enum {
	ADD,	/* words 1 and 2 */
	CHANGE, /* FS base, handed back before: answers what went wrong */
};

enum wrong {
	AT_ONCE = 1,
	IN_SYSCALL = 2,
	IN_FAULT = 4,
	IN_SIGNAL = 8,
	IN_LOOP = 16,
	IN_HANDLER = 32,
	NOT_HANDLED = 64,
	BY_ARCH_PRCTL = 128,
};

enum {
	LOOP_MS = 30, /* some ticks, and longer than a loan may last */
	ALARM_MS = 10,
};

static inline uint64_t read_fs(void)
{
	uint64_t base;

	asm volatile("rdfsbase %0" : "=r"(base));
	return base;
}

static inline void write_fs(uint64_t base)
{
	asm volatile("wrfsbase %0" : : "r"(base) : "memory");
}

/* Of the one thread that is tried; its signal handler does not use libc either. */
static uint64_t wanted;
static volatile int handled;
static volatile int wrong_in_handler;
static pid_t own_pid, own_tid;
static uint64_t loop_tsc;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	ucontext_t *where = context;

	handled |= 1 << signal;
	if (read_fs() != wanted || raw(SYS_gettid, 0, 0, 0, 0) != own_tid || read_fs() != wanted)
		wrong_in_handler |= IN_HANDLER;
	/* Both faulting instructions have two bytes. */
	if (signal == SIGILL || signal == SIGSEGV)
		where->uc_mcontext.gregs[REG_RIP] += 2;
}

static void handle_signals(void)
{
	const int signals[] = { SIGILL, SIGSEGV, SIGUSR1, SIGALRM };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	for (int i = 0; i < 4; i++)
		sigaction(signals[i], &action, NULL);
}

static int unless_kept(int wrong)
{
	return read_fs() == wanted ? 0 : wrong;
}

static int make_system_calls(void)
{
	int wrong = 0;
	uint64_t base;

	for (int i = 0; i < 10; i++)
		if (raw(SYS_getpid, 0, 0, 0, 0) != own_pid || raw(SYS_sched_yield, 0, 0, 0, 0))
			wrong |= IN_SYSCALL;
	if (raw(SYS_arch_prctl, ARCH_GET_FS, (uintptr_t)&base, 0, 0) || base != wanted)
		wrong |= IN_SYSCALL;
	return wrong | unless_kept(IN_SYSCALL);
}

static int run_into_faults(void)
{
	uint64_t value;

	asm volatile("ud2");
	asm volatile("mov (%%rax), %%eax" : "=a"(value) : "a"(8));
	return unless_kept(IN_FAULT);
}

/* Ticks, and a signal that comes from outside: late, if the host is busy. */
static int stay_in_user_mode(void)
{
	uint64_t start = __builtin_ia32_rdtsc(), passed;
	int wrong = 0;

	do {
		wrong |= unless_kept(IN_LOOP);
		passed = __builtin_ia32_rdtsc() - start;
	} while (passed < loop_tsc || (!(handled & 1 << SIGALRM) && passed < 100 * loop_tsc));
	return wrong;
}

static void set_fs(uint64_t base, bool by_arch_prctl)
{
	if (by_arch_prctl)
		raw(SYS_arch_prctl, ARCH_SET_FS, base, 0, 0);
	else
		write_fs(base);
}

/* No libc from the first set_fs() to the second. */
__attribute__((noinline)) static int live_with(uint64_t base, bool by_arch_prctl)
{
	const int all = 1 << SIGILL | 1 << SIGSEGV | 1 << SIGUSR1 | 1 << SIGALRM;
	const struct itimerval soon = { .it_value = { 0, ALARM_MS * 1000 } };
	uint64_t before = read_fs();
	int wrong;

	handled = 0;
	wrong_in_handler = 0;
	wanted = base;
	set_fs(base, by_arch_prctl);
	wrong = unless_kept(AT_ONCE);
	wrong |= make_system_calls();
	wrong |= run_into_faults();
	raw(SYS_tgkill, own_pid, own_tid, SIGUSR1, 0);
	wrong |= unless_kept(IN_SIGNAL);
	raw(SYS_setitimer, ITIMER_REAL, (uintptr_t)&soon, 0, 0);
	wrong |= stay_in_user_mode();
	set_fs(before, by_arch_prctl);
	if (handled != all)
		wrong |= NOT_HANDLED;
	return wrong | wrong_in_handler | (by_arch_prctl && wrong ? BY_ARCH_PRCTL : 0);
}

static void measure_loop(void)
{
	uint64_t start = __builtin_ia32_rdtsc(), until = now_ns() + LOOP_MS * 1000000UL;

	while (now_ns() < until)
		;
	loop_tsc = __builtin_ia32_rdtsc() - start;
}

/* The calling thread, with all kinds of bases. */
static int try_all(void)
{
	static uint64_t memory[64];
	const uint64_t bases[] = { (uintptr_t)memory, 0, 0x1000 };
	int wrong = 0;

	own_pid = getpid();
	own_tid = gettid();
	for (int i = 0; i < 3; i++)
		for (int by_arch_prctl = 0; by_arch_prctl < 2; by_arch_prctl++)
			wrong |= live_with(bases[i], by_arch_prctl);
	return wrong;
}

static int handle(struct rpal_message *m)
{
	if (m->word[0] == CHANGE) {
		getppid();
		m->word[0] = try_all();
	} else {
		m->word[0] = m->word[1] + m->word[2];
	}
	return 0;
}

static void prepare(void)
{
	handle_signals();
	measure_loop();
}

static void server(struct side *side, int argc, char **argv)
{
	prepare();
	serve_calls(handle);
}

static long wrong_calls(const struct side *side)
{
	long wrong = 0;

	for (int i = 0; i < 1000; i++) {
		struct rpal_message m = { { ADD, i, 7 } };

		wrong += rpal_call(&side->target, &m, -1) || m.word[0] != i + 7ULL;
	}
	return wrong;
}

static void mask_alarms(int how)
{
	sigset_t alarms;

	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	pthread_sigmask(how, &alarms, NULL);
}

static void *in_thread(void *wrong)
{
	mask_alarms(SIG_UNBLOCK);
	*(int *)wrong = try_all();
	return NULL;
}

/* A thread of a service that is not registered. The first one is, and sleeps. */
static int try_thread(void)
{
	pthread_t thread;
	int wrong = -1;

	/* They are the other thread's. */
	mask_alarms(SIG_BLOCK);
	pthread_create(&thread, NULL, in_thread, &wrong);
	pthread_join(thread, NULL);
	mask_alarms(SIG_UNBLOCK);
	return wrong;
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_message m = { { CHANGE } };
	int ret;

	prepare();
	is(wrong_calls(side), 0, "calls are right");
	is(try_all(), 0, "a sender keeps its FS base");
	is(wrong_calls(side), 0, "and calls are right when it has its own again");
	ret = rpal_call(&side->target, &m, -1);
	ok(!ret && !m.word[0], "a receiver that was handed back keeps its FS base (%d, %#llx)", ret,
	   m.word[0]);
	is(wrong_calls(side), 0, "and calls are right");
	is(try_thread(), 0, "a thread that is not registered keeps its FS base");
	is(wrong_calls(side), 0, "and calls are right");
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
