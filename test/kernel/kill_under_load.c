/* guest: cpus=1,2 debug timeout=300 */
// SPDX-License-Identifier: MIT
/*
 * SIGKILL of either side at random moments under load. The side that lives
 * goes on: a client gets answers and then -EOWNERDEAD, a server serves the next
 * client, and no call gives a wrong answer.
 */
#include "two_services.h"
#include "kernel_log.h"
#include "kasan.h"
#include "memory.h"
#include <pthread.h>
#include <sys/personality.h>
#include <time.h>

/* Of each side. */
#define ROUNDS 1000

static int handle(struct rpal_message *m)
{
	if (m->word[0])
		getppid();
	m->word[0] = m->word[1] + m->word[2];
	return 0;
}

/* Calls until one fails. 0: only -EOWNERDEAD ended it. */
static int call_until_dead(struct side *side, long *calls)
{
	for (uint64_t i = 0;; i++) {
		struct rpal_message m = { { i % 64 == 0, i, 3 * i } };
		int ret = rpal_call(&side->target, &m, -1);

		if (ret)
			return ret == -EOWNERDEAD ? 0 : ret;
		if (m.word[0] != 4 * i)
			return -EBADMSG;
		++*calls;
	}
}

static unsigned int seed = 12345;

static long random_below(long limit)
{
	return rand_r(&seed) % limit;
}

/* Kills @pid after up to 3 ms. Not attached: an ordinary thread. */
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

static void kill_servers(int rounds)
{
	long calls = 0, wrong = 0;

	for (int i = 0; i < rounds; i++) {
		struct killer killer;
		struct side side;
		int error;

		side = start_peer("--own-server", 0, NULL, &killer.pid);
		meet_receiver(&side);
		killer.ns = random_below(3000000);
		pthread_create(&killer.thread, NULL, kill_later, &killer);
		error = call_until_dead(&side, &calls);
		pthread_join(killer.thread, NULL);
		waitpid(killer.pid, NULL, 0);
		if (error && !wrong++)
			printf("# round %d: %s\n", i, strerror(-error));
		close(side.socket);
	}
	ok(!wrong, "%d servers killed, %ld calls, %ld wrong", rounds, calls, wrong);
}

/*
 * A server that stays is asked by clients that are killed one after the other,
 * and by us in between.
 */
static void kill_clients(struct side *us, int rounds)
{
	long wrong = 0, calls = 0;

	for (int i = 0; i < rounds; i++) {
		struct timespec ns = { .tv_nsec = random_below(3000000) };
		struct rpal_message m = { { i & 1, i, i } };
		pid_t pid;
		int ret;

		/* The server starts it: its next client. */
		m.word[0] = 0;
		tell(us->socket, "n", 1);
		hear(us->socket, &pid, sizeof(pid));
		nanosleep(&ns, NULL);
		kill(pid, SIGKILL);

		m = (struct rpal_message){ { i & 1, i, i } };
		ret = rpal_call(&us->target, &m, 5000);
		calls++;
		if ((ret || m.word[0] != 2 * (uint64_t)i) && !wrong++)
			printf("# round %d: %s\n", i, strerror(-ret));
	}
	ok(!wrong, "%d clients killed, the server lives, %ld wrong", rounds, wrong);
}

static uint32_t receiver_tid;

/* In the server: starts clients when asked for it. */
static void *start_clients(void *arg)
{
	struct side *us = arg;
	char byte;

	signal(SIGCHLD, SIG_IGN);
	while (read(us->socket, &byte, 1) == 1) {
		struct side side;
		pid_t pid;

		side = start_peer("--own-client", 0, NULL, &pid);
		tell(side.socket, &receiver_tid, sizeof(receiver_tid));
		/* It has called once. */
		hear(side.socket, &byte, 1);
		close(side.socket);
		tell(us->socket, &pid, sizeof(pid));
	}
	return NULL;
}

static void server(struct side *side, int argc, char **argv)
{
	sigset_t all;
	pthread_t thread;

	receiver_tid = rpal_tid();
	sigfillset(&all);
	pthread_create(&thread, NULL, start_clients, side);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	serve_calls(handle);
}

static int client(struct side *side, int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : rounds_here(ROUNDS);
	int log = kernel_log_from_now();
	long before;

	kill_servers(50);
	kill_clients(side, 50);
	before = free_memory();
	kill_servers(rounds);
	kill_clients(side, rounds);
	memory_is_back(before, 2 * rounds, "services that were killed");
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;
	long calls = 0;

	if (argc > 2 && !strcmp(argv[1], "--own-server")) {
		side = become_peers(atoi(argv[2]));
		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		serve_calls(handle);
	}
	if (argc > 2 && !strcmp(argv[1], "--own-client")) {
		struct rpal_message m = { { 0, 1, 1 } };

		side = become_peers(atoi(argv[2]));
		meet_receiver(&side);
		MUST(rpal_call(&side.target, &m, -1));
		tell(side.socket, "c", 1);
		return call_until_dead(&side, &calls);
	}
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	return two_services(argc, argv, server, client);
}
