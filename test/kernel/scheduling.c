/* guest: cpus=2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A server that is handed a call runs next, on its client's CPU. But RPAL pins
 * nobody: affinities, cpusets and CPUs that come and go are obeyed by both
 * sides, whatever the other side's are.
 */
#include "cgroup.h"
#include "handed_back.h"
#include "loan_limit.h"
#include "receiver_state.h"
#include "two_services.h"
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

enum {
	ADD,	  /* words 1 and 2 */
	WHERE,	  /* the CPU of the server's own task */
	AFFINITY, /* of the server's own task */
	REACH,	  /* does not end, in user mode, until it runs on CPU word 1 */
};

static uint64_t affinity(void)
{
	cpu_set_t set;
	uint64_t mask = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		die("sched_getaffinity", errno);
	for (int i = 0; i < 64; i++)
		mask |= (uint64_t)CPU_ISSET(i, &set) << i;
	return mask;
}

static int set_affinity(pid_t pid, uint64_t mask)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = 0; i < 64; i++)
		if (mask >> i & 1)
			CPU_SET(i, &set);
	return sched_setaffinity(pid, sizeof(set), &set);
}

/* By RDPID or a segment limit: no system call. */
static unsigned int current_cpu(void)
{
	unsigned int limit;

	/* vdso: (node << 12 | cpu) is the limit of that segment. */
	asm volatile("lsl %1, %0" : "=r"(limit) : "r"(0x7b));
	return limit & 0xfff;
}

static int handle(struct rpal_message *m)
{
	unsigned int cpu;

	switch (m->word[0]) {
	case ADD:
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	case WHERE:
		/* The first one makes it the server's own task. */
		m->word[1] = syscall(SYS_getpid);
		syscall(SYS_getcpu, &cpu, NULL, NULL);
		m->word[0] = cpu;
		return 0;
	case AFFINITY:
		m->word[0] = affinity();
		return 0;
	case REACH:
		while (current_cpu() != m->word[1])
			;
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static uint64_t ask(struct side *side, uint64_t what, uint64_t argument)
{
	struct rpal_message m = { { what, argument } };

	MUST(rpal_call(&side->target, &m, -1));
	return m.word[0];
}

/* Calls on loan and handed back; how many were wrong. */
static long load(struct side *side, int calls)
{
	long wrong = 0;

	for (int i = 0; i < calls; i++) {
		struct rpal_message m = { { i % 8 ? ADD : WHERE, i, 7 } };
		int ret = rpal_call(&side->target, &m, -1);

		wrong += ret || (i % 8 ? m.word[0] != i + 7ULL :
					 m.word[1] != (uint64_t)side->other);
	}
	return wrong;
}

static void test_next(struct side *side)
{
	int here = 0;

	for (int i = 0; i < 200; i++) {
		MUST(set_affinity(0, 1 << i % 2));
		here += ask(side, WHERE, 0) == i % 2U;
	}
	MUST(set_affinity(0, 3));
	/* A CPU that has nothing to do takes it away now and then. */
	ok(here > 150, "a server that is handed a call runs on its client's CPU (%d of 200)", here);
}

static void test_affinity(struct side *side)
{
	for (unsigned int cpu = 0; cpu < 2; cpu++) {
		int there = 0;

		MUST(set_affinity(0, 1 << cpu));
		MUST(set_affinity(side->other, 2 >> cpu));
		for (int i = 0; i < 100; i++)
			there += ask(side, WHERE, 0) == !cpu;
		ok(there == 100, "the server stays where it must be (%d of 100)", there);
		is(load(side, 2000), 0, "calls are right");
		is(affinity(), 1 << cpu, "the client's affinity is kept");
		is(ask(side, AFFINITY, 0), 2 >> cpu, "and the server's");
	}
	MUST(set_affinity(0, 3));
	MUST(set_affinity(side->other, 3));
}

/* Something that is done again and again while calls are made. */
struct disturbance {
	struct side *side;
	pid_t client;
	volatile bool stop;
	int times;
};

static long load_during(struct side *side, void *(*disturb)(void *), int calls, int *times)
{
	struct disturbance disturbance = { .side = side, .client = gettid() };
	pthread_t thread;
	long wrong = 0;

	if (pthread_create(&thread, NULL, disturb, &disturbance))
		die("pthread_create", errno);
	do {
		wrong += load(side, calls);
	} while (disturbance.times < *times);
	disturbance.stop = true;
	pthread_join(thread, NULL);
	*times = disturbance.times;
	return wrong;
}

static void *move_both(void *arg)
{
	struct disturbance *us = arg;

	for (unsigned int i = 0; !us->stop; i++) {
		MUST(set_affinity(us->client, 1 + i % 3));
		MUST(set_affinity(us->side->other, 1 + i / 3 % 3));
		us->times++;
		usleep(2000);
	}
	MUST(set_affinity(us->client, 3));
	MUST(set_affinity(us->side->other, 3));
	return NULL;
}

static void *move_on_loan(void *arg)
{
	struct disturbance *us = arg;

	wait_until_called(us->side->other, us->side->target.tid);
	MUST(set_affinity(us->client, 2));
	/* Handed back, it does not get there by itself. */
	while (!us->stop)
		if (receiver_state(us->side->other, us->side->target.tid) != RPAL_STATE_ACTIVE)
			MUST(set_affinity(us->side->other, 2));
	return NULL;
}

/* How often the call was handed back. */
static long move_with_loan(struct side *side)
{
	struct disturbance disturbance = { .side = side, .client = gettid() };
	struct rpal_message m = { { REACH, 1 } };
	uint64_t before = handed_back();
	pthread_t thread;

	wait_until_parked(side->other, side->target.tid);
	MUST(set_affinity(0, 1));
	MUST(set_affinity(side->other, 1));
	if (pthread_create(&thread, NULL, move_on_loan, &disturbance))
		die("pthread_create", errno);
	MUST(rpal_call(&side->target, &m, -1));
	disturbance.stop = true;
	pthread_join(thread, NULL);
	MUST(set_affinity(0, 3));
	MUST(set_affinity(side->other, 3));
	return handed_back() - before;
}

static void test_move(struct side *side)
{
	int times = 100;
	long wrong;

	wrong = load_during(side, move_both, 200, &times);
	ok(!wrong, "both are moved %d times under load, %ld wrong", times, wrong);

	limit_loans(LONGEST_LOAN_LIMIT);
	is(move_with_loan(side), 1, "who has to leave its CPU gives a context on loan back");
	limit_loans(DEFAULT_LOAN_LIMIT);
}

static struct cgroup groups[2];

static void *exchange_cpusets(void *arg)
{
	struct disturbance *us = arg;

	while (!us->stop) {
		int cpu = us->times++ % 2;

		set(cgroup_file(&groups[0], "cpuset.cpus"), "%d", cpu);
		set(cgroup_file(&groups[1], "cpuset.cpus"), "%d", !cpu);
		usleep(2000);
	}
	return NULL;
}

static void test_cpusets(struct side *side)
{
	int times = 20, there = 0;
	long wrong;

	groups[0] = new_cgroup("client");
	groups[1] = new_cgroup("server");
	set(cgroup_file(&groups[0], "cpuset.cpus"), "0");
	set(cgroup_file(&groups[1], "cpuset.cpus"), "1");
	join_cgroup(&groups[0], getpid());
	join_cgroup(&groups[1], side->other);
	for (int i = 0; i < 100; i++)
		there += ask(side, WHERE, 0) == 1;
	ok(there == 100, "the server stays in its cpuset (%d of 100)", there);
	is(load(side, 2000), 0, "calls are right");
	ok(affinity() == 1 && ask(side, AFFINITY, 0) == 2, "each has its CPU");

	wrong = load_during(side, exchange_cpusets, 200, &times);
	ok(!wrong, "the cpusets are exchanged %d times under load, %ld wrong", times, wrong);
	leave_cgroup(getpid());
	leave_cgroup(side->other);
	end_cgroup(&groups[0]);
	end_cgroup(&groups[1]);
	ok(affinity() == 3 && ask(side, AFFINITY, 0) == 3, "and then they have both again");
}

#define CPU1 "/sys/devices/system/cpu/cpu1/online"

static void *plug(void *arg)
{
	struct disturbance *us = arg;

	while (!us->stop) {
		set(CPU1, "0");
		usleep(2000);
		set(CPU1, "1");
		us->times++;
		usleep(2000);
	}
	return NULL;
}

static void *unplug_on_loan(void *arg)
{
	struct disturbance *us = arg;

	wait_until_called(us->side->other, us->side->target.tid);
	set(CPU1, "0");
	return NULL;
}

/* The only CPU that the client may use goes while it has a context on loan. */
static void test_hotplug_on_loan(struct side *side)
{
	struct disturbance disturbance = { .side = side };
	struct rpal_counters before, after;
	struct rpal_message m = { { REACH, 0 } };
	pthread_t thread;
	int ret;

	limit_loans(LONGEST_LOAN_LIMIT);
	wait_until_parked(side->other, side->target.tid);
	if (pthread_create(&thread, NULL, unplug_on_loan, &disturbance))
		die("pthread_create", errno);
	MUST(set_affinity(0, 2));
	MUST(set_affinity(side->other, 2));
	rpal_counters(&before);
	ret = rpal_call(&side->target, &m, -1);
	rpal_counters(&after);
	pthread_join(thread, NULL);
	is(ret, 0, "a handler on loan goes on when its CPU goes");
	printf("# handed back %llu\n",
	       (unsigned long long)(after.handed_back - before.handed_back));
	is(load(side, 200), 0, "and so do both");
	set(CPU1, "1");
	MUST(set_affinity(0, 3));
	MUST(set_affinity(side->other, 3));
	limit_loans(DEFAULT_LOAN_LIMIT);
}

static void test_hotplug(struct side *side)
{
	int times = 5;
	long wrong;

	wrong = load_during(side, plug, 200, &times);
	ok(!wrong, "a CPU goes and comes %d times under load, %ld wrong", times, wrong);

	MUST(set_affinity(side->other, 2));
	times = 3;
	wrong = load_during(side, plug, 200, &times);
	ok(!wrong, "it is the only one the server may use, %d times, %ld wrong", times, wrong);
	MUST(set_affinity(side->other, 3));
	MUST(set_affinity(0, 2));
	set(CPU1, "0");
	is(load(side, 200), 0, "the only one the client may use is gone");
	set(CPU1, "1");
	MUST(set_affinity(0, 3));
	ok(affinity() == 3 && ask(side, AFFINITY, 0) == 3, "both have all CPUs in the end");
}

static int client(struct side *side, int argc, char **argv)
{
	test_next(side);
	test_affinity(side);
	test_move(side);
	test_cpusets(side);
	test_hotplug(side);
	test_hotplug_on_loan(side);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
