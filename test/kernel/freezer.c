/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * The freezer stops either side of a call at any moment. A frozen server's code
 * does not run, on nobody's task, and its clients wait; a frozen client holds
 * nothing that others need. Thawed, all go on as if nothing had been.
 */
#include "cgroup.h"
#include "loan_limit.h"
#include "meet_clients.h"
#include "receiver_state.h"
#include "shared_memory.h"
#include <poll.h>

#define CLIENTS 2
#define ROUNDS	10 /* of load, for each that is frozen */

/* What a call asks the server for. */
enum {
	ADD,   /* words 1 and 2 */
	SPIN,  /* the same, after it was let go; on loan */
	SLEEP, /* the same, as itself */
};

/* All see it. */
struct board {
	volatile uint32_t tid; /* of the server's receiver */
	volatile bool go, stop;
	volatile uint64_t spins; /* of handlers that have not been let go */
	struct {
		volatile uint64_t calls, wrong;
	} load[CLIENTS];
};

static struct board *board;

static void map_board(int fd)
{
	board = map_shared(fd, sizeof(*board));
}

static int handle(struct rpal_message *m)
{
	if (m->word[0] == SLEEP)
		getppid();
	while (m->word[0] != ADD && !board->go) {
		board->spins++;
		if (m->word[0] == SLEEP)
			usleep(500);
	}
	m->word[0] = m->word[1] + m->word[2];
	return 0;
}

static void run_server(int orders)
{
	become_receiver_of_all(orders);
	board->tid = rpal_tid();
	serve_calls(handle);
}

/* For a client: make a call, or many until it is told to stop. */
struct order {
	int kind; /* LOAD or one of the server's */
	int timeout;
};

#define LOAD -1

static int call_once(const struct rpal_target *target, int kind, uint64_t i, int timeout)
{
	struct rpal_message m = { { kind, i, i * 2 } };
	int ret = rpal_call(target, &m, timeout);

	return ret ?: m.word[0] == i * 3 ? 0 : -EBADMSG;
}

static void run_client(int socket, int orders, int index)
{
	struct side side = become_peers(socket);
	struct order order;
	int ret = 0;

	meet_receiver(&side);
	for (;;) {
		tell(orders, &ret, sizeof(ret));
		if (read(orders, &order, sizeof(order)) != sizeof(order))
			_exit(0);
		if (order.kind != LOAD) {
			ret = call_once(&side.target, order.kind, board->spins, order.timeout);
			continue;
		}
		while (!board->stop) {
			uint64_t i = board->load[index].calls;

			/* Sometimes as itself. */
			if (call_once(&side.target, i % 8 ? ADD : SLEEP, i, -1))
				board->load[index].wrong++;
			board->load[index].calls++;
		}
		ret = 0;
	}
}

/* Who is frozen, from outside. */
struct process {
	const char *name;
	struct cgroup group;
	pid_t pid;
	int orders;
};

static struct process server = { .name = "server" };
static struct process clients[CLIENTS] = { { .name = "client-0" }, { .name = "client-1" } };

static void start(struct process *process, const char *role, int socket, int index, int board_fd)
{
	char numbers[3][16], *argv[] = { numbers[0], numbers[1], numbers[2] };
	int orders[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, orders))
		bail_out("socketpair");
	snprintf(numbers[0], 16, "%d", dup(orders[1]));
	snprintf(numbers[1], 16, "%d", index);
	snprintf(numbers[2], 16, "%d", board_fd);
	process->pid = start_service(role, socket, 3, argv);
	close(atoi(numbers[0]));
	close(orders[1]);
	process->orders = orders[0];
	process->group = new_cgroup(process->name);
	join_cgroup(&process->group, process->pid);
}

static void end(struct process *process)
{
	kill(process->pid, SIGKILL);
	waitpid(process->pid, NULL, 0);
	end_cgroup(&process->group);
}

static void give(struct process *client, int kind, int timeout)
{
	struct order order = { kind, timeout };

	tell(client->orders, &order, sizeof(order));
}

/* Waits until the order has been carried out. */
static int outcome(struct process *client)
{
	int ret;

	hear(client->orders, &ret, sizeof(ret));
	return ret;
}

static bool still_calls(const struct process *client)
{
	struct pollfd answer = { .fd = client->orders, .events = POLLIN };

	return poll(&answer, 1, 0) == 0;
}

/* Waits until it is: all threads of a frozen process are where they do nothing. */
static void freeze(const struct process *process, bool frozen)
{
	set(cgroup_file(&process->group, "cgroup.freeze"), "%d", frozen);
	while (get_number(cgroup_file(&process->group, "cgroup.events"), "frozen") != frozen)
		sched_yield();
}

static bool is_on_loan(void)
{
	return receiver_state(server.pid, board->tid) == RPAL_STATE_ACTIVE;
}

/*
 * A call whose handler runs: on the client's task, or on the server's own. The
 * kernel may hand it back for reasons of its own: then it is made again.
 */
static void begin_call(struct process *client, int kind)
{
	for (;;) {
		uint64_t before = board->spins;

		board->go = false;
		give(client, kind, -1);
		while (board->spins == before || (kind == SLEEP && is_on_loan()))
			sched_yield();
		if (kind == SLEEP || is_on_loan())
			return;
		board->go = true;
		if (outcome(client))
			bail_out("a call that was handed back");
	}
}

static bool handler_stands_still(void)
{
	uint64_t before = board->spins;

	usleep(100000);
	return board->spins == before;
}

/* As soon as it has a CPU; it has 30 s to get one. */
static bool handler_goes_on(void)
{
	uint64_t before = board->spins;

	for (int i = 0; i < 30000 && board->spins == before; i++)
		usleep(1000);
	return board->spins != before;
}

static void test_parked_server(void)
{
	freeze(&server, true);
	give(&clients[0], ADD, 50);
	is(outcome(&clients[0]), -ETIMEDOUT, "a call to a frozen server waits as long as it may");
	give(&clients[0], ADD, -1);
	give(&clients[1], ADD, 50);
	is(outcome(&clients[1]), -ETIMEDOUT, "another client's, too");
	ok(still_calls(&clients[0]), "a call without a limit goes on waiting");
	freeze(&server, false);
	is(outcome(&clients[0]), 0, "and is answered when the server is thawed");
}

static void test_serving_server(int kind, const char *what)
{
	begin_call(&clients[0], kind);
	freeze(&server, true);
	ok(handler_stands_still(), "a server is frozen with its handler %s, which stops", what);
	board->go = true;
	give(&clients[1], ADD, 50);
	is(outcome(&clients[1]), -ETIMEDOUT, "another client's call waits as long as it may");
	ok(still_calls(&clients[0]), "the first one goes on waiting");
	freeze(&server, false);
	is(outcome(&clients[0]), 0, "and is answered when the server is thawed");
}

static void test_calling_client(int kind, const char *what)
{
	begin_call(&clients[0], kind);
	freeze(&clients[0], true);
	ok(handler_goes_on(), "a client is frozen with a handler %s, which goes on", what);
	board->go = true;
	give(&clients[1], ADD, -1);
	is(outcome(&clients[1]), 0, "then another client is served");
	freeze(&clients[0], false);
	is(outcome(&clients[0]), 0, "and the first one, thawed, has its answer");
}

/* A client is frozen while it waits for a server that another one uses. */
static void test_waiting_client(void)
{
	begin_call(&clients[0], SLEEP);
	give(&clients[1], ADD, -1);
	while (!(receiver_word(server.pid, board->tid) & RPAL_FLAG_CONTENDED))
		sched_yield();
	freeze(&clients[1], true);
	board->go = true;
	is(outcome(&clients[0]), 0, "a client is served while one that waits, too, is frozen");
	ok(still_calls(&clients[1]), "that has no answer");
	freeze(&clients[1], false);
	is(outcome(&clients[1]), 0, "until it is thawed");
}

static void await_calls_of(int index)
{
	uint64_t before = board->load[index].calls;

	while (board->load[index].calls < before + 10)
		sched_yield();
}

static void test_under_load(void)
{
	struct process *const all[] = { &server, &clients[0], &clients[1] };
	uint64_t wrong = 0, calls = 0;

	board->go = true;
	board->stop = false;
	for (int i = 0; i < CLIENTS; i++)
		give(&clients[i], LOAD, 0);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 3; i++) {
			freeze(all[i], true);
			/* The others go on, if they need not its answers. */
			for (int j = 0; j < CLIENTS; j++)
				if (all[i] != &server && all[i] != &clients[j])
					await_calls_of(j);
			freeze(all[i], false);
			await_calls_of(0);
			await_calls_of(1);
		}
		for (int i = 0; i < 3; i++)
			freeze(all[(round + i) % 3], true);
		for (int i = 0; i < 3; i++)
			freeze(all[i], false);
		await_calls_of(0);
		await_calls_of(1);
	}
	board->stop = true;
	for (int i = 0; i < CLIENTS; i++) {
		outcome(&clients[i]);
		wrong += board->load[i].wrong;
		calls += board->load[i].calls;
	}
	ok(!wrong, "each was frozen %d times under load, and all: %llu calls, %llu wrong", ROUNDS,
	   (unsigned long long)calls, (unsigned long long)wrong);
}

int main(int argc, char **argv)
{
	int fd, sockets[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 6) {
		map_board(atoi(argv[5]));
		if (!strcmp(argv[1], "--server"))
			run_server(atoi(argv[2]));
		run_client(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	}

	fd = shared_memory(sizeof(*board));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		bail_out("socketpair");
	map_board(fd);
	limit_loans(LONGEST_LOAN_LIMIT);
	start(&server, "--server", sockets[0], 0, fd);
	for (int i = 0; i < CLIENTS; i++) {
		int ends[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ||
		    !send_socket(sockets[1], ends[0]))
			bail_out("socketpair");
		start(&clients[i], "--client", ends[1], i, fd);
		close(ends[0]);
		close(ends[1]);
		is(outcome(&clients[i]), 0, "a client meets the server");
	}

	test_parked_server();
	if (loans_can_be_met())
		test_serving_server(SPIN, "on loan");
	test_serving_server(SLEEP, "in its own task");
	if (loans_can_be_met())
		test_calling_client(SPIN, "on loan");
	test_calling_client(SLEEP, "in the server's task");
	test_waiting_client();
	test_under_load();

	for (int i = 0; i < CLIENTS; i++)
		end(&clients[i]);
	end(&server);
	limit_loans(DEFAULT_LOAN_LIMIT);
	return done();
}
