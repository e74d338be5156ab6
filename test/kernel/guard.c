/* guest: cpus=1,2 isolation=mpk,none debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * rpal_with_peer: a function that uses a peer's memory in place, and what
 * becomes of it when that memory has gone.
 */
#include "handed_back.h"
#include "loan_limit.h"
#include "two_services.h"
#include "registers.h"
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/time.h>

#define WORDS 512 /* a page */

enum {
	MEMORY, /* answers: a page with the numbers from 0 on */
	UNMAP,	/* it */
	SUM,	/* of the client's page at word[1], by rpal_with_peer(): result, sum */
};

struct job {
	uint64_t *page;
	uint64_t sum;
	unsigned int depth;
	struct rpal_peer peer;
	uint64_t *other;
	long copied;
};

static long sum_up(void *argument)
{
	struct job *job = argument;
	uint64_t sum = 0;

	for (int i = 0; i < WORDS; i++)
		sum += ((volatile uint64_t *)job->page)[i];
	job->sum = sum;
	return 42;
}

static uint64_t *page;

static uint64_t *make_page(void)
{
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < WORDS; i++)
		page[i] = i;
	return page;
}

static struct rpal_peer client_peer;

static int handle(struct rpal_message *m)
{
	struct job job = { .page = (void *)(uintptr_t)m->word[1] };

	switch (m->word[0]) {
	case MEMORY:
		m->word[0] = (uintptr_t)make_page();
		break;
	case UNMAP:
		munmap(page, 4096);
		break;
	case SUM:
		m->word[0] = rpal_with_peer(client_peer.id, client_peer.pkey, sum_up, &job);
		m->word[1] = job.sum;
		break;
	}
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	client_peer = side->peer;
	serve_calls(handle);
}

static struct rpal_message told;

static uint64_t ask(struct side *side, uint64_t what, uint64_t argument)
{
	told = (struct rpal_message){ { what, argument } };
	MUST(rpal_call(&side->target, &told, 20000));
	return told.word[0];
}

#define SUM_OF_PAGE (WORDS * (WORDS - 1) / 2)

static long with(struct side *side, long (*function)(void *), struct job *job)
{
	return rpal_with_peer(side->peer.id, side->peer.pkey, function, job);
}

/* Whether one may touch it now, as it is. */
static sigjmp_buf after_fault;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	siglongjmp(after_fault, info->si_code);
}

static bool can_touch(volatile uint64_t *address)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	bool could = false;

	sigaction(SIGSEGV, &action, NULL);
	if (!sigsetjmp(after_fault, 1)) {
		(void)*address;
		could = true;
	}
	signal(SIGSEGV, SIG_DFL);
	return could;
}

static void test_use(struct side *side, struct job *job)
{
	is(with(side, sum_up, job), 42, "a function gives its result");
	is(job->sum, SUM_OF_PAGE, "and has read the peer's memory");
	is(can_touch(job->page), !rpal_service()->pkey,
	   "afterwards the peer's key is closed");
	is(rpal_with_peer(0, 0, sum_up, job), -EINVAL, "service 0");
	is(rpal_with_peer(rpal_service()->id, 0, sum_up, job), -EINVAL, "itself");
	is(rpal_with_peer(255, 0, sum_up, job), -EINVAL, "no service id");
}

/* Deep, and with registers that a caller keeps in use. */
static long __attribute__((noinline)) dig(struct job *job, uint64_t a, uint64_t b, uint64_t c,
					  uint64_t d, uint64_t e, unsigned int depth)
{
	volatile char room[200];
	long ret;

	memset((void *)room, depth, sizeof(room));
	if (depth) {
		ret = dig(job, b, c, d, e, a + 1, depth - 1);
		return ret + a + b + c + d + e + room[depth % 200];
	}
	fesetround(FE_UPWARD);
	return *(volatile uint64_t *)job->page;
}

static long dig_deep(void *argument)
{
	struct job *job = argument;

	return dig(job, 1, 2, 3, 4, 5, job->depth);
}

static long copy_inside(void *argument)
{
	struct job *job = argument;
	uint64_t copy[WORDS];
	int ret = rpal_read_peer(job->peer.id, job->peer.pkey, copy, job->other, sizeof(copy));

	/* The copy's failure is the copy's alone, and this is guarded still. */
	job->copied = ret;
	return sum_up(job);
}

static long function_inside(void *argument)
{
	struct job *job = argument;

	job->copied = rpal_with_peer(job->peer.id, job->peer.pkey, copy_inside, job);
	return sum_up(job);
}

static void test_gone(struct side *side, struct job *job)
{
	uint64_t kept[8];
	long wrong = 0;
	int round;

	job->peer = side->peer;
	job->other = job->page;
	is(with(side, copy_inside, job), 42, "a copy inside of a function");
	is(job->copied, 0, "is made");
	job->other = job->page + (1UL << 30) / 8;
	is(with(side, copy_inside, job), 42, "one of memory that is not there");
	is(job->copied, -EFAULT, "is not");
	is(with(side, function_inside, job), 42, "a function inside of a function");
	is(job->copied, 42, "gives its result");
	job->other = job->page;
	ask(side, UNMAP, 0);
	job->sum = 0;
	is(with(side, sum_up, job), -EFAULT, "the memory is gone");
	is(job->sum, 0, "the function was ended");
	is(with(side, copy_inside, job), -EFAULT, "also after a copy that has failed");
	is(with(side, function_inside, job), -EFAULT, "and after a function that was ended");
	is(job->copied, -EFAULT, "which was ended");

	round = fegetround();
	for (int i = 0; i < 8; i++)
		kept[i] = i * 0x123456789;
	for (unsigned int depth = 0; depth < 300; depth++) {
		volatile uint64_t canary[4] = { depth, ~depth, 1, 2 };

		job->depth = depth;
		wrong += with(side, dig_deep, job) != -EFAULT || fegetround() != round;
		wrong += canary[0] != depth || canary[3] != 2;
	}
	for (int i = 0; i < 8; i++)
		wrong += kept[i] != i * 0x123456789UL;
	is(wrong, 0, "300 times out of calls ever deeper, with the caller's registers");
	job->page = (void *)ask(side, MEMORY, 0);
	is(with(side, sum_up, job), 42, "memory that is there again");
}

/* By the server, on loan or not. */
static void test_on_loan(struct side *side)
{
	uint64_t *own = make_page(), address = (uintptr_t)own;
	uint64_t before;
	long wrong = 0;

	limit_loans(LONGEST_LOAN_LIMIT);
	do {
		before = handed_back();
		wrong += ask(side, SUM, address) != 42 || told.word[1] != SUM_OF_PAGE;
	} while (handed_back() != before);
	is(wrong, 0, "the peer uses our memory while it is on loan, without the kernel");
	limit_loans(DEFAULT_LOAN_LIMIT);
	munmap(own, 4096);
	is((int64_t)ask(side, SUM, address), -EFAULT, "our memory is gone: the peer notices");
	is(handed_back() - before, 1, "in its own task");
}

static volatile int started;

static long spin(void *argument)
{
	struct job *job = argument;

	started = 1;
	for (;;)
		(void)*(volatile uint64_t *)job->page;
	return 0;
}

static void *end_it_soon(void *argument)
{
	struct side *side = argument;

	while (!started)
		sched_yield();
	usleep(1000);
	if (side->other)
		kill(side->other, SIGKILL);
	else
		MUST(rpal_peer_release(side->peer.id));
	return NULL;
}

static volatile int ticks;

static void on_tick(int signal)
{
	ticks++;
}

static void test_end(struct side *side, bool kill_it)
{
	struct sigaction action = { .sa_handler = on_tick };
	struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = {};
	pthread_t thread;
	struct side other;
	struct job job;
	pid_t pid;

	other = start_peer("--own-server", 0, NULL, &pid);
	meet_receiver(&other);
	job.page = (void *)ask(&other, MEMORY, 0);
	other.other = kill_it ? pid : 0;
	started = 0;
	ticks = 0;
	sigaction(SIGALRM, &action, NULL);
	pthread_create(&thread, NULL, end_it_soon, &other);
	setitimer(ITIMER_REAL, &often, NULL);
	is(with(&other, spin, &job), -EFAULT,
	   kill_it ? "the peer is killed while its memory is in use" :
		     "it is released while its memory is in use");
	setitimer(ITIMER_REAL, &never, NULL);
	pthread_join(thread, NULL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	is(with(&other, sum_up, &job), -EFAULT, "there is no such memory any more");
}

/* A bug of its own is no business of the guard. */
static long own_bug(void *argument)
{
	*(volatile int *)argument = 1;
	return 0;
}

static void *unattached(void *argument)
{
	struct side *side = argument;

	is(rpal_with_peer(side->peer.id, side->peer.pkey, sum_up, NULL), -EPERM,
	   "a thread that is not attached");
	return NULL;
}

static int client(struct side *side, int argc, char **argv)
{
	struct job job = { .page = (void *)ask(side, MEMORY, 0) };
	pthread_t thread;
	int status;
	pid_t pid;

	test_use(side, &job);
	pthread_create(&thread, NULL, unattached, side);
	pthread_join(thread, NULL);
	test_gone(side, &job);
	test_on_loan(side);
	test_end(side, false);
	test_end(side, true);
	start_peer("--own-bug", 0, NULL, &pid);
	waitpid(pid, &status, 0);
	is(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGSEGV,
	   "a function that makes a mistake in its own memory gets its signal");
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (argc > 2 && !strcmp(argv[1], "--own-server")) {
		side = become_peers(atoi(argv[2]));
		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		server(&side, argc, argv);
	}
	if (argc > 2 && !strcmp(argv[1], "--own-bug")) {
		side = become_peers(atoi(argv[2]));
		MUST(rpal_attach(RPAL_ROLE_SENDER));
		return with(&side, own_bug, NULL);
	}
	return two_services(argc, argv, server, client);
}
