/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A receiver waits for calls and for kernel events at once, and they race: no
 * event is lost and no call. One that is lost shows as a wait for ever.
 *
 * And a receiver that waits uses no CPU.
 */
#include "event_sources.h"
#include "kernel_log.h"
#include "shared_memory.h"
#include <sys/personality.h>

#define CALLERS 2

struct board {
	struct event_sources sources;
	uint64_t calls[CALLERS], timeouts;
	uint64_t wrong, early;
};

static struct board *board;
static int board_fd;

static void map_board(int fd)
{
	board_fd = fd;
	board = map_shared(fd, sizeof(*board));
}

/* What a call asks for. */
enum { SHORT, SYSTEM_CALL, TIMEOUT };

static void answer(struct rpal_message *m, double *timeout)
{
	switch (m->word[0]) {
	case SYSTEM_CALL:
		getppid();
		break;
	case TIMEOUT: /* Of the next wait. */
		*timeout = 0.001;
		break;
	}
	m->word[1] = m->word[2] ^ 0x5555;
	rpal_reply(0, m);
}

/* --server SOCKET BOARD */
static void server(char **argv)
{
	struct side side = become_peers(atoi(argv[2]));
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 }, events[4];
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	double timeout = -1;

	map_board(atoi(argv[3]));
	introduce_receiver(&side, RPAL_ROLE_RECEIVER);
	MUST(rpal_call_event(&call));
	listen_to_all(epfd, &board->sources);
	for (;;) {
		double begin = timeout < 0 ? 0 : now_seconds();
		int n = rpal_epoll_wait(epfd, events, 4, timeout < 0 ? -1 : 1);

		if (n < 0)
			die("rpal_epoll_wait", errno);
		if (!n) {
			board->timeouts++;
			board->early += timeout < 0 || now_seconds() < begin + timeout;
		}
		timeout = -1;
		for (int i = 0; i < n; i++) {
			struct rpal_message m;

			if (see_event(epfd, &board->sources, &events[i]))
				continue;
			if (rpal_take(&m, NULL) != 1)
				die("an event that is none", EPROTO);
			answer(&m, &timeout);
		}
	}
}

struct caller {
	struct rpal_target target;
	int index;
	struct random random;
};

static void call_on(struct caller *caller)
{
	for (uint64_t i = 0; !board->sources.stop; i++) {
		uint64_t chance = random_below(&caller->random, 200);
		/* Without hand-backs for some time: they wake up the receiver, too. */
		bool hand_back = chance < 10 && i / 4000 % 2;
		struct rpal_message m = {
			{ chance == 0 ? TIMEOUT : hand_back ? SYSTEM_CALL : SHORT, 0, i },
		};

		if (rpal_call(&caller->target, &m, UNNOTICED * 1000) || m.word[1] != (i ^ 0x5555))
			board->wrong++;
		board->calls[caller->index]++;
		/* Let it be parked for a moment, or two. */
		if (chance < 100)
			for (volatile uint64_t j = random_below(&caller->random, 500); j > 0; j--)
				;
		else if (chance < 104)
			usleep(random_below(&caller->random, 300));
	}
}

static void *call_in_thread(void *caller)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	call_on(caller);
	return NULL;
}

/* --client SOCKET BOARD SEED */
static int client(char **argv)
{
	struct caller callers[CALLERS];
	pthread_t threads[CALLERS];
	struct side side = become_peers(atoi(argv[2]));

	map_board(atoi(argv[3]));
	meet_receiver(&side);
	for (int i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller){
			.target = side.target,
			.index = i,
			.random = random_stream(strtoull(argv[4], NULL, 10), i),
		};
		if (i)
			pthread_create(&threads[i], NULL, call_in_thread, &callers[i]);
	}
	call_on(&callers[0]);
	for (int i = 1; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

/* CPU time of a process, in ticks of 10 ms. */
static long ticks_of(pid_t pid)
{
	char path[64], line[512] = "";
	unsigned long user = 0, system = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file || !fgets(line, sizeof(line), file))
		die(path, errno);
	fclose(file);
	if (sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		   &user, &system) != 2)
		die(path, EINVAL);
	return user + system;
}

static pid_t start(char *role, int socket, char *seed)
{
	char text[16];
	char *args[] = { text, seed };

	snprintf(text, sizeof(text), "%d", board_fd);
	return start_service(role, socket, 2, args);
}

int main(int argc, char **argv)
{
	struct raiser raisers[SOURCES];
	int sockets[2], log, status;
	struct long_run run;
	char seed[24];
	pid_t pids[2];
	uint64_t seen, calls;
	long before;

	if (argc == 5 && !strcmp(argv[1], "--server"))
		server(argv);
	if (argc == 5 && !strcmp(argv[1], "--client"))
		return client(argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	run = long_run(argc, argv, 5);
	log = kernel_log_from_now();
	board_fd = shared_memory(sizeof(*board));
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		die("socketpair", errno);
	map_board(board_fd);
	make_sources(&board->sources);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)run.seed);
	pids[0] = start("--server", sockets[0], seed);
	pids[1] = start("--client", sockets[1], seed);
	close(sockets[0]);
	close(sockets[1]);
	while (!board->calls[0])
		usleep(1000);
	start_raisers(raisers, &board->sources, run.seed);
	run.until = now_seconds() + run.seconds;
	while (goes_on_after(&run, board->calls[0] + board->calls[1]) && !board->sources.unnoticed)
		usleep(10000);
	seen = end_raisers(raisers, &board->sources);
	waitpid(pids[1], &status, 0);
	calls = board->calls[0] + board->calls[1];
	ok(calls && !status && !board->wrong, "%llu calls, %llu were wrong",
	   (unsigned long long)calls, (unsigned long long)board->wrong);
	printf("# %llu rounds\n", (unsigned long long)(seen + calls));
	ok(!board->early, "%llu waits had a timeout, %llu were too short",
	   (unsigned long long)board->timeouts, (unsigned long long)board->early);

	usleep(100000);
	before = ticks_of(pids[0]);
	sleep(2);
	ok(ticks_of(pids[0]) <= before + 1, "a receiver that waits uses no CPU");
	printf("# %ld ticks before, %ld in two seconds\n", before, ticks_of(pids[0]) - before);
	kill(pids[0], SIGKILL);
	waitpid(pids[0], NULL, 0);
	kernel_log_is_quiet(log);
	return done();
}
