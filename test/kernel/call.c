/* guest: cpus=1,2 debug timeout=180 */
// SPDX-License-Identifier: MIT
/* A call reaches the receiver, its answer comes back, and nothing else moves. */
#include "two_services.h"
#include <fenv.h>

#define ADD	1
#define PID	2

static void server(struct side *side, int argc, char **argv)
{
	struct rpal_message m = { 0 };
	int ret = 0, answer = 0, status = 0;

	for (;;) {
		ret = rpal_serve_one(&m, answer, status);
		if (ret == -EINTR) {
			answer = 0;
			continue;
		}
		MUST(ret);
		answer = 1;
		status = 0;
		switch (m.word[0]) {
		case ADD:
			m.word[0] = m.word[1] + m.word[2];
			m.word[5] = ~m.word[5];
			break;
		case PID:
			m.word[0] = getpid();
			m.word[1] = gettid();
			m.word[2] = getuid();
			break;
		default:
			status = -ENOSYS;
		}
	}
}

/* Calls with known values in all callee-saved registers. */
static long call_with_registers(const struct rpal_target *target,
				struct rpal_message *m, uint64_t *after)
{
	long ret;

	asm volatile("push %%rbp\n\t"
		     "sub $8, %%rsp\n\t"
		     "push %[after]\n\t"
		     "mov $0x1111111111111111, %%rbx\n\t"
		     "mov $0x2222222222222222, %%rbp\n\t"
		     "mov $0x3333333333333333, %%r12\n\t"
		     "mov $0x4444444444444444, %%r13\n\t"
		     "mov $0x5555555555555555, %%r14\n\t"
		     "mov $0x6666666666666666, %%r15\n\t"
		     "sub $8, %%rsp\n\t"
		     "call rpal_call\n\t"
		     "add $8, %%rsp\n\t"
		     "pop %%rcx\n\t"
		     "mov %%rbx, 0(%%rcx)\n\t"
		     "mov %%rbp, 8(%%rcx)\n\t"
		     "mov %%r12, 16(%%rcx)\n\t"
		     "mov %%r13, 24(%%rcx)\n\t"
		     "mov %%r14, 32(%%rcx)\n\t"
		     "mov %%r15, 40(%%rcx)\n\t"
		     "add $8, %%rsp\n\t"
		     "pop %%rbp\n\t"
		     : "=a"(ret)
		     : "D"(target), "S"(m), "d"(-1), [after] "r"(after)
		     : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13",
		       "r14", "r15", "memory", "cc");
	return (int)ret;
}

static bool registers_kept(const uint64_t *r)
{
	for (int i = 0; i < 6; i++)
		if (r[i] != 0x1111111111111111ULL * (i + 1))
			return false;
	return true;
}

static int client(struct side *side, int argc, char **argv)
{
	long calls = argc > 1 ? atol(argv[1]) : 1000000, wrong = 0;
	struct rpal_counters counters;
	struct rpal_message m = { { ADD, 40, 2, 3, 4, 5 } };
	uint64_t after[6];
	uint16_t cw, cw_before;
	uint32_t mxcsr, mxcsr_before;
	int ret;

	ret = rpal_call(&side->target, &m, -1);
	ok(ret == 0 && m.word[0] == 42, "a call is answered (%d, %llu)", ret,
	   m.word[0]);
	ok(m.word[3] == 3 && m.word[4] == 4 && m.word[5] == ~5ULL,
	   "all words travel both ways");

	fesetround(FE_UPWARD);
	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw_before), "=m"(mxcsr_before));
	m = (struct rpal_message){ { ADD, 1, 2 } };
	ret = call_with_registers(&side->target, &m, after);
	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw), "=m"(mxcsr));
	ok(ret == 0 && m.word[0] == 3 && registers_kept(after),
	   "callee-saved registers are kept");
	ok(cw == cw_before && mxcsr == mxcsr_before,
	   "FPU control words are kept");
	fesetround(FE_TONEAREST);

	m = (struct rpal_message){ { PID } };
	fesetround(FE_DOWNWARD);
	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw_before), "=m"(mxcsr_before));
	ret = call_with_registers(&side->target, &m, after);
	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw), "=m"(mxcsr));
	ok(ret == 0 && (pid_t)m.word[0] == side->other &&
	   (pid_t)m.word[1] == side->other && m.word[2] == getuid(),
	   "the handler's system calls are the server's (pid %llu of %d)",
	   m.word[0], side->other);
	ok(registers_kept(after) && cw == cw_before && mxcsr == mxcsr_before,
	   "registers and control words are kept over a hand-back");
	fesetround(FE_TONEAREST);
	ok(getpid() != side->other, "the client is itself again");

	m = (struct rpal_message){ { 77 } };
	ok(rpal_call(&side->target, &m, -1) == -ENOSYS,
	   "the receiver's error arrives");

	for (long i = 0; i < calls; i++) {
		m = (struct rpal_message){ { ADD, i, i * 7, 0, i, i ^ 0x55 } };
		ret = rpal_call(&side->target, &m, -1);
		wrong += ret != 0 || m.word[0] != (uint64_t)i * 8 ||
			 m.word[4] != (uint64_t)i ||
			 m.word[5] != ~(uint64_t)(i ^ 0x55);
	}
	rpal_counters(&counters);
	ok(wrong == 0, "%ld verified calls, %ld wrong", calls, wrong);
	printf("# calls %lu handed back %lu retries %lu waits %lu\n",
	       counters.calls, counters.handed_back, counters.retries,
	       counters.waits);
	return tap_end();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
