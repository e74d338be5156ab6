/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Chaos: servers and clients under load are killed, crash, are stopped,
 * signalled, traced, fork and execute something else, at random moments, for as
 * long as one likes.
 *
 * Every call that comes back has the right answer, or says that the server is
 * dead, and then it is. Whoever was not killed goes on. Afterwards all is free.
 */
#include "bystanders.h"
#include "free_again.h"
#include "kernel_log.h"
#include "long_run.h"
#include "meet_clients.h"
#include "memory.h"
#include "random.h"
#include "shared_memory.h"
#include <pthread.h>
#include <sys/personality.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define PAIRS	 2
#define PATIENCE 60 /* seconds without a call by a pair that should call */

/* What is done to a server (S) and its client (C). */
enum action {
	KILL_S,
	KILL_C,
	CRASH_S, /* in a handler, maybe on the client's task */
	CRASH_C,
	STOP_S,
	STOP_C,
	SIGNAL_S,
	SIGNAL_C,
	TRACE_S,
	TRACE_C,
	FORK_S,
	FORK_C,
	EXEC_C,
	ACTIONS
};

static const char *const action_names[] = {
	"kill server",	 "kill client",	  "crash server", "crash client", "stop server",
	"stop client",	 "signal server", "signal client", "trace server", "trace client",
	"fork server",	 "fork client",	  "exec client",
};

struct pair_board {
	uint64_t calls;
	bool server_ends;  /* the test has killed it, or soon will */
	bool crash_server; /* the client is to ask for it */
	bool crash_client;
	bool traced[2]; /* has the server been, the client? */
};

struct board {
	struct pair_board pairs[PAIRS];
	uint64_t handled, dead, wrong;
	char what[120]; /* was wrong at first */
};

static struct board *board;
static int board_fd;

static void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

__attribute__((format(printf, 1, 2))) static void is_wrong(const char *format, ...)
{
	va_list args;

	if (__atomic_add_fetch(&board->wrong, 1, __ATOMIC_RELAXED) > 1)
		return;
	va_start(args, format);
	vsnprintf(board->what, sizeof(board->what), format, args);
	va_end(args);
}

static struct pair_board *map_board(int fd, int index)
{
	board_fd = fd;
	board = map_shared(fd, sizeof(*board));
	return &board->pairs[index];
}

/* ---- Server and client ------------------------------------------------------ */

enum { SHORT, SYSTEM_CALL, SLEEP, LONG, CRASH };

static const bool *is_traced; /* this process, ever */

static void on_signal(int signal)
{
	/*
	 * A step ends in SIGTRAP. The tracer may have gone before it took that;
	 * but only who was traced can have stepped.
	 */
	if (signal == SIGTRAP && !*is_traced)
		is_wrong("%d was not traced and got a SIGTRAP", getpid());
	if (signal == SIGUSR2 && !fork())
		_exit(0);
	if (signal == SIGHUP) {
		execl("/proc/self/exe", "chaos", "--nothing", NULL);
		_exit(90);
	}
}

static void handle_signals(void)
{
	static const int signals[] = { SIGUSR1, SIGUSR2, SIGHUP, SIGTRAP };
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	for (int i = 0; i < 4; i++)
		sigaction(signals[i], &action, NULL);
	signal(SIGCHLD, SIG_IGN);
}

static pid_t server_pid;

static int handle(struct rpal_message *m)
{
	switch (m->word[0]) {
	case SYSTEM_CALL:
		if (getpid() != server_pid || gettid() != server_pid)
			is_wrong("a handler of %d ran as %d", server_pid, getpid());
		break;
	case SLEEP:
		usleep(200);
		break;
	case LONG: /* Than a loan may be. */
		for (double until = now_seconds() + 0.015; now_seconds() < until;)
			;
		break;
	case CRASH:
		asm volatile("movl $0, (%0)" : : "r"(8UL) : "memory");
		break;
	}
	m->word[0] = m->word[1] * 3 + m->word[2];
	m->word[5] = ~m->word[5];
	count(&board->handled);
	return 0;
}

static void serve_by_epoll(void)
{
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 }, event;
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct rpal_message m;

	MUST(rpal_call_event(&call));
	for (;;) {
		int n = rpal_epoll_wait(epfd, &event, 1, 20);

		if (n < 0 && errno != EINTR)
			die("rpal_epoll_wait", errno);
		if (n == 1 && rpal_take(&m, NULL) == 1)
			rpal_reply(handle(&m), &m);
	}
}

/* --server ORDERS BOARD PAIR EPOLL */
static int server(char **argv)
{
	is_traced = &map_board(atoi(argv[3]), atoi(argv[4]))->traced[0];
	server_pid = getpid();
	handle_signals();
	become_receiver_of_all(atoi(argv[2]));
	if (atoi(argv[5]))
		serve_by_epoll();
	serve_calls(handle);
	return 0;
}

struct caller {
	struct side side;
	struct pair_board *board;
	uint64_t stream;
};

static int kind_of_call(struct random *random)
{
	uint64_t number = random_below(random, 1000);

	return number < 940 ? SHORT : number < 985 ? SYSTEM_CALL : number < 999 ? SLEEP : LONG;
}

static void call_on(struct caller *caller)
{
	struct random random = random_stream(getpid(), caller->stream);
	struct pair_board *pair = caller->board;

	for (uint64_t i = 0;; i++) {
		struct rpal_message m = { { kind_of_call(&random), i, 7, 0, i, i ^ 0x77 } };
		int ret;

		if (pair->crash_server)
			m.word[0] = CRASH;
		if (pair->crash_client)
			asm volatile("movl $0, (%0)" : : "r"(8UL) : "memory");
		ret = rpal_call(&caller->side.target, &m, -1);
		if (ret == -EOWNERDEAD && pair->server_ends) {
			count(&board->dead);
			_exit(0);
		}
		if (ret) {
			is_wrong("a call returned %d, the server %s", ret,
				 pair->server_ends ? "ends" : "lives");
			_exit(1);
		}
		if (m.word[0] != i * 3 + 7 || m.word[4] != i || m.word[5] != ~(i ^ 0x77))
			is_wrong("call %llu was answered by %llx %llx %llx",
				 (unsigned long long)i, m.word[0], m.word[4], m.word[5]);
		count(&pair->calls);
	}
}

static void *call_in_thread(void *arg)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	call_on(arg);
	return NULL;
}

/*
 * --client SOCKET BOARD PAIR. The server can be killed before it is a peer:
 * what goes wrong then is none of this test's concern.
 */
static int client(char **argv)
{
	struct caller callers[2];
	pthread_t thread;

	callers[0].board = map_board(atoi(argv[3]), atoi(argv[4]));
	is_traced = &callers[0].board->traced[1];
	handle_signals();
	callers[0].side = become_peers(atoi(argv[2]));
	meet_receiver(&callers[0].side);
	callers[1] = callers[0];
	callers[0].stream = 0;
	callers[1].stream = 1;
	pthread_create(&thread, NULL, call_in_thread, &callers[1]);
	call_on(&callers[0]);
	return 0;
}

/* ---- The test ------------------------------------------------------------ */

struct pair {
	pid_t server, client;
	int orders;
	struct pair_board *board;
	uint64_t calls;	 /* when it was looked at last */
	double call_time; /* when there was a new one last */
};

static pid_t start_role(char *role, int socket, int index, bool epoll)
{
	char text[4][16];
	char *args[] = { "chaos", role, text[0], text[1], text[2], text[3], NULL };
	int mine = dup(socket);
	pid_t pid;

	snprintf(text[0], sizeof(text[0]), "%d", mine);
	snprintf(text[1], sizeof(text[1]), "%d", board_fd);
	snprintf(text[2], sizeof(text[2]), "%d", index);
	snprintf(text[3], sizeof(text[3]), "%d", epoll);
	pid = start_as(true, USER, args);
	close(mine);
	return pid;
}

/* Until it calls: before that there is nothing to disturb. */
static void wait_for_call(struct pair *pair)
{
	double until = now_seconds() + PATIENCE;
	uint64_t before = pair->board->calls;

	while (pair->board->calls == before && !board->wrong) {
		if (now_seconds() > until) {
			is_wrong("a pair has stopped calling");
			bail_out("no call for a minute");
		}
		usleep(200);
	}
}

static void start_client(struct pair *pair, int index)
{
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	pair->board->crash_client = false;
	pair->board->traced[1] = false;
	if (!send_socket(pair->orders, sockets[0]))
		is_wrong("a server is not there any more: %s", strerror(errno));
	pair->client = start_role("--client", sockets[1], index, false);
	close(sockets[0]);
	close(sockets[1]);
	wait_for_call(pair);
}

static void start_pair(struct pair *pair, int index, bool epoll)
{
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	pair->board->server_ends = false;
	pair->board->crash_server = false;
	pair->board->traced[0] = false;
	pair->server = start_role("--server", sockets[0], index, epoll);
	pair->orders = sockets[1];
	close(sockets[0]);
	start_client(pair, index);
}

/* @expected: of waitpid(). */
static void must_end(pid_t pid, int expected, const char *who)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status != expected)
		is_wrong("%s ended with %x", who, status);
}

static void end_pair(struct pair *pair, int how)
{
	must_end(pair->server, how, "the server");
	/* Nobody told it but its calls. */
	must_end(pair->client, 0, "its client");
	close(pair->orders);
}

static void pause_at_random(struct random *random, long most_us)
{
	struct timespec ns = { .tv_nsec = random_below(random, most_us * 1000) };

	nanosleep(&ns, NULL);
}

/* The next stop of what is traced. After a step that takes long, it is asked to stop. */
static int wait_for_stop(pid_t pid)
{
	int status;

	for (int i = 0; i < 20; i++) {
		if (waitpid(pid, &status, __WALL | WNOHANG) == pid)
			return status;
		usleep(100);
	}
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	return waitpid(pid, &status, __WALL) == pid ? status : -1;
}

/*
 * Stops, looks, steps, goes. The signals that it gets meanwhile arrive. Returns
 * how often it has stopped.
 */
static int trace(struct random *random, pid_t pid)
{
	int signal = 0, status, steps = random_below(random, one_in(random, 4) ? 300 : 6);

	if (ptrace(PTRACE_SEIZE, pid, 0, 0)) {
		is_wrong("PTRACE_SEIZE: %s", strerror(errno));
		return 0;
	}
	pause_at_random(random, 500);
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	for (int i = 0; i <= steps; i++) {
		unsigned long registers[32];
		struct iovec iov = { registers, sizeof(registers) };

		status = wait_for_stop(pid);
		if (!WIFSTOPPED(status)) {
			is_wrong("a traced process ended with %x", status);
			return i;
		}
		/* Stops of the tracer's own making are no signals. */
		signal = status >> 16 || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
		ptrace(PTRACE_GETREGSET, pid, 1 /* NT_PRSTATUS */, &iov);
		if (i < steps)
			ptrace(one_in(random, 20) ? PTRACE_SYSCALL : PTRACE_SINGLESTEP, pid, 0,
			       signal);
	}
	if (ptrace(PTRACE_DETACH, pid, 0, signal))
		is_wrong("PTRACE_DETACH: %s", strerror(errno));
	return steps + 1;
}

/* Returns how often the victim was disturbed: signals and stops come in series. */
static int act(struct random *random, struct pair *pair, int index, enum action action)
{
	pid_t victim = action % 2 && action != EXEC_C ? pair->client : pair->server;
	bool epoll = one_in(random, 2);
	int signals;

	switch (action) {
	case KILL_S:
		pair->board->server_ends = true;
		kill(pair->server, SIGKILL);
		end_pair(pair, SIGKILL);
		start_pair(pair, index, epoll);
		break;
	case CRASH_S:
		pair->board->server_ends = true;
		pair->board->crash_server = true;
		end_pair(pair, SIGSEGV);
		start_pair(pair, index, epoll);
		break;
	case KILL_C:
		kill(pair->client, SIGKILL);
		must_end(pair->client, SIGKILL, "a client");
		start_client(pair, index);
		break;
	case CRASH_C:
		pair->board->crash_client = true;
		must_end(pair->client, SIGSEGV, "a client");
		start_client(pair, index);
		break;
	case EXEC_C:
		kill(pair->client, SIGHUP);
		must_end(pair->client, 77 << 8, "a client that executes something else");
		start_client(pair, index);
		break;
	case STOP_S:
	case STOP_C:
		kill(victim, SIGSTOP);
		pause_at_random(random, 2000);
		kill(victim, SIGCONT);
		break;
	case SIGNAL_S:
	case SIGNAL_C:
		signals = 1 + random_below(random, 5);
		for (int i = 0; i < signals; i++) {
			syscall(SYS_tgkill, victim, victim, SIGUSR1);
			pause_at_random(random, 100);
		}
		return signals;
	case TRACE_S:
	case TRACE_C:
		pair->board->traced[action == TRACE_C] = true;
		return trace(random, victim);
	case FORK_S:
	case FORK_C:
		syscall(SYS_tgkill, victim, victim, SIGUSR2);
		break;
	default:
		break;
	}
	return 1;
}

static void check_progress(struct pair *pair)
{
	if (pair->board->calls != pair->calls) {
		pair->calls = pair->board->calls;
		pair->call_time = now_seconds();
	} else if (now_seconds() > pair->call_time + PATIENCE) {
		wait_for_call(pair);
	}
}

/* More than half of all actions kill somebody. */
static enum action some_action(struct random *random)
{
	static const enum action kills[] = { KILL_S, KILL_C, CRASH_S, CRASH_C };

	return one_in(random, 2) ? RANDOM_OF(random, kills) : random_below(random, ACTIONS);
}

static unsigned long disturb(struct pair *pairs, struct long_run *run, uint64_t stream,
			     unsigned long *counts)
{
	struct random random = random_stream(run->seed, stream);
	unsigned long total = 0;
	int times;

	while (!board->wrong && goes_on_after(run, total)) {
		int index = random_below(&random, PAIRS);
		enum action action = some_action(&random);

		pause_at_random(&random, 1500);
		times = act(&random, &pairs[index], index, action);
		check_progress(&pairs[index]);
		counts[action] += times;
		total += times;
	}
	return total;
}

int main(int argc, char **argv)
{
	unsigned long counts[ACTIONS] = {}, total;
	struct pair pairs[PAIRS] = {};
	struct long_run run, warm_up;
	int tasks, log;
	long memory;

	RUN_IDLE_SERVICE(argc, argv);
	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return 77;
	if (argc == 6 && !strcmp(argv[1], "--server"))
		return server(argv);
	if (argc == 6 && !strcmp(argv[1], "--client"))
		return client(argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	run = long_run(argc, argv, 5);
	log = kernel_log_from_now();
	exception_trace("0");
	board_fd = shared_memory(sizeof(*board));
	map_board(board_fd, 0);
	tasks = count_tasks();
	for (int i = 0; i < PAIRS; i++) {
		pairs[i].board = &board->pairs[i];
		pairs[i].call_time = now_seconds();
		start_pair(&pairs[i], i, i % 2);
	}
	/* What the kernel needs once and keeps is no leak. */
	warm_up = run;
	warm_up.until = now_seconds() + 1;
	disturb(pairs, &warm_up, 0, counts);
	memory = free_memory();
	memset(counts, 0, sizeof(counts));
	run.until = now_seconds() + run.seconds;
	total = disturb(pairs, &run, 1, counts);
	memory_is_back_but(4096, memory, total, "services that were disturbed");
	for (int i = 0; i < PAIRS; i++) {
		int status[2] = {};

		kill(pairs[i].client, SIGKILL);
		kill(pairs[i].server, SIGKILL);
		waitpid(pairs[i].client, &status[0], 0);
		waitpid(pairs[i].server, &status[1], 0);
		if (board->wrong)
			printf("# server %d ended with %x, client %d with %x\n", pairs[i].server,
			       status[1], pairs[i].client, status[0]);
	}

	for (int i = 0; i < ACTIONS; i++)
		printf("# %-13s %lu\n", action_names[i], counts[i]);
	printf("# %llu calls, %llu found the server dead\n",
	       (unsigned long long)(board->pairs[0].calls + board->pairs[1].calls),
	       (unsigned long long)board->dead);
	if (!ok(total && !board->wrong, "%lu times somebody was disturbed, and all was right",
		total))
		printf("# %s\n", board->what);
	tasks_are_gone(tasks);
	ids_are_free(run.seconds < 60 ? PKEYS : IDS);
	exception_trace("1");
	kernel_log_is_quiet(log);
	return done();
}
