/* guest: cpus=4 timeout=300 */
// SPDX-License-Identifier: MIT
/*
 * Who is killed gives up its robust mutexes. If its context is on loan then,
 * its code runs on another CPU: it must have stopped before somebody else has
 * such a mutex.
 *
 * The guest has more CPUs to compute on than its host, as a rule: so the one
 * with that code is late to hear of the end now and then. Without the wait in
 * __rpal_leave_thread() that was seen once in a hundred kills.
 */
#include "loan_limit.h"
#include "pin.h"
#include "shared_memory.h"
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#define ROUNDS 300

/* Where what runs. The others compute. */
enum { CALLER, OTHERS, BUSY };

static struct shared {
	pthread_mutex_t lock;
	volatile uint64_t counter; /* of who has the mutex */
} *shared;

/* Until it is killed. */
static int handle(struct rpal_message *m)
{
	pthread_mutex_lock(&shared->lock);
	for (;;)
		shared->counter++;
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* Calls that the kernel had handed back before: their code ran on its own task. */
static unsigned long handed_back;

static void *call(void *side)
{
	struct rpal_message m = {};
	/* Who is preempted gives the context back. */
	const struct sched_param first = { .sched_priority = 1 };
	struct rpal_counters counters;
	intptr_t ret;

	pin(CALLER);
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		die("sched_setscheduler", errno);
	meet_receiver(side);
	ret = rpal_call(&((struct side *)side)->target, &m, -1);
	rpal_counters(&counters);
	handed_back += counters.handed_back;
	return (void *)ret;
}

static void new_mutex(void)
{
	pthread_mutexattr_t attributes;

	memset(shared, 0, sizeof(*shared));
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&shared->lock, &attributes);
}

static pid_t kill_soon(pid_t pid)
{
	pid_t killer = fork();

	if (!killer) {
		usleep(3000);
		kill(pid, SIGKILL);
		_exit(0);
	}
	return killer;
}

/* How far the dead owner came after the mutex had another one; or -1. */
static int64_t kill_owner(char *fd)
{
	struct side side;
	pid_t pid, killer;
	pthread_t caller;
	uint64_t before;
	int64_t after;
	void *status;

	new_mutex();
	side = start_peer("--mortal", 1, &fd, &pid);
	pthread_create(&caller, NULL, call, &side);
	while (!shared->counter)
		usleep(1000);
	killer = kill_soon(pid);
	after = pthread_mutex_lock(&shared->lock) == EOWNERDEAD ? 0 : -1;
	before = shared->counter;
	for (int i = 0; i < 2000; i++)
		asm volatile("pause");
	if (!after)
		after = shared->counter - before;
	pthread_join(caller, &status);
	if ((intptr_t)status != -EOWNERDEAD)
		after = -1;
	waitpid(pid, NULL, 0);
	waitpid(killer, NULL, 0);
	close(side.socket);
	return after;
}

static void compute_on(int cpu)
{
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(cpu);
	for (;;)
		;
}

static int client(struct side *side, int argc, char **argv)
{
	int fd = shared_memory(sizeof(*shared)), right = 0, late = 0;
	char number[16];

	shared = map_shared(fd, sizeof(*shared));
	snprintf(number, sizeof(number), "%d", fd);
	for (int cpu = BUSY; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++)
		compute_on(cpu);
	pin(OTHERS);
	for (int i = 0; i < ROUNDS; i++) {
		int64_t further = kill_owner(number);

		right += !further;
		late += further > 0;
	}
	ok(right == ROUNDS, "%d times the next owner was the only one, %d times it was not", right,
	   late);
	ok(handed_back < ROUNDS / 2, "most of the dead were on loan: %lu calls were handed back",
	   handed_back);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (argc > 3 && !strcmp(argv[1], "--mortal")) {
		shared = map_shared(atoi(argv[3]), sizeof(*shared));
		/* Touched: a page fault on loan is one more way to be late. */
		(void)shared->counter;
		pin(OTHERS);
	}
	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve_calls(handle);
	limit_loans(LONGEST_LOAN_LIMIT);
	return two_services(argc, argv, server, client);
}
