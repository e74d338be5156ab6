/* guest: cpus=1,2 debug timeout=300 */
// SPDX-License-Identifier: MIT
/*
 * SIGKILL of the process at either end of a queue at random moments under load.
 * The one that lives goes on: a writer puts words and then gets -EOWNERDEAD, a
 * reader gets the words that were put, whole puts only, and serves the next
 * writer. Nothing is left over.
 */
#include "queue_pair.h"
#include "kasan.h"
#include "kernel_log.h"
#include "memory.h"
#include <pthread.h>
#include <sys/personality.h>
#include <time.h>

#define ROUNDS 300

static unsigned int seed = 4711;

/* Kills @pid after up to 4 ms. Not attached: an ordinary thread. */
struct killer {
	pthread_t thread;
	pid_t pid;
	long ns;
};

static void *kill_later(void *arg)
{
	struct killer *killer = arg;
	struct timespec ns = { .tv_nsec = killer->ns };

	nanosleep(&ns, NULL);
	kill(killer->pid, SIGKILL);
	return NULL;
}

static void kill_soon(struct killer *killer)
{
	killer->ns = rand_r(&seed) % 4000000;
	pthread_create(&killer->thread, NULL, kill_later, killer);
}

/* Word @i of put @number with @n words: says all of that. */
static uint64_t word_of(uint64_t number, unsigned int n, unsigned int i)
{
	return number << 16 | n << 8 | i;
}

/* Checks words as they come. */
struct reader {
	uint64_t number; /* of the put that comes next, or is under way */
	unsigned int n, i;
	long words, wrong;
};

static void check(struct reader *r, const uint64_t *words, int count)
{
	for (int k = 0; k < count; k++) {
		unsigned int n = words[k] >> 8 & 0xff;

		if (!r->i)
			r->n = n;
		r->wrong += n != r->n || words[k] != word_of(r->number, r->n, r->i);
		if (++r->i == r->n) {
			r->i = 0;
			r->number++;
		}
	}
	r->words += count;
}

static int put_next(struct rpal_writer *writer, uint64_t *number)
{
	unsigned int n = 1 + rand_r(&seed) % RPAL_PUT_WORDS;
	uint64_t words[RPAL_PUT_WORDS];
	int ret;

	for (unsigned int i = 0; i < n; i++)
		words[i] = word_of(*number, n, i);
	ret = rpal_queue_put(writer, words, n);
	if (ret > 0)
		++*number;
	return ret;
}

/*
 * Puts, and waits for room by EPOLLRPALOUT when there is none, until the peer is
 * dead. 0: that was all.
 */
static int put_until_dead(struct rpal_writer *writer, int epfd, long *puts)
{
	struct epoll_event event;
	uint64_t number = 0;
	int ret = 0;

	while (ret >= 0) {
		ret = put_next(writer, &number);
		if (ret != -EAGAIN)
			continue;
		/* EPOLLHUP, if the peer is killed now. */
		if (rpal_epoll_wait(epfd, &event, 1, -1) != 1)
			ret = -errno;
		else
			ret = event.events & EPOLLHUP ? -EOWNERDEAD : 0;
	}
	*puts += number;
	return ret == -EOWNERDEAD ? 0 : ret;
}

/* Takes what comes until the other side has gone. */
static void take_until_dead(int socket, int epfd, unsigned int take, struct reader *r)
{
	bool gone = false;

	for (;;) {
		uint64_t words[RPAL_QUEUE_WORDS];
		struct epoll_event events[4];
		int n = gone ? 0 : rpal_epoll_wait(epfd, events, 4, -1);

		if (n < 0 && errno != EINTR)
			die("rpal_epoll_wait", errno);
		for (int i = 0; i < n; i++)
			gone |= !!(events[i].events & EPOLLHUP);
		n = rpal_queue_take(socket, words, take);
		check(r, words, MUST(n));
		/* Some of the time the handler needs its own task. */
		if (!(r->words & 7))
			getppid();
		if (gone && !n)
			return;
	}
}

static void kill_readers(int epfd, int rounds)
{
	long puts = 0, wrong = 0;

	for (int i = 0; i < rounds; i++) {
		struct killer killer;
		struct side side = start_peer("--reader", 0, NULL, &killer.pid);
		struct rpal_writer *writer;
		int ret;

		MUST(watch(epfd, EPOLL_CTL_ADD, side.socket, EPOLLRPALOUT));
		writer = open_writer(&side.peer, side.socket);
		kill_soon(&killer);
		ret = put_until_dead(writer, epfd, &puts);
		pthread_join(killer.thread, NULL);
		waitpid(killer.pid, NULL, 0);
		if (ret && !wrong++)
			printf("# round %d: %s\n", i, strerror(-ret));
		rpal_writer_close(writer);
		watch(epfd, EPOLL_CTL_DEL, side.socket, 0);
		rpal_peer_release(side.peer.id);
		close(side.socket);
	}
	ok(!wrong, "%d readers killed, after %ld puts, %ld wrong", rounds, puts, wrong);
}

static void kill_writers(int epfd, int rounds)
{
	long words = 0, wrong = 0;

	for (int i = 0; i < rounds; i++) {
		struct reader reader = {};
		struct killer killer;
		struct side side = start_peer("--writer", 0, NULL, &killer.pid);

		MUST(watch(epfd, EPOLL_CTL_ADD, side.socket, EPOLLIN | EPOLLRPALIN));
		kill_soon(&killer);
		take_until_dead(side.socket, epfd, 1 + i % RPAL_QUEUE_WORDS, &reader);
		pthread_join(killer.thread, NULL);
		waitpid(killer.pid, NULL, 0);
		/* A put that was not finished is not there. */
		if ((reader.wrong || reader.i) && !wrong++)
			printf("# round %d: %ld wrong, %u words of %u\n", i, reader.wrong,
			       reader.i, reader.n);
		words += reader.words;
		watch(epfd, EPOLL_CTL_DEL, side.socket, 0);
		rpal_peer_release(side.peer.id);
		close(side.socket);
	}
	ok(!wrong, "%d writers killed, after %ld words, %ld wrong", rounds, words, wrong);
}

static int test(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : rounds_here(ROUNDS), log = kernel_log_from_now();
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	long before;

	setvbuf(stdout, NULL, _IOLBF, 0);
	enable_queues();
	MUST(rpal_attach(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER));
	kill_readers(epfd, 30);
	kill_writers(epfd, 30);
	before = free_memory();
	kill_readers(epfd, rounds);
	kill_writers(epfd, rounds);
	memory_is_back(before, 2 * rounds, "processes that were killed");
	kernel_log_is_quiet(log);
	return done();
}

static int victim(const char *role, int socket)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct reader reader = {};
	struct side side;
	long puts = 0;

	enable_queues();
	side = become_peers(socket);
	MUST(rpal_attach(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER));
	seed = getpid();
	if (!strcmp(role, "--reader")) {
		MUST(watch(epfd, EPOLL_CTL_ADD, socket, EPOLLIN | EPOLLRPALIN));
		take_until_dead(socket, epfd, 1 + seed % RPAL_QUEUE_WORDS, &reader);
		return reader.wrong != 0;
	}
	MUST(watch(epfd, EPOLL_CTL_ADD, socket, EPOLLRPALOUT));
	return put_until_dead(open_writer(&side.peer, socket), epfd, &puts);
}

int main(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc > 2 && (!strcmp(argv[1], "--reader") || !strcmp(argv[1], "--writer")))
		return victim(argv[1], atoi(argv[2]));
	if (argc > 2 && !strcmp(argv[1], "--test"))
		return test(argc - 2, argv + 2);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	pid = start_service("--test", 0, argc - 1, argv + 1);
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("Bail out! the test died of signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}
