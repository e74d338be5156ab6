/* guest: cpus=1,2 isolation=mpk,none debug timeout=180 */
// SPDX-License-Identifier: MIT
/*
 * Restartable sequences. The kernel keeps the rseq area of a task right, but the
 * context of a registered thread runs on other tasks, too. So it has no area
 * and cannot get one, and code that would use it, as an allocator with caches
 * for each CPU does, falls back and stays correct.
 */
#include "two_services.h"
#include <fcntl.h>
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#define SIGNATURE 0x53053053
#define CPUS	  64

enum {
	CALLS = 100000,
	ADDS = 16,	   /* of a call */
	PREEMPTIONS = 100, /* of the client, at least */
};

static struct rseq *libc_area(void)
{
	return (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static bool is_kept(const struct rseq *area)
{
	return *(volatile uint32_t *)&area->cpu_id < CPUS;
}

static long rseq(struct rseq *area, int flags)
{
	return result(syscall(SYS_rseq, area, sizeof(*area), flags, SIGNATURE));
}

/* libc gives one to the first thread, and to those that a thread with one starts. */
static bool first_had_one;

static void take_area(void)
{
	if (!is_kept(libc_area()))
		MUST(rseq(libc_area(), 0));
}

/*
 * Counters for each CPU, as an allocator has its caches, and one for threads
 * that do not know theirs. Who knows it uses no lock, and no atomic instruction.
 */
static struct {
	uint64_t count;
} __attribute__((aligned(64))) on_cpu[CPUS];

static uint64_t elsewhere;

/*
 * False: not done, somebody else ran on the CPU or it is another now. It takes
 * its time, so that it is often interrupted.
 */
static bool add_on_cpu(struct rseq *area, uint32_t cpu)
{
	asm goto(".pushsection rseq_sequences, \"aw\"\n\t"
		 ".balign 32\n\t"
		 "1:\n\t"
		 ".long 0, 0\n\t"
		 ".quad 2f, 3f - 2f, 4f\n\t"
		 ".popsection\n\t"
		 "leaq 1b(%%rip), %%rax\n\t"
		 "movq %%rax, %[sequence]\n\t"
		 "2:\n\t"
		 "cmpl %[cpu], %[current]\n\t"
		 "jne %l[undone]\n\t"
		 "movq %[count], %%rax\n\t"
		 "movl $20, %%ecx\n\t"
		 "5:\n\t"
		 "decl %%ecx\n\t"
		 "jnz 5b\n\t"
		 "incq %%rax\n\t"
		 "movq %%rax, %[count]\n\t"
		 "3:\n\t"
		 ".pushsection rseq_aborts, \"ax\"\n\t"
		 ".byte 0x0f, 0xb9, 0x3d\n\t"
		 ".long %c[signature]\n\t"
		 "4:\n\t"
		 "jmp %l[undone]\n\t"
		 ".popsection\n\t"
		 :
		 : [sequence] "m"(area->rseq_cs), [current] "m"(area->cpu_id), [cpu] "r"(cpu),
		   [count] "m"(on_cpu[cpu].count), [signature] "i"(SIGNATURE)
		 : "rax", "rcx", "cc", "memory"
		 : undone);
	return true;
undone:
	return false;
}

struct tally {
	uint64_t on_cpu, elsewhere, undone;
};

static void add(struct tally *tally)
{
	struct rseq *area = libc_area();

	for (;;) {
		uint32_t cpu = *(volatile uint32_t *)&area->cpu_id;

		if (cpu >= CPUS) {
			__atomic_fetch_add(&elsewhere, 1, __ATOMIC_RELAXED);
			tally->elsewhere++;
			return;
		}
		if (add_on_cpu(area, cpu)) {
			tally->on_cpu++;
			return;
		}
		tally->undone++;
	}
}

/* The server's other threads: as many as there are CPUs, always at it. */
struct worker {
	pthread_t thread;
	struct tally tally;
};

static struct worker workers[CPUS];
static int nr_workers;
static volatile bool stop;

static void *work(void *arg)
{
	struct worker *worker = arg;

	take_area();
	while (!stop)
		add(&worker->tally);
	return NULL;
}

static void start_workers(void)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	nr_workers = sysconf(_SC_NPROCESSORS_ONLN);
	for (int i = 0; i < nr_workers; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("pthread_create", errno);
}

static struct tally end_workers(void)
{
	struct tally sum = {};

	stop = true;
	for (int i = 0; i < nr_workers; i++) {
		pthread_join(workers[i].thread, NULL);
		sum.on_cpu += workers[i].tally.on_cpu;
		sum.elsewhere += workers[i].tally.elsewhere;
		sum.undone += workers[i].tally.undone;
	}
	return sum;
}

/* What a call asks the server for. */
enum {
	AREA,  /* the cpu_id in its libc's area */
	CPU,   /* the CPU that libc says it runs on */
	START, /* the workers */
	ADD,
	OWN,	/* the receiver's tally */
	OTHERS, /* end the workers; their tally, and what the counters say */
};

static int handle(struct rpal_message *m)
{
	static struct tally own;
	struct tally others;

	switch (m->word[0]) {
	case AREA:
		m->word[0] = libc_area()->cpu_id;
		return 0;
	case CPU:
		m->word[0] = sched_getcpu();
		return 0;
	case START:
		start_workers();
		return 0;
	case ADD:
		for (int i = 0; i < ADDS; i++)
			add(&own);
		return 0;
	case OWN:
		*m = (struct rpal_message){ { own.on_cpu, own.elsewhere, own.undone } };
		return 0;
	case OTHERS:
		others = end_workers();
		*m = (struct rpal_message){
			{ others.on_cpu, others.elsewhere, others.undone, 0, elsewhere }
		};
		for (int i = 0; i < CPUS; i++)
			m->word[3] += on_cpu[i].count;
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static struct rpal_message ask(struct side *side, uint64_t what)
{
	struct rpal_message m = { { what } };

	MUST(rpal_call(&side->target, &m, -1));
	return m;
}

/* RPAL_IOC_REGISTER by hand: librpal would take the area away first. */
static long register_bare(uint32_t roles)
{
	int fd = open("/dev/rpal", O_RDWR | O_CLOEXEC);
	struct rpal_register request = { .roles = roles };
	long ret = result(ioctl(fd, RPAL_IOC_REGISTER, &request));

	close(fd);
	return ret;
}

/* A thread that is not attached yet, and has an area. */
static void *test_thread(void *arg)
{
	static struct rseq own;
	struct rseq *area = libc_area();
	int status;
	pid_t pid;

	take_area();
	ok(is_kept(area), "a thread has an rseq area (CPU %d)", (int)area->cpu_id);
	is(register_bare(RPAL_ROLE_SENDER), -EBUSY, "the kernel registers no sender with one");
	is(register_bare(RPAL_ROLE_RECEIVER), -EBUSY, "and no receiver");
	is(rseq(area, 0), -EBUSY, "it has its area still");

	is(rpal_attach(RPAL_ROLE_SENDER), 0, "librpal takes it away");
	is((int)area->cpu_id, RSEQ_CPU_ID_UNINITIALIZED, "which the area says");
	is(rseq(&own, 0), -EBUSY, "a sender gets none");
	is(rseq(area, 0), -EBUSY, "not the old one either");
	is(rseq(area, RSEQ_FLAG_UNREGISTER), -EINVAL, "and has none to give back");
	is(rpal_attach(RPAL_ROLE_RECEIVER), 0, "it becomes a receiver as well");
	is(rseq(&own, 0), -EBUSY, "and gets none");
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(rseq(&own, 0) || !is_kept(&own));
	waitpid(pid, &status, 0);
	is(status, 0, "its child is nothing of that, and can have one");

	is(rpal_detach(), 0, "who gives the roles back");
	is(rseq(&own, 0), 0, "can have one again");
	sched_yield();
	ok(is_kept(&own), "which the kernel keeps (CPU %d)", (int)own.cpu_id);
	is(rpal_attach(RPAL_ROLE_SENDER), -EBUSY,
	   "librpal does not know that one, and so the thread is not attached");
	is(rseq(&own, RSEQ_FLAG_UNREGISTER), 0, "it is given back");
	is(rpal_attach(RPAL_ROLE_SENDER), 0, "then it is");
	return NULL;
}

static void test_libc(struct side *side)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), right = 0;
	cpu_set_t before, one;

	is((int)ask(side, AREA).word[0], RSEQ_CPU_ID_UNINITIALIZED, "a receiver has no area");
	sched_getaffinity(0, sizeof(before), &before);
	for (int cpu = 0; cpu < cpus; cpu++) {
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one))
			die("sched_setaffinity", errno);
		right += (int)ask(side, CPU).word[0] == cpu;
	}
	sched_setaffinity(0, sizeof(before), &before);
	is(right, cpus, "libc knows which CPU it is on, on loan");
}

static long preemptions(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

/* The caches: the receiver's ways on loan, while others of its process use theirs. */
static void test_caches(struct side *side)
{
	struct rpal_counters before, after;
	struct rpal_message own, others;
	long calls = 0, preempted;

	ask(side, START);
	rpal_counters(&before);
	preempted = -preemptions();
	while (calls < CALLS || preempted + preemptions() < PREEMPTIONS) {
		ask(side, ADD);
		/* Where it ran last is not where it runs next. */
		if (++calls % 512 == 0)
			sched_yield();
	}
	preempted += preemptions();
	rpal_counters(&after);
	own = ask(side, OWN);
	others = ask(side, OTHERS);

	ok(after.handed_back - before.handed_back < (uint64_t)calls / 100,
	   "%ld calls on loan, preempted %ld times, %llu handed back", calls, preempted,
	   (unsigned long long)(after.handed_back - before.handed_back));
	ok(!own.word[0] && own.word[1] == (uint64_t)calls * ADDS,
	   "the receiver fell back (%llu of %ld)", own.word[1], calls * ADDS);
	ok(others.word[0] && !others.word[1] && others.word[2],
	   "the other threads did not (%llu, %llu of which once more)", others.word[0],
	   others.word[2]);
	is(others.word[3], others.word[0], "the counters of the CPUs are right");
	is(others.word[4], calls * ADDS, "and so is the other one");
}

static int client(struct side *side, int argc, char **argv)
{
	pthread_t thread;

	ok(first_had_one, "libc has given the first thread an rseq area");
	is((int)libc_area()->cpu_id, RSEQ_CPU_ID_UNINITIALIZED, "that is attached and has none");
	if (pthread_create(&thread, NULL, test_thread, NULL))
		die("pthread_create", errno);
	pthread_join(thread, NULL);
	test_libc(side);
	test_caches(side);
	return done();
}

int main(int argc, char **argv)
{
	first_had_one = is_kept(libc_area());
	return two_services(argc, argv, server, client);
}
