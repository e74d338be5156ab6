// SPDX-License-Identifier: MIT
/*
 * How calls scale: many senders call for a time, and each counts what it gets.
 *
 *	scaling SECONDS threads SENDERS RECEIVERS
 *	scaling SECONDS services SENDERS
 *
 * threads: the senders are threads of one service and the receivers threads of
 * another; each sender calls one receiver. services: each sender is a service
 * of its own, and all of them are connected to one receiver.
 *
 * This process is no service. It starts the others, says when they begin and
 * end, and adds up what they did. A wrong answer, or one too many or too few,
 * and there is no result.
 */
#include "measure.h"
#include "meet_clients.h"
#include "setting.h"
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define RECEIVERS_MOST 64
#define SENDERS_MOST   256
#define PATIENCE_MS    60000

/* Latencies, in ns: buckets that are 1/32 of their size wide. */
#define FINE	       32
#define BUCKETS	       (36 * FINE)

struct sender {
	_Alignas(64) uint64_t calls;
	uint64_t not_counted;
	uint64_t worst, handed_back, waits, retries;
	uint32_t bucket[BUCKETS];
};

struct receiver {
	_Alignas(64) uint64_t served;
	uint32_t tid;
};

/* What all processes see. */
struct board {
	_Atomic uint32_t ready, go;
	atomic_bool all_call, stop;
	struct receiver receiver[RECEIVERS_MOST];
	struct sender sender[SENDERS_MOST];
};

static struct board *board;
static int board_fd;
static const struct plan plan; /* of the clock: in ns */

static void map_board(int fd)
{
	board_fd = fd;
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (board == MAP_FAILED)
		die("mmap", errno);
}

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int shift = ns < 2 * FINE ? 0 : 58 - __builtin_clzll(ns);
	unsigned int bucket = shift * FINE + (ns >> shift);

	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The middle of a bucket. */
static double ns_of(unsigned int bucket)
{
	unsigned int shift = bucket < 2 * FINE ? 0 : bucket / FINE - 1;

	return (double)((bucket - shift * FINE) * (1UL << shift)) + ((1UL << shift) - 1) / 2.0;
}

/* ---- Receivers: --server ORDERS BOARD RECEIVERS ------------------------------- */

static __thread struct receiver *self;

static int answer_record(struct rpal_message *message)
{
	answer((struct record *)message->word);
	self->served++;
	return 0;
}

static void *receive_all(void *arg)
{
	self = arg;
	MUST(rpal_attach(RPAL_ROLE_RECEIVER));
	__atomic_store_n(&self->tid, rpal_tid(), __ATOMIC_RELEASE);
	atomic_fetch_add(&board->ready, 1);
	serve_calls(answer_record);
	return NULL;
}

static void start(void *(*run)(void *), void *arg)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, run, arg);

	if (error)
		die("pthread_create", error);
}

static void tell_pkey(int socket)
{
	uint32_t pkey;

	MUST(rpal_open());
	pkey = rpal_service()->pkey;
	tell(socket, &pkey, sizeof(pkey));
}

static void server(char **argv)
{
	int orders = atoi(argv[2]), receivers = atoi(argv[4]), socket;

	map_board(atoi(argv[3]));
	MUST(rpal_open());
	for (int i = 0; i < receivers; i++)
		start(receive_all, &board->receiver[i]);
	while (board->ready < (uint32_t)receivers)
		usleep(1000);
	tell_pkey(orders);
	while ((socket = receive_socket(orders)) >= 0) {
		become_peers(socket);
		close(socket);
	}
}

/* ---- Senders: --client SOCKET BOARD FIRST SENDERS RECEIVERS -------------------- */

static uint32_t pkey_there;
static int receivers_there;

/* Returns how long it took, without the clock. */
static uint64_t call_once(const struct rpal_target *target, uint64_t number)
{
	struct rpal_message message = {};
	struct record *record = (struct record *)message.word;
	uint64_t began, ended;
	int ret;

	fill(record, number, number + 1);
	began = ticks(&plan);
	ret = rpal_call(target, &message, PATIENCE_MS);
	ended = ticks(&plan);
	MUST(ret);
	verify(right(record, ~number), number);
	return ended - began;
}

static void *send_all(void *arg)
{
	struct sender *sender = arg;
	uint64_t index = sender - board->sender, number = index << 40;
	const struct receiver *receiver = &board->receiver[index % receivers_there];
	struct rpal_counters counters, before;
	struct rpal_target target;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	MUST(rpal_target_init(&target, receiver->tid, pkey_there));
	atomic_fetch_add(&board->ready, 1);
	while (!board->go)
		syscall(SYS_futex, &board->go, FUTEX_WAIT, 0, NULL, NULL, 0);
	/*
	 * The first one finds pages that are not there yet. And until the last
	 * sender is awake, the first have the receiver to themselves.
	 */
	call_once(&target, number++);
	atomic_fetch_add(&board->ready, 1);
	while (!board->all_call)
		call_once(&target, number++);
	sender->not_counted = number - (index << 40);
	MUST(rpal_counters(&before));
	while (!board->stop) {
		uint64_t ns = call_once(&target, number++);

		sender->bucket[bucket_of(ns)]++;
		if (ns > sender->worst)
			sender->worst = ns;
		sender->calls++;
	}
	MUST(rpal_counters(&counters));
	sender->handed_back = counters.handed_back - before.handed_back;
	sender->waits = counters.waits - before.waits;
	sender->retries = counters.retries - before.retries;
	return NULL;
}

static int client(char **argv)
{
	int socket = atoi(argv[2]), first = atoi(argv[4]), senders = atoi(argv[5]);
	pthread_t thread[SENDERS_MOST];
	struct side side;
	char byte;

	map_board(atoi(argv[3]));
	receivers_there = atoi(argv[6]);
	tell_pkey(socket);
	/* Who has the receiver's own key cannot be its peer. */
	if (read(socket, &byte, 1) != 1)
		return 0;
	side = become_peers(socket);
	pkey_there = side.peer.pkey;
	for (int i = 1; i < senders; i++) {
		int error = pthread_create(&thread[i], NULL, send_all, &board->sender[first + i]);

		if (error)
			die("pthread_create", error);
	}
	send_all(&board->sender[first]);
	for (int i = 1; i < senders; i++)
		pthread_join(thread[i], NULL);
	return 0;
}

/* ---- Who starts them all ------------------------------------------------------- */

static pid_t pids[SENDERS_MOST];
static int sockets[SENDERS_MOST]; /* of those that cannot be connected: theirs ends with it */
static int started;

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "%s: this run is no result\n", what);
	exit(3);
}

static pid_t start_with(const char *role, int *socket, const int *arguments, int count)
{
	char text[4][16], *argv[4];
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		die("socketpair", errno);
	for (int i = 0; i < count; i++) {
		snprintf(text[i], sizeof(text[i]), "%d", arguments[i]);
		argv[i] = text[i];
	}
	pid = start_service(role, ends[0], count, argv);
	if (pid < 0)
		die("vfork", errno);
	close(ends[0]);
	*socket = ends[1];
	return pid;
}

static uint32_t hear_pkey(int socket)
{
	uint32_t pkey;

	hear(socket, &pkey, sizeof(pkey));
	return pkey;
}

/* True: it is connected to the server. */
static bool start_client(int orders, uint32_t pkey, int first, int senders, int receivers)
{
	int arguments[] = { board_fd, first, senders, receivers }, socket;
	uint32_t theirs;

	if (started == SENDERS_MOST)
		fail("too few services can be connected");
	pids[started] = start_with("--client", &socket, arguments, 4);
	theirs = hear_pkey(socket);
	sockets[started++] = socket;
	if (pkey && theirs == pkey)
		return false;
	tell(socket, "g", 1);
	if (!send_socket(orders, socket))
		die("send_socket", errno);
	return true;
}

/* Nobody has ended too early, by a wrong answer. */
static void check_alive(void)
{
	if (waitpid(-1, NULL, WNOHANG))
		fail("a process has ended");
}

static void wait_until_ready(uint32_t count)
{
	while (board->ready < count) {
		check_alive();
		usleep(1000);
	}
}

static long context_switches(void)
{
	return get_number("/proc/stat", "ctxt");
}

struct period {
	double seconds;
	long switches; /* of all tasks of the guest */
};

static struct period let_them_call(double seconds, uint32_t senders)
{
	uint64_t began, ended;
	long switches;

	board->ready = 0;
	board->go = 1;
	syscall(SYS_futex, &board->go, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	wait_until_ready(senders);
	began = ticks(&plan);
	switches = context_switches();
	board->all_call = true;
	do {
		usleep(10000);
		check_alive();
		ended = ticks(&plan);
	} while (ended - began < seconds * 1e9);
	board->stop = true;
	return (struct period){ (ended - began) / 1e9, context_switches() - switches };
}

static void await_clients(void)
{
	int status;

	for (int i = 0; i < started; i++) {
		close(sockets[i]);
		if (waitpid(pids[i], &status, 0) != pids[i] || status)
			fail("a client has failed");
	}
}

/* The latency that a share of all calls does not exceed. */
static double percentile(const uint64_t *bucket, uint64_t calls, double share)
{
	uint64_t sum = 0;

	for (int i = 0; i < BUCKETS; i++) {
		sum += bucket[i];
		if (sum >= calls * share)
			return ns_of(i);
	}
	return ns_of(BUCKETS - 1);
}

static void report_senders(const char *kind, int senders, int receivers, struct period period)
{
	uint64_t calls = 0, slowest = UINT64_MAX, fastest = 0, worst = 0, served = 0;
	uint64_t handed_back = 0, waits = 0, not_counted = 0, bucket[BUCKETS] = {};

	for (int i = 0; i < senders; i++) {
		const struct sender *sender = &board->sender[i];

		calls += sender->calls;
		not_counted += sender->not_counted;
		handed_back += sender->handed_back;
		waits += sender->waits;
		if (sender->calls < slowest)
			slowest = sender->calls;
		if (sender->calls > fastest)
			fastest = sender->calls;
		if (sender->worst > worst)
			worst = sender->worst;
		for (int j = 0; j < BUCKETS; j++)
			bucket[j] += sender->bucket[j];
	}
	for (int i = 0; i < receivers; i++)
		served += board->receiver[i].served;
	if (served != calls + not_counted)
		fail("the receivers had another number of calls");
	printf("{\"kind\":\"%s\",\"senders\":%d,\"receivers\":%d,\"seconds\":%f,"
	       "\"calls\":%llu,\"slowest\":%llu,\"fastest\":%llu,"
	       "\"p50\":%.0f,\"p99\":%.0f,\"worst\":%llu,"
	       "\"handedBack\":%llu,\"waits\":%llu,\"switches\":%ld}\n",
	       kind, senders, receivers, period.seconds, (unsigned long long)calls,
	       (unsigned long long)slowest, (unsigned long long)fastest,
	       percentile(bucket, calls, 0.5), percentile(bucket, calls, 0.99),
	       (unsigned long long)worst, (unsigned long long)handed_back,
	       (unsigned long long)waits, period.switches);
}

int main(int argc, char **argv)
{
	bool services = argc == 4 && !strcmp(argv[2], "services");
	int senders, receivers, orders;
	struct period period;
	double seconds;
	uint32_t pkey;
	pid_t pid;

	if (argc > 4 && !strcmp(argv[1], "--server")) {
		server(argv);
		return 0;
	}
	if (argc > 6 && !strcmp(argv[1], "--client"))
		return client(argv);

	if (!services && (argc != 5 || strcmp(argv[2], "threads")))
		fail("wrong arguments");
	seconds = atof(argv[1]);
	senders = atoi(argv[3]);
	receivers = services ? 1 : atoi(argv[4]);
	if (senders < 1 || senders > SENDERS_MOST || receivers < 1 || receivers > RECEIVERS_MOST)
		fail("wrong numbers");

	map_board(memfd_create("board", 0));
	if (ftruncate(board_fd, sizeof(*board)))
		die("ftruncate", errno);
	pid = start_with("--server", &orders, (int[]){ board_fd, receivers }, 2);
	pkey = hear_pkey(orders);
	board->ready = 0;
	if (services) {
		for (int connected = 0; connected < senders;)
			connected += start_client(orders, pkey, connected, 1, receivers);
	} else if (!start_client(orders, pkey, 0, senders, receivers)) {
		fail("two services have the same key");
	}
	wait_until_ready(senders);
	period = let_them_call(seconds, senders);
	await_clients();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	report_senders(services ? "services" : "threads", senders, receivers, period);
	return 0;
}
