/* guest: cpus=1,2 append=pti=on debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Two peers part: one of them releases the other, is disabled, ends or becomes
 * another program, whatever they are doing. Calls that are in progress fail at
 * once, though their handler never ends; the other side is told; nothing of
 * one is there for the other any more, until both have asked again.
 */
#include "loan_limit.h"
#include "two_services.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* What the server is asked for in a call, in word 0. */
enum {
	ADD,   /* words 1 and 2 */
	SLOW,  /* the same, with a system call */
	BLOCK, /* in a system call, until it is let go */
	SPIN,  /* in user mode, until it is let go */
	LEAVE, /* releases the client */
	RESIGN /* is no receiver any more, once it is let go */
};

/* And on the socket, by one byte that is answered by one. */
enum {
	RELEASE = 'r',
	DISABLE = 'd',
	ENABLE = 'e',
	REQUEST = 'q',
	LET_GO_BLOCKED = 'b',
	LET_GO_SPINNING = 's',
	EXIT = 'x',
	EXEC = 'X',
	THREAD_EXIT = 't',
};

/* In the server. */
static struct side *us;
static volatile bool go;
static int blocked[2]; /* pipe */
static pthread_t main_thread;

static int handle(struct rpal_message *m)
{
	char byte;

	switch (m->word[0]) {
	case SLOW:
		getppid();
		/* fallthrough */
	case ADD:
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	case BLOCK:
		hear(blocked[0], &byte, 1);
		return 0;
	case SPIN:
		while (!go)
			;
		go = false;
		return 0;
	case LEAVE:
		return rpal_peer_release(us->peer.id);
	case RESIGN:
		hear(blocked[0], &byte, 1);
		MUST(ioctl(rpal_open(), RPAL_IOC_UNREGISTER, RPAL_ROLE_RECEIVER));
		for (;;)
			pause();
	default:
		return -ENOSYS;
	}
}

static void end_thread(int signal)
{
	syscall(SYS_exit, 0);
}

static int obey(int order)
{
	char *argv[] = { "/bin/sleep", "1000", NULL };

	switch (order) {
	case RELEASE:
		return rpal_peer_release(us->peer.id);
	case DISABLE:
		return rpal_disable();
	case ENABLE:
		return rpal_enable(0);
	case REQUEST:
		return rpal_peer_request(us->key, &us->peer);
	case LET_GO_BLOCKED:
		tell(blocked[1], "g", 1);
		return 0;
	case LET_GO_SPINNING:
		go = true;
		return 0;
	case EXIT:
		exit(0);
	case EXEC:
		execv(argv[0], argv);
		return -errno;
	case THREAD_EXIT:
		return -pthread_kill(main_thread, SIGUSR1);
	default:
		return -ENOSYS;
	}
}

static void *obey_orders(void *arg)
{
	char order;

	while (read(us->socket, &order, 1) == 1) {
		int ret = obey(order);

		tell(us->socket, &ret, sizeof(ret));
	}
	_exit(0);
}

static void serve(struct side *side)
{
	pthread_t thread;
	sigset_t signals;

	us = side;
	main_thread = pthread_self();
	signal(SIGUSR1, end_thread);
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	if (pipe2(blocked, O_CLOEXEC) || pthread_create(&thread, NULL, obey_orders, NULL))
		die("pthread_create", errno);
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(side);
}

/* In the client. */

static int order(struct side *side, char what)
{
	int ret;

	tell(side->socket, &what, 1);
	hear(side->socket, &ret, sizeof(ret));
	return ret;
}

static int add(struct side *side, uint64_t how, uint64_t a, uint64_t b)
{
	struct rpal_message m = { { how, a, b } };
	int ret = rpal_call(&side->target, &m, -1);

	return ret ?: m.word[0] == a + b ? 0 : -EBADMSG;
}

static int request(struct side *side)
{
	return rpal_peer_request(side->key, &side->peer);
}

/* Both ask again. */
static bool link_again(struct side *side)
{
	return !order(side, REQUEST) && !request(side) && side->peer.linked &&
	       !add(side, ADD, 1, 2) && !add(side, SLOW, 3, 4);
}

/* Nothing of the server is there: its control block would be. */
static bool sees_nothing(struct side *side)
{
	uint64_t value;

	return rpal_read_peer(side->peer.id, side->peer.pkey, &value, side->target.control,
			      sizeof(value)) == -EFAULT &&
	       add(side, ADD, 1, 2) == -EOWNERDEAD;
}

/* The descriptor says that exactly this one has gone. */
static bool is_told(struct side *side)
{
	struct pollfd gone = { .fd = rpal_open(), .events = POLLIN };
	uint32_t ids[4] = { 0 };

	return poll(&gone, 1, -1) == 1 && gone.revents == POLLIN &&
	       read(gone.fd, ids, sizeof(ids)) == 4 && ids[0] == side->peer.id &&
	       poll(&gone, 1, 0) == 0;
}

static bool is_not_told(void)
{
	struct pollfd gone = { .fd = rpal_open(), .events = POLLIN };

	return poll(&gone, 1, 0) == 0;
}

/* A thread with one call. */
struct caller {
	struct side *side;
	uint64_t what;
	pthread_t thread;
	volatile pid_t tid;
	int ret;
};

static void *call(void *arg)
{
	struct caller *caller = arg;
	struct rpal_message m = { { caller->what } };

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	caller->tid = gettid();
	caller->ret = rpal_call(&caller->side->target, &m, -1);
	return NULL;
}

static void start(struct caller *caller)
{
	caller->tid = 0;
	if (pthread_create(&caller->thread, NULL, call, caller))
		die("pthread_create", errno);
	while (!caller->tid)
		sched_yield();
}

/* The state of the control block of the server's receiver. */
static uint64_t state(struct side *side)
{
	return __atomic_load_n(&side->target.control->state, __ATOMIC_RELAXED) & 0xff;
}

static void wait_until_asleep(pid_t tid)
{
	char path[64], line[256], *at;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	for (;;) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t bytes = read(fd, line, sizeof(line) - 1);

		close(fd);
		if (bytes <= 0)
			die(path, errno);
		line[bytes] = 0;
		at = strrchr(line, ')');
		if (at && at[2] == 'S')
			return;
		usleep(1000);
	}
}

/* The first one's handler does not end, the second one waits behind it. */
static void start_both(struct caller *first, struct caller *second)
{
	/* The server is there. */
	add(first->side, SLOW, 1, 2);
	start(first);
	if (first->what != SPIN) {
		wait_until_asleep(first->tid);
	} else {
		/* On loan as a rule, but that can have ended already. */
		while (state(first->side) == RPAL_STATE_PARKED ||
		       state(first->side) == RPAL_STATE_LENT)
			sched_yield();
	}
	start(second);
	wait_until_asleep(second->tid);
}

static int finish(struct caller *caller)
{
	pthread_join(caller->thread, NULL);
	return caller->ret;
}

enum parting {
	CLIENT_RELEASES,
	SERVER_RELEASES,
	SERVER_IS_DISABLED,
	PARTINGS,
	/* Of these there is no way back. */
	SERVER_IS_KILLED = PARTINGS,
	SERVER_EXITS,
	SERVER_EXECS,
	ENDINGS,
};

static const char *const parting_names[] = {
	[CLIENT_RELEASES] = "the client releases",
	[SERVER_RELEASES] = "the server releases",
	[SERVER_IS_DISABLED] = "the server is disabled",
	[SERVER_IS_KILLED] = "the server is killed",
	[SERVER_EXITS] = "the server exits",
	[SERVER_EXECS] = "the server execs",
};

/* Return: whether the client is to be told. */
static bool do_part(struct side *side, enum parting parting)
{
	char byte;

	switch (parting) {
	case CLIENT_RELEASES:
		MUST(rpal_peer_release(side->peer.id));
		return false;
	case SERVER_RELEASES:
		MUST(order(side, RELEASE));
		return true;
	case SERVER_IS_DISABLED:
		MUST(order(side, DISABLE));
		MUST(order(side, ENABLE));
		return true;
	case SERVER_IS_KILLED:
		kill(side->other, SIGKILL);
		return true;
	case SERVER_EXITS:
		byte = EXIT;
		tell(side->socket, &byte, 1);
		return true;
	case SERVER_EXECS:
		byte = EXEC;
		tell(side->socket, &byte, 1);
		return true;
	default:
		abort();
	}
}

static void part_in_call(struct side *side, uint64_t what, enum parting parting)
{
	const char *how = what == BLOCK ? "handed back" : "on loan";
	struct caller first = { .side = side, .what = what };
	struct caller second = { .side = side, .what = ADD };
	bool told;

	start_both(&first, &second);

	told = do_part(side, parting);
	is(finish(&first), -EOWNERDEAD, parting_names[parting]);
	is(finish(&second), -EOWNERDEAD, "a caller that waits, too");
	ok(told ? is_told(side) : is_not_told(), "%s, the client %s", how,
	   told ? "is told" : "knows");
	ok(sees_nothing(side), "and sees nothing of it");
}

static void test_parting(struct side *side)
{
	for (enum parting parting = 0; parting < PARTINGS; parting++) {
		for (uint64_t what = BLOCK; what <= SPIN; what++) {
			part_in_call(side, what, parting);
			MUST(request(side));
			ok(!side->peer.linked && sees_nothing(side), "to ask alone is of no use");
			MUST(order(side, what == BLOCK ? LET_GO_BLOCKED : LET_GO_SPINNING));
			ok(link_again(side), "to ask both is");
		}
	}
}

static void test_endings(void)
{
	for (enum parting parting = PARTINGS; parting < ENDINGS; parting++) {
		for (uint64_t what = BLOCK; what <= SPIN; what++) {
			struct side side;
			pid_t pid;

			side = start_peer("--mortal", 0, NULL, &pid);
			meet_receiver(&side);
			part_in_call(&side, what, parting);
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			close(side.socket);
		}
	}
}

/* The receiver ends, not its service: only its calls fail. */
static void test_thread_exit(void)
{
	struct side side;
	pid_t pid;

	for (uint64_t what = BLOCK; what <= SPIN; what++) {
		struct caller first = { .side = &side, .what = what };
		struct caller second = { .side = &side, .what = ADD };

		side = start_peer("--mortal", 0, NULL, &pid);
		meet_receiver(&side);
		start_both(&first, &second);
		order(&side, THREAD_EXIT);
		is(finish(&first), -EOWNERDEAD, "the receiver's thread exits");
		is(finish(&second), -EOWNERDEAD, "a caller that waits, too");
		ok(is_not_told(), "the service lives");
		is(order(&side, RELEASE), 0, "and is a peer");
		ok(is_told(&side), "until it is not");
		ok(!order(&side, REQUEST) && !request(&side) && side.peer.linked,
		   "which can be changed, without its first thread");
		kill(pid, SIGKILL);
		ok(is_told(&side), "until it ends");
		waitpid(pid, NULL, 0);
		close(side.socket);
	}
}

/* The thread lives, but is a sender only. */
static void test_resignation(void)
{
	struct side side;
	struct caller first = { .side = &side, .what = RESIGN };
	struct caller second = { .side = &side, .what = ADD };
	pid_t pid;

	side = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&side);
	start_both(&first, &second);
	MUST(order(&side, LET_GO_BLOCKED));
	is(finish(&first), -EOWNERDEAD, "the receiver gives that role up");
	is(finish(&second), -EOWNERDEAD, "a caller that waits, too");
	is(add(&side, ADD, 1, 2), -EOWNERDEAD, "nor is it called later");
	kill(pid, SIGKILL);
	ok(is_told(&side), "the service lives until it is killed");
	waitpid(pid, NULL, 0);
	close(side.socket);
}

static void test_handler_parts(struct side *side)
{
	struct rpal_message m = { { LEAVE } };

	is(rpal_call(&side->target, &m, -1), -EOWNERDEAD, "the handler releases its client");
	ok(is_told(side) && sees_nothing(side), "which is told and sees nothing");
	ok(link_again(side), "they are linked again");
}

struct breaker {
	struct side *side;
	enum parting parting;
	long ns;
};

static void *part_later(void *arg)
{
	struct breaker *breaker = arg;
	struct timespec ns = { .tv_nsec = breaker->ns };

	nanosleep(&ns, NULL);
	do_part(breaker->side, breaker->parting);
	return NULL;
}

/* At any moment of calls of all kinds. */
static void test_under_load(struct side *side, int rounds)
{
	long calls = 0, wrong = 0;

	for (int i = 0; i < rounds; i++) {
		struct breaker breaker = { side, i % PARTINGS, random() % 1000000 };
		bool told, gone, linked;
		pthread_t thread;
		int ret;

		pthread_create(&thread, NULL, part_later, &breaker);
		do {
			ret = add(side, calls % 8 ? ADD : SLOW, calls, i);
			calls++;
		} while (!ret);
		pthread_join(thread, NULL);
		told = breaker.parting == CLIENT_RELEASES || is_told(side);
		gone = sees_nothing(side);
		linked = link_again(side);
		if ((ret != -EOWNERDEAD || !told || !gone || !linked) && !wrong++)
			printf("# %s: %d, %d %d %d\n", parting_names[breaker.parting], ret, told,
			       gone, linked);
	}
	ok(!wrong, "%d times at any moment, after %ld calls, %ld wrong", rounds, calls, wrong);
}

static int client(struct side *side, int argc, char **argv)
{
	/* A loan must not end for another reason. */
	limit_loans(LONGEST_LOAN_LIMIT);

	test_parting(side);
	test_handler_parts(side);
	test_endings();
	test_thread_exit();
	test_resignation();
	limit_loans(DEFAULT_LOAN_LIMIT);
	test_under_load(side, 100);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER | RPAL_ROLE_SENDER, &side))
		serve(&side);
	return two_services(argc, argv, server, client);
}
