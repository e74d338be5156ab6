/* guest: cpus=1,2 debug timeout=180 */
// SPDX-License-Identifier: MIT
/*
 * A mixed load for as long as one likes: calls that stay in user mode and calls
 * that are handed back, kernel events, clients that come and go, forks on both
 * sides. What the kernel needs for it does not grow: the last third of the time
 * is compared with the first.
 */
#include "bystanders.h"
#include "event_sources.h"
#include "free_again.h"
#include "kernel_log.h"
#include "meet_clients.h"
#include "memory.h"
#include "shared_memory.h"
#include <sys/personality.h>

#define CLIENTS 3
#define CALLS	1000 /* of a client; then it ends, and another one comes */

/* What may differ between the first and the last third, on average, KiB. */
#define SLAB_NOISE   1024
#define MEMORY_NOISE 6144

struct board {
	struct event_sources sources;
	uint64_t calls, handed_back, wrong, forks, clients;
};

static struct board *board;
static int board_fd;

static void map_board(int fd)
{
	board_fd = fd;
	board = map_shared(fd, sizeof(*board));
}

static void add(uint64_t *counter, uint64_t value)
{
	__atomic_add_fetch(counter, value, __ATOMIC_RELAXED);
}

static void fork_once(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	add(&board->forks, pid > 0);
}

/* ---- Server and clients ------------------------------------------------------- */

enum { SHORT, SYSTEM_CALL, SLEEP, FORK };

static void answer(struct rpal_message *m)
{
	switch (m->word[0]) {
	case SYSTEM_CALL:
		getppid();
		break;
	case SLEEP:
		usleep(100);
		break;
	case FORK:
		fork_once();
		break;
	}
	m->word[1] = ~m->word[2];
	rpal_reply(0, m);
}

/* --server ORDERS BOARD */
static void server(char **argv)
{
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 }, events[4];
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	map_board(atoi(argv[3]));
	signal(SIGCHLD, SIG_IGN);
	become_receiver_of_all(atoi(argv[2]));
	MUST(rpal_call_event(&call));
	listen_to_all(epfd, &board->sources);
	for (;;) {
		int n = rpal_epoll_wait(epfd, events, 4, -1);

		for (int i = 0; i < n; i++) {
			struct rpal_message m;

			if (!see_event(epfd, &board->sources, &events[i]) &&
			    rpal_take(&m, NULL) == 1)
				answer(&m);
		}
	}
}

/* --client SOCKET BOARD SEED */
static int client(char **argv)
{
	struct random random = random_stream(strtoull(argv[4], NULL, 10), 0);
	struct side side = become_peers(atoi(argv[2]));
	struct rpal_counters counters;

	map_board(atoi(argv[3]));
	signal(SIGCHLD, SIG_IGN);
	meet_receiver(&side);
	for (uint64_t i = 0; i < CALLS; i++) {
		uint64_t chance = random_below(&random, 500);
		struct rpal_message m = {
			{ chance < 2	? FORK :
			  chance < 5	? SLEEP :
			  chance < 25	? SYSTEM_CALL :
					  SHORT,
			  0, i },
		};

		if (rpal_call(&side.target, &m, -1) || m.word[1] != ~i)
			add(&board->wrong, 1);
		if (chance == 100)
			fork_once();
	}
	rpal_counters(&counters);
	add(&board->calls, counters.calls);
	add(&board->handed_back, counters.handed_back);
	/* Some take their leave, the others just end. */
	if (one_in(&random, 2)) {
		rpal_detach();
		rpal_peer_release(side.peer.id);
	}
	return 0;
}

/* ---- The test ------------------------------------------------------------ */

struct sample {
	long memory, slab; /* KiB: free, used */
	int tasks;
};

static struct sample take_sample(bool first)
{
	struct sample sample = {
		.memory = first ? free_memory() : free_now(),
		.tasks = count_tasks(),
	};
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "SUnreclaim: %ld", &sample.slab);
	if (file)
		fclose(file);
	return sample;
}

#define SAMPLES	   1000
#define FEW_SAMPLES 3 /* are needed to compare thirds */

struct history {
	struct sample samples[SAMPLES];
	int count;
};

/* The averages of the first or last third. */
static struct sample average(const struct history *history, bool last)
{
	int third = history->count / 3, from = last ? history->count - third : 0;
	struct sample sum = {};

	for (int i = from; i < from + third; i++) {
		sum.memory += history->samples[i].memory;
		sum.slab += history->samples[i].slab;
		sum.tasks += history->samples[i].tasks;
	}
	return (struct sample){ sum.memory / third, sum.slab / third, sum.tasks / third };
}

static void check_flat(const struct history *history)
{
	struct sample first, last;

	if (!ok(history->count >= FEW_SAMPLES, "%d samples", history->count))
		return;
	first = average(history, false);
	last = average(history, true);
	ok(last.slab - first.slab < SLAB_NOISE, "slabs are flat: %ld KiB, then %ld KiB",
	   first.slab, last.slab);
	if (!ok(first.memory - last.memory < MEMORY_NOISE,
		"free memory is flat: %ld KiB, then %ld KiB", first.memory, last.memory))
		print_memory_use();
	ok(last.tasks <= first.tasks + 2, "so are tasks: %d, then %d", first.tasks, last.tasks);
}

static pid_t start_role(char *role, int socket, uint64_t seed)
{
	char text[3][24];
	char *args[] = { "soak", role, text[0], text[1], text[2], NULL };
	int mine = dup(socket);
	pid_t pid;

	snprintf(text[0], sizeof(text[0]), "%d", mine);
	snprintf(text[1], sizeof(text[1]), "%d", board_fd);
	snprintf(text[2], sizeof(text[2]), "%llu", (unsigned long long)seed);
	pid = start_as(true, USER, args);
	close(mine);
	return pid;
}

static pid_t start_client(int orders, uint64_t seed)
{
	int sockets[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	send_socket(orders, sockets[0]);
	pid = start_role("--client", sockets[1], seed);
	close(sockets[0]);
	close(sockets[1]);
	board->clients++;
	return pid;
}

/* Every client that has ended well is replaced by another one. */
static void soak(struct long_run *run, int orders, pid_t clients[CLIENTS],
		 struct history *history)
{
	double pause = run->seconds / 30 > 3 ? run->seconds / 30 : run->seconds / 9;
	struct random random = random_stream(run->seed, 1);
	double next = now_seconds() + pause;

	/* On a slow machine one sample alone may take seconds. */
	while ((goes_on_after(run, board->calls) || history->count < FEW_SAMPLES) &&
	       !board->wrong && !board->sources.unnoticed) {
		int status;
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid <= 0)
			usleep(2000);
		for (int i = 0; pid > 0 && i < CLIENTS; i++) {
			if (clients[i] != pid)
				continue;
			board->wrong += status != 0;
			clients[i] = start_client(orders, random_word(&random));
		}
		if (now_seconds() > next && history->count < SAMPLES) {
			struct sample sample = take_sample(!history->count);

			history->samples[history->count++] = sample;
			next = now_seconds() + pause;
		}
	}
}

int main(int argc, char **argv)
{
	static struct history history, warm_up_history;
	struct raiser raisers[SOURCES];
	int sockets[2], log, tasks;
	struct long_run run, warm_up;
	pid_t pid, clients[CLIENTS];

	RUN_IDLE_SERVICE(argc, argv);
	if (argc == 5 && !strcmp(argv[1], "--server"))
		server(argv);
	if (argc == 5 && !strcmp(argv[1], "--client"))
		return client(argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	run = long_run(argc, argv, 6);
	log = kernel_log_from_now();
	tasks = count_tasks();
	board_fd = shared_memory(sizeof(*board));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	map_board(board_fd);
	make_sources(&board->sources);
	pid = start_role("--server", sockets[0], 0);
	close(sockets[0]);
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = start_client(sockets[1], i);
	start_raisers(raisers, &board->sources, run.seed);
	/* What the kernel needs once and keeps is no growth. */
	warm_up = run;
	warm_up.until = now_seconds() + (run.seconds > 60 ? 20 : 2);
	warm_up_history.count = FEW_SAMPLES;
	soak(&warm_up, sockets[1], clients, &warm_up_history);
	run.until = now_seconds() + run.seconds;
	soak(&run, sockets[1], clients, &history);

	for (int i = 0; i < CLIENTS; i++) {
		int status;

		waitpid(clients[i], &status, 0);
		board->wrong += status != 0;
	}
	end_raisers(raisers, &board->sources);
	ok(board->calls && board->handed_back && board->forks && !board->wrong,
	   "%llu clients made %llu calls, of which %llu were handed back, and there were %llu "
	   "forks; %llu times something was wrong",
	   (unsigned long long)board->clients, (unsigned long long)board->calls,
	   (unsigned long long)board->handed_back, (unsigned long long)board->forks,
	   (unsigned long long)board->wrong);
	check_flat(&history);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(sockets[1]);
	tasks_are_gone(tasks);
	ids_are_free(PKEYS);
	kernel_log_is_quiet(log);
	return done();
}
