/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Services make children, by every way there is, in the middle of calls: a
 * handler does, and a client while another thread of it has a context on loan.
 * Children work and are no services; parents go on.
 */
#include "loan_limit.h"
#include "receiver_state.h"
#include "two_services.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define ROUNDS 5

enum way {
	FORK,
	VFORK,
	SPAWN,
	SHARED, /* clone(CLONE_VM): another process in the same memory, at the same time */
	WAYS,
};

static const char *const names[] = { "fork", "vfork", "posix_spawn", "clone(CLONE_VM)" };

/* Written by children that share memory, and by those that have a copy. */
static volatile int seen_by_parent;

/* Written by a handler all the time while it is on loan. */
static volatile uint64_t busy;

static void *allocate(void *arg)
{
	return malloc(100000);
}

/* Is the calling process a service, or can it make itself part of one? */
static bool is_service(void)
{
	struct rpal_register request = { .roles = RPAL_ROLE_SENDER };
	struct rpal_info info = { .size = sizeof(info) };
	int fd = open("/dev/rpal", O_RDWR | O_CLOEXEC);
	bool is = fd < 0 || ioctl(fd, RPAL_IOC_INFO, &info) || info.caps & RPAL_CAP_SERVICE ||
		  info.id || !ioctl(fd, RPAL_IOC_REGISTER, &request);

	close(fd);
	return is;
}

/* In a child with a copy of the memory: 0, or the step that failed. */
static int live_in_copy(void)
{
	uint64_t snapshot = busy;
	pthread_t thread;
	void *got = NULL;
	char *memory;

	seen_by_parent = -1;
	if (is_service())
		return 1;
	if (rpal_open() != -EPERM || rpal_service() || rpal_tid())
		return 2;
	memory = mmap((void *)0x10000000, 1 << 20, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (memory == MAP_FAILED)
		return 3;
	memset(memory, 1, 1 << 20);
	if (pthread_create(&thread, NULL, allocate, NULL) || pthread_join(thread, &got) || !got)
		return 4;
	memset(got, 2, 100000);
	return busy == snapshot ? 0 : 5;
}

/* In a child that borrows the memory of its parent, which waits. */
static int live_in_borrowed(void)
{
	char *memory;

	if (is_service())
		return 1;
	memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 2;
	memset(memory, 3, 1 << 20);
	if (munmap(memory, 1 << 20))
		return 3;
	seen_by_parent = VFORK + 1;
	return 0;
}

/*
 * A system call that leaves errno alone: two processes that share memory share
 * that of one thread, too.
 */
static long bare(long call, long one, long two, long three)
{
	long ret;

	asm volatile("syscall"
		     : "=a"(ret)
		     : "a"(call), "D"(one), "S"(two), "d"(three)
		     : "rcx", "r11", "memory");
	return ret;
}

static int live_in_shared(void *arg)
{
	struct rpal_register request = { .roles = RPAL_ROLE_SENDER };
	struct rpal_info info = { .size = sizeof(info) };
	long fd = bare(SYS_open, (long)"/dev/rpal", O_RDWR | O_CLOEXEC, 0);
	char stack[20000];

	if (fd < 0 || bare(SYS_ioctl, fd, RPAL_IOC_INFO, (long)&info) ||
	    info.caps & RPAL_CAP_SERVICE || info.id)
		return 1;
	if (bare(SYS_ioctl, fd, RPAL_IOC_REGISTER, (long)&request) != -ESRCH)
		return 2;
	if (bare(SYS_getpid, 0, 0, 0) == *(pid_t *)arg)
		return 3;
	memset(stack, 4, sizeof(stack));
	asm volatile("" : : "r"(stack) : "memory");
	bare(SYS_close, fd, 0, 0);
	seen_by_parent = SHARED + 1;
	return 0;
}

static int wait_forever(void *arg)
{
	for (;;)
		bare(SYS_pause, 0, 0, 0);
	return 0;
}

static pid_t share_memory(int (*run)(void *), void *arg)
{
	static char stack[65536] __attribute__((aligned(16)));

	return clone(run, stack + sizeof(stack), CLONE_VM | SIGCHLD, arg);
}

/* Makes a child and waits for it. 0: all is well; else the step that failed. */
static int make_child(enum way way)
{
	char *argv[] = { "child", "--child", NULL };
	pid_t self = getpid(), pid = -1;
	int status;

	seen_by_parent = 0;
	switch (way) {
	case FORK:
		pid = fork();
		if (!pid)
			_exit(live_in_copy());
		break;
	case VFORK:
		pid = vfork();
		if (!pid)
			_exit(live_in_borrowed());
		break;
	case SPAWN:
		if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ))
			pid = -1;
		break;
	default:
		pid = share_memory(live_in_shared, &self);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 100;
	if (status)
		return status;
	if (seen_by_parent != (way == VFORK || way == SHARED ? (int)way + 1 : 0))
		return 101;
	return getpid() == self && rpal_service() && rpal_tid() ? 0 : 102;
}

/* What a call asks the server for. */
enum {
	ADD,	 /* words 1 and 2 */
	CHILD,	 /* by way word 1 */
	SPIN,	 /* on loan, until it is let go */
	GO,	 /* word 1: let it go, or not yet */
	OUTLIVE, /* a child in the server's memory that does not end */
};

static volatile bool go;

static int handle(struct rpal_message *m)
{
	switch (m->word[0]) {
	case ADD:
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	case CHILD:
		m->word[0] = make_child(m->word[1]);
		return 0;
	case SPIN:
		while (!go)
			busy++;
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	case GO:
		go = m->word[1];
		return 0;
	case OUTLIVE:
		m->word[0] = share_memory(wait_forever, NULL);
		return 0;
	default:
		return -ENOSYS;
	}
}

static void *serve_too(void *arg)
{
	introduce_receiver(arg, RPAL_ROLE_RECEIVER);
	serve_calls(handle);
	return NULL;
}

/* It has two receivers. */
static void server(struct side *side, int argc, char **argv)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, serve_too, side))
		die("pthread_create", errno);
	serve_calls(handle);
}

static int ask(const struct rpal_target *target, struct rpal_message *m, uint64_t what,
	       uint64_t one, uint64_t two)
{
	*m = (struct rpal_message){ { what, one, two } };
	return rpal_call(target, m, -1);
}

static int child_there(const struct rpal_target *target, enum way way)
{
	struct rpal_message m;

	return ask(target, &m, CHILD, way, 0) ?: (int)m.word[0];
}

/* Another thread of the client, which calls the server's other receiver. */
struct caller {
	pthread_t thread;
	const struct rpal_target *target;
	uint64_t what;
	volatile bool stop;
	volatile long calls, wrong;
};

static void *call_on(void *arg)
{
	struct caller *caller = arg;
	struct rpal_message m;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	do {
		uint64_t i = caller->calls;

		caller->wrong += ask(caller->target, &m, caller->what, i, i * 5) ||
				 m.word[0] != i * 6;
		caller->calls++;
	} while (!caller->stop && caller->what == ADD);
	return NULL;
}

static void start_caller(struct caller *caller)
{
	if (pthread_create(&caller->thread, NULL, call_on, caller))
		die("pthread_create", errno);
}

static void test_alone(struct side *side)
{
	for (enum way way = 0; way < WAYS; way++) {
		int here = make_child(way), there = child_there(&side->target, way);

		ok(!here && !there, "%s by a client (%d) and by a handler (%d)", names[way], here,
		   there);
	}
}

static void test_under_load(struct side *side, const struct rpal_target *other)
{
	struct caller caller = { .target = other, .what = ADD };
	int failed[WAYS][2] = {};

	start_caller(&caller);
	for (int round = 0; round < ROUNDS; round++)
		for (enum way way = 0; way < WAYS; way++) {
			failed[way][0] += make_child(way) != 0;
			failed[way][1] += child_there(&side->target, way) != 0;
		}
	caller.stop = true;
	pthread_join(caller.thread, NULL);
	for (enum way way = 0; way < WAYS; way++)
		ok(!failed[way][0] && !failed[way][1],
		   "%s while another thread calls, %d times: %d failed, in a handler %d",
		   names[way], ROUNDS, failed[way][0], failed[way][1]);
	ok(caller.calls > ROUNDS && !caller.wrong, "%ld calls, %ld wrong", caller.calls,
	   caller.wrong);
}

static void test_on_loan(struct side *side, const struct rpal_target *other)
{
	struct rpal_message m;
	int on_loan = 0, total = 0;
	long wrong = 0;

	for (enum way way = 0; way < WAYS; way++) {
		int failed[2] = {};

		for (int in_handler = 0; in_handler < 2; in_handler++) {
			struct caller caller = { .target = other, .what = SPIN };

			MUST(ask(&side->target, &m, GO, false, 0));
			wait_until_parked(side->other, other->tid);
			start_caller(&caller);
			wait_until_called(side->other, other->tid);
			failed[in_handler] = in_handler ? child_there(&side->target, way) :
							  make_child(way);
			on_loan += receiver_state(side->other, other->tid) == RPAL_STATE_ACTIVE;
			MUST(ask(&side->target, &m, GO, true, 0));
			pthread_join(caller.thread, NULL);
			wrong += caller.wrong;
			total++;
		}
		ok(!failed[0] && !failed[1],
		   "%s while another thread has a context on loan (%d, in a handler %d)",
		   names[way], failed[0], failed[1]);
	}
	is(wrong, 0, "which goes on");
	printf("# the loan had not ended meanwhile %d of %d times\n", on_loan, total);
}

/* A server dies, and something lives on in its memory. */
static void test_outlived(struct side *side)
{
	struct pollfd gone = { .fd = rpal_open(), .events = POLLIN };
	struct rpal_message m;
	struct side mortal;
	uint32_t id = 0;
	pid_t pid, child;

	mortal = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&mortal);
	MUST(ask(&mortal.target, &m, OUTLIVE, 0, 0));
	child = m.word[0];
	is(ask(&mortal.target, &m, ADD, 1, 2), 0, "a server has a child in its memory");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	is(ask(&mortal.target, &m, ADD, 1, 2), -EOWNERDEAD, "the server dies, calls fail");
	is(kill(child, 0), 0, "the child lives");
	is(ask(&side->target, &m, ADD, 1, 2), 0, "other servers can be called");
	kill(child, SIGKILL);
	is(poll(&gone, 1, 30000), 1, "when it is dead, too, the memory and so the service is gone");
	ok(read(gone.fd, &id, sizeof(id)) == sizeof(id) && id == mortal.peer.id,
	   "which is that server");
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_target other;
	uint32_t tid;

	hear(side->socket, &tid, sizeof(tid));
	MUST(rpal_target_init(&other, tid, side->peer.pkey));
	/* A loan must not end for another reason. */
	limit_loans(LONGEST_LOAN_LIMIT);
	test_alone(side);
	test_under_load(side, &other);
	test_on_loan(side, &other);
	test_outlived(side);
	limit_loans(DEFAULT_LOAN_LIMIT);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (argc == 2 && !strcmp(argv[1], "--child"))
		return is_service();
	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve_calls(handle);
	return two_services(argc, argv, server, client);
}
