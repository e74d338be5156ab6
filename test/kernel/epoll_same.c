/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * rpal_epoll_wait() does what epoll_wait() does, call by call. The same
 * operations, which a seed decides, are done to two sets of descriptors. One
 * is waited for with epoll_wait(), the other with rpal_epoll_wait() in a
 * receiver, and both must have the same result each time.
 *
 * In one of eight trials the receiver is called meanwhile; what it returns for
 * calls does not count. Then events may come in another order.
 */
#include "long_run.h"
#include "random.h"
#include "two_services.h"
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

enum {
	CALLERS = 2,
	ROUNDS = 300, /* of a trial, at most */
	LEAST = 3000, /* rounds in which everything happens */
	MOST = 16,    /* events; a set never has so many descriptors */
	HANG = 20,    /* s; longer than any wait */
	REPORTED = 5, /* differences */
};

/* ---- Two sets of descriptors ------------------------------------------------ */

enum kind { EVENT, PIPE, PIPE_END, STREAM, PACKETS, TIMER, EPOLL };

static const enum kind kinds[] = {
	EVENT, EVENT, PIPE, PIPE, PIPE_END, STREAM, STREAM, PACKETS, TIMER, TIMER, EPOLL, EPOLL,
};

enum { THINGS = sizeof(kinds) / sizeof(kinds[0]), NESTED = THINGS - 2 };

/* -1 is none. */
struct set {
	int epfd;
	int fd[THINGS], other[THINGS]; /* end of a pipe or socket */
	int copy; /* keeps alive what may be closed under another number */
};

static void make(struct set *set, int thing)
{
	int fds[2] = { -1, -1 }, ret = 0;

	switch (kinds[thing]) {
	case EVENT:
		fds[0] = ret = eventfd(0, EFD_NONBLOCK);
		break;
	case PIPE:
	case PIPE_END:
		ret = pipe2(fds, O_NONBLOCK);
		break;
	case STREAM:
		ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds);
		break;
	case PACKETS:
		ret = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds);
		break;
	case TIMER:
		fds[0] = ret = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
		break;
	case EPOLL:
		fds[0] = ret = epoll_create1(0);
		break;
	}
	if (ret < 0)
		die("a descriptor", errno);
	set->fd[thing] = fds[kinds[thing] == PIPE_END];
	set->other[thing] = fds[kinds[thing] != PIPE_END];
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void make_set(struct set *set)
{
	set->epfd = epoll_create1(0);
	set->copy = -1;
	for (int i = 0; i < THINGS; i++)
		make(set, i);
}

static void end_set(struct set *set)
{
	for (int i = 0; i < THINGS; i++) {
		shut(&set->fd[i]);
		shut(&set->other[i]);
	}
	shut(&set->copy);
	shut(&set->epfd);
}

/* ---- What is done to them --------------------------------------------------- */

enum what { ADD, MODIFY, DELETE, RAISE, TAKE, FILL, EMPTY, SHUT_DOWN, CLOSE, CLOSE_OTHER, RENEW,
	    COPY, CLOSE_COPY, LOOK, WHATS };

struct operation {
	enum what what;
	int thing;
	int in; /* a nested set, or -1 */
	size_t bytes;
	struct epoll_event event;
};

static struct operation random_operation(struct random *random)
{
	static const enum what whats[] = {
		ADD,   ADD,   ADD,  ADD,  MODIFY, MODIFY, MODIFY, DELETE,    RAISE, RAISE, RAISE,
		RAISE, RAISE, TAKE, TAKE, TAKE,	  FILL,	  EMPTY,  SHUT_DOWN, COPY,  LOOK,
	};
	static const enum what rare[] = { CLOSE, CLOSE_OTHER, RENEW, RENEW, RENEW, CLOSE_COPY };
	static const uint32_t masks[] = {
		EPOLLIN, EPOLLIN, EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT, EPOLLIN | EPOLLRDHUP,
		EPOLLRDNORM | EPOLLPRI, EPOLLWRNORM, 0,
	};
	static const uint32_t modes[] = {
		0, 0, EPOLLET, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT, EPOLLEXCLUSIVE,
		EPOLLEXCLUSIVE | EPOLLET,
	};
	struct operation operation = {
		.what = one_in(random, 12) ? RANDOM_OF(random, rare) : RANDOM_OF(random, whats),
		.thing = random_below(random, THINGS),
		.in = one_in(random, 4) ? (int)(NESTED + random_below(random, 2)) : -1,
		.bytes = 1 + random_below(random, one_in(random, 4) ? 9000 : 16),
	};

	operation.event.events = RANDOM_OF(random, masks) | RANDOM_OF(random, modes);
	operation.event.data.u64 = random_word(random) << 8 | operation.thing;
	if (operation.what == LOOK && operation.in < 0)
		operation.in = NESTED;
	return operation;
}

static char bytes[9000];

static long raise_event(const struct set *set, const struct operation *operation)
{
	const struct itimerspec now = { .it_value.tv_nsec = 1 + operation->bytes };
	struct pollfd expired = { .fd = set->fd[operation->thing], .events = POLLIN };
	uint64_t one = 1;
	long ret;

	switch (kinds[operation->thing]) {
	case EVENT:
		return result(write(set->fd[operation->thing], &one, sizeof(one)));
	case TIMER:
		ret = result(timerfd_settime(expired.fd, 0, &now, NULL));
		if (!ret)
			while (poll(&expired, 1, -1) < 0)
				;
		return ret;
	default:
		return result(write(set->other[operation->thing], bytes, operation->bytes));
	}
}

/* As much as there is room for. */
static long fill(const struct set *set, int thing)
{
	uint64_t most = ~1ULL;
	long ret, sum = 0;

	if (kinds[thing] == EVENT)
		return result(write(set->fd[thing], &most, sizeof(most)));
	while ((ret = result(write(set->fd[thing], bytes, sizeof(bytes)))) > 0)
		sum += ret;
	return sum ? sum : ret;
}

static long empty(int fd)
{
	long ret, sum = 0;

	while ((ret = result(read(fd, bytes, sizeof(bytes)))) > 0)
		sum += ret;
	return sum ? sum : ret;
}

static int by_data(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct epoll_event));
}

/* Into a nested set, and takes its events. A number that stands for all of them. */
static long look(int epfd)
{
	struct epoll_event events[MOST] = { 0 };
	int n = result(epoll_wait(epfd, events, MOST, 0));
	uint64_t sum = n;

	for (int i = 0; i < n; i++)
		sum += (events[i].data.u64 ^ events[i].events) * 0x9e3779b97f4a7c15;
	return sum;
}

static long operate(struct set *set, const struct operation *operation)
{
	static const int ctl[] = { EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL };
	struct epoll_event event = operation->event;
	int thing = operation->thing, epfd = operation->in < 0 ? set->epfd : set->fd[operation->in];

	switch (operation->what) {
	case ADD:
	case MODIFY:
	case DELETE:
		return result(epoll_ctl(epfd, ctl[operation->what], set->fd[thing], &event));
	case RAISE:
		return raise_event(set, operation);
	case TAKE:
		return result(read(set->fd[thing], bytes, operation->bytes));
	case FILL:
		return fill(set, thing);
	case EMPTY:
		return empty(set->other[thing]);
	case SHUT_DOWN:
		return result(shutdown(set->other[thing],
				       operation->bytes % 2 ? SHUT_WR : SHUT_RD));
	case RENEW:
		shut(&set->fd[thing]);
		shut(&set->other[thing]);
		make(set, thing);
		return 0;
	case CLOSE:
		shut(&set->fd[thing]);
		return 0;
	case CLOSE_OTHER:
		shut(&set->other[thing]);
		return 0;
	case COPY:
		shut(&set->copy);
		set->copy = dup(set->fd[thing]);
		return set->copy < 0;
	case CLOSE_COPY:
		shut(&set->copy);
		return 0;
	case LOOK:
		return look(epfd);
	default:
		return -ENOSYS;
	}
}

/* ---- Waiting ---------------------------------------------------------------- */

static bool calls, at_home;
static int stopped; /* callers */
static uint64_t served, answered_wrong;

/* The event of a call. */
#define CALL (~0ULL)

static void answer(void)
{
	struct rpal_message m;

	if (rpal_take(&m, NULL) != 1)
		die("an event that is none", EPROTO);
	served++;
	answered_wrong += m.word[1];
	m = (struct rpal_message){ { m.word[0] ^ 0x5555, calls } };
	stopped += !calls;
	rpal_reply(0, &m);
}

/*
 * Without what belongs to calls. On loan, a wait of no time does not look, but
 * returns to the loan (receive.h): so before the task has its context back.
 */
static int rpal_wait(int epfd, struct epoll_event *events, int most, int timeout)
{
	int n;

	while ((n = rpal_epoll_wait(epfd, events, most, timeout)) == 1 &&
	       events[0].data.u64 == CALL) {
		answer();
		if (!timeout || at_home)
			syscall(SYS_getppid);
	}
	return n;
}

static int (*const wait_in[2])(int, struct epoll_event *, int, int) = { epoll_wait, rpal_wait };

struct wait {
	enum { THE_SET, NONE, NO_SET } on;
	enum { GOOD, NOWHERE, KERNEL, SHORT } buffer;
	int most, timeout;
};

struct outcome {
	int n; /* or -errno */
	struct epoll_event events[MOST];
};

/* With nothing after it. */
static struct epoll_event *page;

static struct outcome wait_once(int which, const struct set *set, const struct wait *wait)
{
	struct epoll_event *const buffers[] = {
		page, NULL, (void *)(LONG_MIN + 4096), (void *)((char *)page + 4096 - 28),
	};
	const int fds[] = { set->epfd, -1, set->fd[0] };
	struct outcome outcome = { 0 };

	outcome.n = result(wait_in[which](fds[wait->on], buffers[wait->buffer], wait->most,
					  wait->timeout));
	for (int i = 0; i < outcome.n; i++)
		outcome.events[i] = buffers[wait->buffer][i];
	return outcome;
}

static bool readable(const struct set *set)
{
	struct pollfd poll_set = { .fd = set->epfd, .events = POLLIN };
	int ret;

	while ((ret = poll(&poll_set, 1, 0)) < 0)
		;
	return ret;
}

/* ---- Somebody else, while one waits ----------------------------------------- */

static struct {
	pthread_t thread;
	pid_t waits; /* the thread that waits */
	sem_t begin, end;
	struct set *set;
	const struct operation *operation; /* or only a signal */
	unsigned int delay;
	volatile bool back;
} other;

static void *be_the_other(void *unused)
{
	for (;;) {
		while (sem_wait(&other.begin))
			;
		for (volatile unsigned int i = other.delay; i > 0; i--)
			;
		if (other.operation) {
			operate(other.set, other.operation);
			/* It may be an event, or not. */
			for (int i = 0; i < 10 && !other.back; i++)
				usleep(100);
		}
		while (!other.back) {
			tgkill(getpid(), other.waits, SIGUSR1);
			usleep(100);
		}
		sem_post(&other.end);
	}
	return NULL;
}

static void merge(struct outcome *all, const struct outcome *more)
{
	for (int i = 0; i < more->n; i++) {
		int at = 0;

		while (at < all->n && all->events[at].data.u64 != more->events[i].data.u64)
			at++;
		all->events[at].data = more->events[i].data;
		all->events[at].events |= more->events[i].events;
		all->n += at == all->n;
	}
}

/*
 * The other one does @operation, or sends a signal. An operation can be two
 * events that are seen at once or one after the other: taken together.
 */
static struct outcome wait_for_other(int which, struct set *set, const struct wait *wait,
				     const struct operation *operation, unsigned int delay)
{
	struct outcome outcome, all = { 0 };
	struct wait at_once = *wait;

	other.set = set;
	other.operation = operation;
	other.delay = delay;
	other.back = false;
	sem_post(&other.begin);
	outcome = wait_once(which, set, wait);
	other.back = true;
	while (sem_wait(&other.end))
		;
	if (!operation)
		return outcome;
	merge(&all, &outcome);
	at_once.timeout = 0;
	outcome = wait_once(which, set, &at_once);
	merge(&all, &outcome);
	return all;
}

/* ---- Rounds ----------------------------------------------------------------- */

static struct set sets[2];
static uint64_t rounds, differences;
/* What happened, for a run in which it did not happen compares nothing. */
static uint64_t events, refused, timeouts, interrupted, slept, results[WHATS];

static void differ(const char *what, int with, long a, long b)
{
	if (differences++ < REPORTED)
		printf("# round %llu, %s %d: %ld with epoll_wait, %ld with rpal_epoll_wait\n",
		       (unsigned long long)rounds, what, with, a, b);
}

static void compare(const char *what, const struct wait *wait, struct outcome *a, struct outcome *b,
		    bool ordered)
{
	if (!ordered) {
		qsort(a->events, MOST, sizeof(a->events[0]), by_data);
		qsort(b->events, MOST, sizeof(b->events[0]), by_data);
	}
	if (a->n != b->n || memcmp(a->events, b->events, sizeof(a->events))) {
		differ(what, wait->timeout, a->n, b->n);
		if (differences <= REPORTED)
			for (int i = 0; i < MOST; i++)
				printf("# %#x %#llx, %#x %#llx\n", a->events[i].events,
				       (unsigned long long)a->events[i].data.u64,
				       b->events[i].events,
				       (unsigned long long)b->events[i].data.u64);
	}
	events += a->n > 0 ? a->n : 0;
	interrupted += a->n == -EINTR;
	refused += a->n < 0 && a->n != -EINTR;
	timeouts += !a->n && wait->timeout > 0;
}

static void operate_on_both(const struct operation *operation)
{
	long a = operate(&sets[0], operation), b = operate(&sets[1], operation);

	if (a != b)
		differ("operation", operation->what, a, b);
	results[operation->what] += a >= 0;
}

static struct wait random_wait(struct random *random)
{
	static const int mosts[] = { 0, -1, INT_MIN, INT_MAX, INT_MAX / 12 + 1 };
	struct wait wait = { .most = MOST };

	/* A call needs a buffer, and has its own order. */
	if (calls)
		return wait;
	wait.most = 1 + random_below(random, one_in(random, 2) ? 3 : MOST);
	if (one_in(random, 30))
		wait.on = 1 + random_below(random, 2);
	if (one_in(random, 30))
		wait.buffer = 1 + random_below(random, 3);
	if (one_in(random, 30))
		wait.most = RANDOM_OF(random, mosts);
	return wait;
}

/* As it is. Something is ready, or the time is over soon. */
static void wait_alone(struct wait *wait)
{
	struct outcome outcomes[2];

	for (int i = 0; i < 2; i++) {
		double begin = wait->timeout > 0 ? now_seconds() : 0;

		/* One that is never woken is interrupted. */
		if (wait->timeout)
			alarm(HANG);
		outcomes[i] = wait_once(i, &sets[i], wait);
		if (wait->timeout)
			alarm(0);
		if (wait->timeout > 0 && !outcomes[i].n &&
		    now_seconds() < begin + wait->timeout / 1e3)
			differ("too early", wait->timeout, !i, i);
	}
	compare("timeout", wait, &outcomes[0], &outcomes[1], !calls);
}

/* Whether the order of events may be another one in both sets since. */
static bool wait_with_other(struct wait *wait, bool signals, struct random *random)
{
	struct operation operation = random_operation(random);
	unsigned int delay = random_below(random, 3000);
	struct outcome outcomes[2];

	if (!signals) {
		*wait = (struct wait){ .most = MOST, .timeout = wait->timeout };
		operation.what = one_in(random, 8) ? operation.what : RAISE;
	}
	for (int i = 0; i < 2; i++)
		outcomes[i] = wait_for_other(i, &sets[i], wait, signals ? NULL : &operation, delay);
	slept++;
	compare(signals ? "signal, timeout" : "operation of another, timeout", wait, &outcomes[0],
		&outcomes[1], false);
	return outcomes[0].n > 1;
}

/* Whether the trial goes on. */
static bool compare_once(struct random *random)
{
	static const int ends[] = { 1, 1000, INT_MAX, -1, INT_MIN };
	struct wait wait = random_wait(random);
	bool ready;

	rounds++;
	for (int i = random_below(random, 3); i >= 0; i--) {
		struct operation operation = random_operation(random);

		operate_on_both(&operation);
	}
	if (random_below(random, 5)) {
		wait_alone(&wait);
		return true;
	}
	ready = readable(&sets[0]);
	if (ready != readable(&sets[1]))
		differ("readable", 0, ready, !ready);
	at_home = one_in(random, 2);
	if (ready) {
		wait.timeout = RANDOM_OF(random, ends);
		/* What is ready comes before a signal. */
		if (one_in(random, 8))
			wait_with_other(&wait, true, random);
		else
			wait_alone(&wait);
		return true;
	}
	switch (random_below(random, 16)) {
	case 0:
		wait.timeout = 1;
		wait_alone(&wait);
		return true;
	case 1:
		wait.timeout = ends[1 + random_below(random, 4)];
		return !wait_with_other(&wait, one_in(random, 3), random);
	default:
		wait_alone(&wait);
		return true;
	}
}

/* ---- Two processes ---------------------------------------------------------- */

static struct side *client_side;

/* One byte is one trial's calls. */
static void *call_for_trials(void *target)
{
	struct random random = random_stream(1, gettid());
	uint64_t wrong = 0;
	char byte;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	while (read(client_side->socket, &byte, 1) == 1) {
		struct rpal_message m = { 0 };

		do {
			uint64_t word = random_word(&random);

			m = (struct rpal_message){ { word, wrong } };
			wrong = rpal_call(target, &m, -1) || m.word[0] != (word ^ 0x5555);
			if (one_in(&random, 2))
				usleep(random_below(&random, 300));
		} while (m.word[1]);
	}
	return NULL;
}

static void caller(struct side *side, int argc, char **argv)
{
	pthread_t threads[CALLERS];
	uint32_t tid;

	client_side = side;
	hear(side->socket, &tid, sizeof(tid));
	MUST(rpal_target_init(&side->target, tid, side->peer.pkey));
	for (int i = 0; i < CALLERS; i++)
		pthread_create(&threads[i], NULL, call_for_trials, &side->target);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
}

static void try_once(const struct side *side, struct random random)
{
	struct epoll_event event;

	for (int i = 0; i < 2; i++)
		make_set(&sets[i]);
	calls = one_in(&random, 8);
	stopped = calls ? 0 : CALLERS;
	if (calls)
		tell(side->socket, "go", CALLERS);
	for (int i = 0; i < ROUNDS && compare_once(&random); i++)
		;
	/* Callers are told with their next answer. */
	calls = false;
	end_set(&sets[1]);
	sets[1].epfd = epoll_create1(0);
	while (stopped < CALLERS)
		rpal_wait(sets[1].epfd, &event, 1, 10);
	/* And get it when it is waited for again. */
	rpal_wait(sets[1].epfd, &event, 1, 0);
	end_set(&sets[0]);
	end_set(&sets[1]);
}

static void be_interrupted(int signal)
{
}

static void start_other(void)
{
	/* SIGUSR1 with SA_RESTART: no wait of epoll begins again. */
	signal(SIGUSR1, be_interrupted);
	signal(SIGALRM, be_interrupted);
	signal(SIGPIPE, SIG_IGN);
	other.waits = gettid();
	sem_init(&other.begin, 0, 0);
	sem_init(&other.end, 0, 0);
	pthread_create(&other.thread, NULL, be_the_other, NULL);
}

static int test(struct side *side, int argc, char **argv)
{
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = CALL };
	struct long_run run = long_run(argc, argv, 5);
	bool all = true;

	page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || mprotect((char *)page + 4096, 4096, PROT_NONE))
		die("mmap", errno);
	introduce_receiver(side, RPAL_ROLE_RECEIVER);
	MUST(rpal_call_event(&call));
	start_other();
	for (uint64_t i = 0;
	     (goes_on_after(&run, rounds) || rounds < LEAST) && differences < REPORTED; i++)
		try_once(side, random_stream(run.seed, i));

	ok(!differences, "%llu rounds: rpal_epoll_wait was %llu times not as epoll_wait",
	   (unsigned long long)rounds, (unsigned long long)differences);
	printf("# %llu events, %llu timeouts, %llu waits for another thread, %llu interrupted\n",
	       (unsigned long long)events, (unsigned long long)timeouts,
	       (unsigned long long)slept, (unsigned long long)interrupted);
	for (int i = 0; i < WHATS; i++)
		all &= results[i] > 0;
	ok(all && events && refused && timeouts && slept && interrupted,
	   "every operation and every kind of result was among them (%llu errors)",
	   (unsigned long long)refused);
	ok(served && !answered_wrong, "of %llu calls meanwhile none was wrong",
	   (unsigned long long)served);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, caller, test);
}
