/* guest: cpus=1,2 isolation=mpk,none debug timeout=180 */
// SPDX-License-Identifier: MIT
/* Whatever a handler does, it does as the server; the client only waits. */
#include "trap_handler.h"
#include "two_services.h"
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

enum {
	ECHO,	    /* no kernel entry */
	INT80,	    /* a system call through the 32-bit gate */
	PAGE_FAULT, /* first touch of a page: no hand-back needed */
	SPIN,	    /* word[1] ms, longer than a loan may last */
	SEGV,
	BAD_OP,
	DIVIDE,
	BREAK,	     /* with and without a signal handler */
	HANDLE,	     /* install a handler for the four */
	VECTORS,     /* registers over a system call */
	READ_SENDER, /* word[1]: an address of the sender's */
	EXIT,
};

static volatile sig_atomic_t caught;
static volatile bool caught_as_server;
static pid_t server_pid;

static void on_signal(int signal, siginfo_t *info, void *context)
{
	ucontext_t *where = context;

	caught = signal;
	caught_as_server = getpid() == server_pid && gettid() == server_pid;
	/* All of the faulting instructions below are two bytes long. */
	if (signal != SIGTRAP)
		where->uc_mcontext.gregs[REG_RIP] += 2;
}

static uint64_t spin(uint64_t ms)
{
	struct timespec start, now;
	uint64_t passed;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
		passed = (now.tv_sec - start.tv_sec) * 1000 +
			 (now.tv_nsec - start.tv_nsec) / 1000000;
	} while (passed < ms);
	return passed;
}

/* xmm0, 7, 15 and general registers across getpid. 0: all are kept. */
static uint64_t vectors_over_syscall(void)
{
	uint64_t wrong;

	asm volatile("mov $0x1234567812345678, %%rax\n\t"
		     "movq %%rax, %%xmm0\n\t"
		     "not %%rax\n\t"
		     "movq %%rax, %%xmm7\n\t"
		     "movq %%rax, %%xmm15\n\t"
		     "mov $0x77, %%r8\n\t"
		     "mov $0x78, %%rsi\n\t"
		     "mov $0x79, %%rbx\n\t"
		     "mov $39, %%eax\n\t"
		     "syscall\n\t"
		     "mov $0x1234567812345678, %%rax\n\t"
		     "movq %%xmm0, %%rcx\n\t"
		     "xor %%rax, %%rcx\n\t"
		     "mov %%rcx, %%rdx\n\t"
		     "not %%rax\n\t"
		     "movq %%xmm7, %%rcx\n\t"
		     "xor %%rax, %%rcx\n\t"
		     "or %%rcx, %%rdx\n\t"
		     "movq %%xmm15, %%rcx\n\t"
		     "xor %%rax, %%rcx\n\t"
		     "or %%rcx, %%rdx\n\t"
		     "xor $0x77, %%r8\n\t"
		     "or %%r8, %%rdx\n\t"
		     "xor $0x78, %%rsi\n\t"
		     "or %%rsi, %%rdx\n\t"
		     "xor $0x79, %%rbx\n\t"
		     "or %%rbx, %%rdx\n\t"
		     : "=d"(wrong)
		     :
		     : "rax", "rbx", "rcx", "rsi", "r8", "r11", "xmm0", "xmm7", "xmm15", "memory",
		       "cc");
	return wrong;
}

/* The server's, with its client. */
static struct side *us;

static int handle(struct rpal_message *m)
{
	uint64_t value = 0;
	char *page;

	caught = 0;
	switch (m->word[0]) {
	case INT80:
		asm volatile("int $0x80"
			     : "=a"(value)
			     : "a"(20)
			     : "memory", "r8", "r9", "r10", "r11");
		m->word[1] = value;
		return 0;
	case PAGE_FAULT:
		page = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
		m->word[1] = page != MAP_FAILED && page[12345] == 0;
		return 0;
	case SPIN:
		m->word[1] = spin(m->word[1]);
		m->word[2] = getpid();
		return 0;
	case HANDLE:
		handle_traps(on_signal);
		return 0;
	case SEGV:
		asm volatile("mov (%%rax), %%eax" : "=a"(value) : "a"(8));
		break;
	case BAD_OP:
		asm volatile("ud2");
		break;
	case DIVIDE:
		asm volatile("div %%ecx" : "=a"(value) : "a"(1), "d"(0), "c"(0));
		break;
	case BREAK:
		asm volatile("int3");
		break;
	case VECTORS:
		m->word[1] = vectors_over_syscall();
		return 0;
	case READ_SENDER:
		m->word[1] = rpal_read_peer(us->peer.id, us->peer.pkey, &m->word[2],
					    (void *)m->word[1], 8);
		return 0;
	case EXIT:
		_exit(3);
	}
	m->word[1] = caught;
	m->word[2] = caught_as_server;
	return 0;
}

static void serve(struct side *side)
{
	us = side;
	server_pid = getpid();
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(side);
}

static int ask(struct side *side, struct rpal_message *m, uint64_t what, uint64_t argument)
{
	*m = (struct rpal_message){ { what, argument } };
	return rpal_call(&side->target, m, -1);
}

static void test_signals_handled(struct side *side)
{
	static const struct {
		uint64_t what;
		int signal;
		const char *name;
	} all[] = {
		{ SEGV, SIGSEGV, "#PF" },
		{ BAD_OP, SIGILL, "#UD" },
		{ DIVIDE, SIGFPE, "#DE" },
		{ BREAK, SIGTRAP, "#BP" },
	};
	struct rpal_message m;

	ask(side, &m, HANDLE, 0);
	for (int i = 0; i < 4; i++) {
		int ret = ask(side, &m, all[i].what, 0);

		ok(ret == 0 && m.word[1] == (uint64_t)all[i].signal && m.word[2],
		   "%s in the handler is handled by the server (%d, signal %llu)", all[i].name, ret,
		   m.word[1]);
	}
}

#define ANSWER 0xa115e2ed

/*
 * A server of its own, which dies of it. It has answered through the kernel
 * before that: the kernel uses the memory of an answer again.
 */
static void test_death(struct side *side, uint64_t what, int signal, const char *name)
{
	struct rpal_message m, earlier = { { INT80, 0, 0, 0, 0, ANSWER } };
	struct side mortal;
	int ret, status;
	pid_t pid;

	mortal = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&mortal);
	for (int i = 0; i < 2; i++)
		MUST(rpal_call(&mortal.target, &earlier, -1));
	ask(&mortal, &m, ECHO, 1);
	ret = ask(&mortal, &m, what, 0);
	waitpid(pid, &status, 0);
	ok(ret == -EOWNERDEAD, "%s in the handler: the client gets %s", name, strerror(-ret));
	ok(m.word[5] != ANSWER, "and nothing of an earlier answer");
	ok(signal ? WIFSIGNALED(status) && WTERMSIG(status) == signal
		  : WIFEXITED(status) && WEXITSTATUS(status) == 3,
	   "and the server died of it (status %x)", status);
	ok(ask(&mortal, &m, ECHO, 1) == -EOWNERDEAD, "so do later calls");
	ok(ask(side, &m, ECHO, 5) == 0, "other servers can be called");
	close(mortal.socket);
}

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
	alarms++;
}

static void test_signals_to_sender(struct side *side)
{
	struct itimerval often = { { 0, 700 }, { 0, 700 } }, never = { 0 };
	struct rpal_message m;
	long wrong = 0;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &often, NULL);
	for (long i = 0; i < 200000; i++) {
		int ret = ask(side, &m, ECHO, i);

		wrong += ret != 0 || m.word[0] != ECHO;
	}
	for (int i = 0; i < 20; i++) {
		int ret = ask(side, &m, SPIN, 3);

		wrong += ret != 0 || m.word[2] != (uint64_t)side->other;
	}
	setitimer(ITIMER_REAL, &never, NULL);
	ok(!wrong && alarms > 10, "under %d signals to the sender, %ld wrong", (int)alarms, wrong);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_counters before, after;
	uint64_t secret = 0x5ec7e7;
	struct rpal_message m;
	int ret;

	ret = ask(side, &m, INT80, 0);
	ok(ret == 0 && m.word[1] == (uint64_t)side->other,
	   "int 0x80 is the server's (getpid %llu of %d)", m.word[1], side->other);
	rpal_counters(&before);
	ret = ask(side, &m, PAGE_FAULT, 0);
	ok(ret == 0 && m.word[1] == 1, "a page fault in the handler");

	for (int i = 0; i < 2000 && !ret; i++)
		ret = ask(side, &m, VECTORS, 0) ?: m.word[1] ? -EIO : 0;
	ok(ret == 0, "2000 hand-backs keep vector and general registers");

	rpal_counters(&before);
	ret = ask(side, &m, SPIN, 60);
	rpal_counters(&after);
	ok(ret == 0 && m.word[2] == (uint64_t)side->other &&
		   after.handed_back == before.handed_back + 1,
	   "a handler of 60 ms ends in a hand-back");

	ret = ask(side, &m, READ_SENDER, (uintptr_t)&secret);
	ok(ret == 0 && m.word[1] == 0 && m.word[2] == secret,
	   "the handler reads the sender's memory");
	ret = ask(side, &m, READ_SENDER,
		  0x1000 + ((uint64_t)rpal_service()->id << RPAL_SLOT_SHIFT));
	ok(ret == 0 && (int)m.word[1] == -EFAULT,
	   "reading what the sender has not is EFAULT (%d, %d)", ret, (int)m.word[1]);

	test_signals_to_sender(side);
	test_signals_handled(side);
	test_death(side, SEGV, SIGSEGV, "#PF");
	test_death(side, BAD_OP, SIGILL, "#UD");
	test_death(side, DIVIDE, SIGFPE, "#DE");
	test_death(side, BREAK, SIGTRAP, "#BP");
	test_death(side, EXIT, 0, "exit");
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve(&side);
	return two_services(argc, argv, server, client);
}
