/* guest: cpus=1,2 debug timeout=90 */
// SPDX-License-Identifier: MIT
/*
 * A hostile peer: it writes into every word of every control block that it can
 * reach, whatever comes to its mind, while others call; and it calls itself, by
 * the rules and against them.
 *
 * In an episode a server has two clients. One is honest, the other one hostile.
 * The server and the honest client may crash or hang: to be somebody's peer is
 * to be debugged by it, and peers of one server have no secrets from each other.
 * But the kernel has nothing to report, each of them can be killed at any time
 * and leaves nothing behind, nobody acts as another as long as only words of
 * the kernel's are forged, and services that are no peers notice nothing.
 */
#include "bystanders.h"
#include "free_again.h"
#include "kernel_log.h"
#include "long_run.h"
#include "memory.h"
#include "random.h"
#include "raw_syscall.h"
#include "shared_memory.h"
#include <pthread.h>
#include <sys/personality.h>
#include <setjmp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/time.h>

/* What is forged in an episode. */
enum mode {
	ANY_WORD,
	/*
	 * Only words that say who runs whose context, not where contexts are:
	 * code of a service then runs with its own FS base, or the kernel ends it.
	 */
	STATE_WORDS,
	MODES
};

/* Who acted as another. */
struct impostors {
	uint64_t times;
	char first[160];
};

/*
 * Shared by all, over all episodes. With a context that can be anywhere, a
 * process runs any piece of its code on any data, what writes here too: so what
 * it says of impostors is heard in episodes of STATE_WORDS only, and the rest
 * shows what was tried.
 */
struct board {
	uint64_t server_calls, client_calls, good, failed, bad, writes, forged_calls;
	struct impostors impostors; /* in this episode */
	enum mode mode;
	int ready; /* of this episode's three: all are, before one becomes hostile */
};

static struct board *board;
static int board_fd;

static void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

#define ROLES 3

static void is_ready(void)
{
	__atomic_add_fetch(&board->ready, 1, __ATOMIC_RELEASE);
}

static bool all_are_ready(void)
{
	return __atomic_load_n(&board->ready, __ATOMIC_ACQUIRE) == ROLES;
}

static void map_board(int fd)
{
	board_fd = fd;
	board = map_shared(fd, sizeof(*board));
}

static pid_t my_pid; /* as this process knows it */
static uint64_t my_fs_bases[2];

static uint64_t fs_base(void)
{
	uint64_t base;

	asm volatile("rdfsbase %0" : "=r"(base));
	return base;
}

/* Of each thread that checks. */
static void begin(void)
{
	my_pid = getpid();
	my_fs_bases[!!my_fs_bases[0]] = fs_base();
}

/*
 * Code of this process runs with a FS base of its own: then it acts as itself.
 * (A hostile peer can have its registers put into a thread of its victim, as a
 * debugger can. Then its code runs there, with the victim's FS base.)
 */
static void check_identity(const char *who)
{
	uint64_t fs = fs_base();
	pid_t pid = raw(SYS_getpid, 0, 0, 0, 0);
	uid_t uid = raw(SYS_getuid, 0, 0, 0, 0);

	if ((pid == my_pid && uid == USER) || fs != fs_base() ||
	    (fs != my_fs_bases[0] && fs != my_fs_bases[1]))
		return;
	/* Counted last: who says it can be killed at any time. */
	if (!__atomic_load_n(&board->impostors.times, __ATOMIC_ACQUIRE))
		snprintf(board->impostors.first, sizeof(board->impostors.first),
			 "%s %d acted as pid %d, uid %u", who, my_pid, pid, uid);
	__atomic_add_fetch(&board->impostors.times, 1, __ATOMIC_RELEASE);
}

/* ---- The honest ones ------------------------------------------------------ */

enum { SHORT, SYSTEM_CALL, LONG, KINDS };

static int handle(struct rpal_message *m)
{
	count(&board->server_calls);
	switch (m->word[0]) {
	case SYSTEM_CALL:
		check_identity("the server");
		break;
	case LONG:
		for (volatile int i = 0; i < 20000; i++)
			;
		break;
	}
	m->word[1] = ~m->word[2];
	return 0;
}

static void serve_by_epoll(void)
{
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 }, event;
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct rpal_message m;

	MUST(rpal_call_event(&call));
	for (;;) {
		int n = rpal_epoll_wait(epfd, &event, 1, 3);

		if (n == 1 && rpal_take(&m, NULL) == 1)
			rpal_reply(handle(&m), &m);
	}
}

static void ignore(int signal)
{
}

/* Signals come to honest processes, too. */
static void start_timer(long us)
{
	struct itimerval timer = { { 0, us }, { 0, us } };
	struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

/* --server SOCKET BOARD SOCKET-OF-THE-OTHER EPOLL */
static int server(char **argv)
{
	struct side honest, hostile;

	map_board(atoi(argv[3]));
	honest = become_peers(atoi(argv[2]));
	hostile = become_peers(atoi(argv[4]));
	introduce_receiver(&honest, RPAL_ROLE_RECEIVER | RPAL_ROLE_SENDER);
	introduce_receiver(&hostile, RPAL_ROLE_RECEIVER | RPAL_ROLE_SENDER);
	begin();
	is_ready();
	start_timer(3700);
	if (atoi(argv[5]))
		serve_by_epoll();
	serve_calls(handle);
	return 0;
}

static void call_with(const struct rpal_target *target, int timeout)
{
	for (uint64_t i = 0;; i++) {
		struct rpal_message m = { { i % KINDS, 0, i } };
		int ret = rpal_call(target, &m, timeout);

		count(&board->client_calls);
		count(ret ? &board->failed : m.word[1] == ~i ? &board->good : &board->bad);
		if (i % 8 == 0)
			check_identity("the client");
	}
}

static void *call_in_thread(void *target)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	begin();
	call_with(target, 5);
	return NULL;
}

/* --client SOCKET BOARD */
static int client(char **argv)
{
	static struct side side;
	pthread_t thread;

	map_board(atoi(argv[3]));
	side = become_peers(atoi(argv[2]));
	meet_receiver(&side);
	begin();
	is_ready();
	start_timer(5300);
	pthread_create(&thread, NULL, call_in_thread, &side.target);
	call_with(&side.target, -1);
	return 0;
}

/* ---- The hostile one -------------------------------------------------------- */

static struct side victim;
static uint64_t seed;
static struct rpal_control *blocks; /* of the victim */
static uint32_t tids[8];	    /* that mean something, here or there */

/*
 * How wild it is. The wilder, the sooner somebody crashes, and the less has
 * been tried: so this differs between episodes.
 */
static unsigned int gap;      /* rounds of a loop between two words */
static unsigned int nonsense; /* of how many words one makes no sense at all */

/* Words that can be seen, to be put somewhere else later. */
static uint64_t remembered[16];

static uint64_t forged_word(struct random *random)
{
	uint32_t tid = RANDOM_OF(random, tids);
	uint64_t flags = random_below(random, 4) << 8;

	if (one_in(random, nonsense)) {
		switch (random_below(random, 4)) {
		case 0:
			return random_word(random);
		case 1:
			return (uint64_t)tid << 32 | random_below(random, 256) | flags;
		case 2:
			return (uint64_t)(blocks + random_below(random, 3));
		default:
			return random_below(random, 2000);
		}
	}
	switch (random_below(random, 8)) {
	case 0:
		return RANDOM_OF(random, remembered);
	case 1:
		return tid | random_below(random, 2) << 32;
	case 2:
		return 0;
	default:
		return (uint64_t)tid << 32 | random_below(random, 5) | flags;
	}
}

/* Words of a block that say who has a context and whom it calls, by index. */
static const int state_words[] = { 0, 0, 0, 0, 5, 16, 16, 18, 19, 21 };

/*
 * Addresses of code are not changed in parts: that is a jump to almost the same
 * place, to the middle of an instruction. Where this is a far return to the
 * emulator, QEMU 7.2 reads the stack with the rights of the kernel, and what
 * should be a fault of the process is one of the kernel's.
 */
static bool is_code_address(int index)
{
	return index == offsetof(struct rpal_control, entry_ip) / 8 ||
	       index == offsetof(struct rpal_control, notify_ip) / 8 ||
	       index == offsetof(struct rpal_control, return_ip) / 8;
}

/* One of the ways to write a word that are not special. */
#define AS_A_WHOLE 7

static void write_word(struct random *random, struct rpal_control *control)
{
	int index = board->mode == STATE_WORDS ?
			    RANDOM_OF(random, state_words) :
			    (int)random_below(random, RPAL_CONTROL_STRIDE / 8);
	volatile uint64_t *word = (volatile uint64_t *)control + index;
	uint64_t value = forged_word(random);

	remembered[random_below(random, 16)] = *word;
	switch (is_code_address(index) ? AS_A_WHOLE : random_below(random, 8)) {
	case 0: /* The state, the flags or a part of the id. */
		((volatile uint8_t *)word)[random_below(random, 8)] = value;
		break;
	case 1:
	case 2: /* Flags only. */
		__atomic_fetch_xor(word, random_below(random, 4) << 8, __ATOMIC_RELAXED);
		break;
	case 3: /* For a moment. */
		value = *word;
		__atomic_fetch_xor(word, 1UL << random_below(random, 64), __ATOMIC_RELAXED);
		*word = value;
		break;
	default:
		*word = value;
	}
	count(&board->writes);
}

static void pause_for(uint64_t rounds)
{
	for (volatile uint64_t i = 0; i < rounds; i++)
		;
}

static void *write_words(void *arg)
{
	struct random random = random_stream(seed, (uintptr_t)arg);

	for (;;) {
		/* The main thread's block, most of the time. */
		write_word(&random, &blocks[one_in(&random, 4) ? random_below(&random, 16) : 0]);
		/* Sometimes leave the others time to get into the next state. */
		pause_for(random_below(&random, one_in(&random, 4) ? 30 : gap));
		if (one_in(&random, 50))
			usleep(random_below(&random, 1000));
	}
	return NULL;
}

/*
 * Where a call by hand comes back to: a frame as librpal's own, which returns
 * to landed(), or the handler of a fault.
 */
static sigjmp_buf again;
static uint64_t hostile_fs_base;
static struct {
	uint64_t unused[4096];
	uint64_t status, peer, message;
	uint32_t mxcsr;
	uint16_t x87_control, pad;
	uint64_t rbp, return_ip;
} __attribute__((aligned(16))) fake_stack;

__attribute__((noreturn)) static void landed(void)
{
	siglongjmp(again, 1);
}

static void on_fault(int signal)
{
	asm volatile("wrfsbase %0" : : "r"(hostile_fs_base) : "memory");
	siglongjmp(again, 1);
}

static void survive_faults(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE };
	static char stack[65536];
	stack_t alternative = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = {
		.sa_handler = on_fault,
		.sa_flags = SA_ONSTACK | SA_NODEFER,
	};
	static struct rpal_message message;

	hostile_fs_base = (uint64_t)__builtin_thread_pointer();
	sigaltstack(&alternative, NULL);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigaction(faults[i], &action, NULL);
	fake_stack.peer = (uint64_t)blocks;
	fake_stack.message = (uint64_t)&message;
	fake_stack.return_ip = (uint64_t)landed;
	asm volatile("stmxcsr %0\n\t"
		     "fnstcw %1"
		     : "=m"(fake_stack.mxcsr), "=m"(fake_stack.x87_control));
}

/* A claim, a jump, an end: each by the rules or not. */
static void call_by_hand(struct random *random, struct rpal_control *own)
{
	uint64_t parked = victim.target.parked;
	uint64_t lent = (uint64_t)tids[1] << 32 | RPAL_STATE_LENT;
	uint64_t fs = blocks[0].fs_base;
	int what = random_below(random, 6);

	count(&board->forged_calls);
	own->call_seq++;
	own->call_sp = one_in(random, 2 * nonsense) ? forged_word(random) :
						      (uint64_t)&fake_stack.status;
	own->callee = victim.target.tid | random_below(random, 2) << 32;
	__atomic_compare_exchange_n(&blocks[0].state, &parked, lent, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	if (!one_in(random, 3))
		*(volatile uint8_t *)&blocks[0].state = RPAL_STATE_LENT + random_below(random, 3);
	asm volatile("wrfsbase %0" : : "r"(fs) : "memory");
	switch (what) {
	case 0:
		raw(SYS_getpid, 0, 0, 0, 0);
		break;
	case 1:
		asm volatile("ud2");
		break;
	case 2:
		pause_for(100000);
		break;
	case 3:
		asm volatile("int3");
		break;
	}
	asm volatile("wrfsbase %0" : : "r"(hostile_fs_base) : "memory");
	own->callee = 0;
}

static void *call_by_rules(void *arg)
{
	struct random random = random_stream(seed, 77);

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	tids[2] = rpal_tid();
	for (;;) {
		struct rpal_message m = { { random_below(&random, KINDS), 0, 1 } };

		rpal_call(&victim.target, &m, random_below(&random, 4));
	}
	return NULL;
}

static void forge(int style)
{
	struct rpal_control *own = own_control();
	struct random random = random_stream(seed, 5);
	pthread_t thread;

	tids[1] = rpal_tid();
	if (style & 1)
		pthread_create(&thread, NULL, call_by_rules, NULL);
	pthread_create(&thread, NULL, write_words, (void *)1UL);
	survive_faults();
	sigsetjmp(again, 1);
	for (;;) {
		struct rpal_message m = { { SHORT, 0, 1 } };

		if (one_in(&random, nonsense))
			write_word(&random, own);
		if (style & 2 && one_in(&random, 4))
			call_by_hand(&random, own);
		else
			rpal_call(&victim.target, &m, random_below(&random, 3));
		pause_for(random_below(&random, gap));
		check_identity("the hostile peer");
	}
}

/* --hostile SOCKET BOARD SEED */
static int hostile(char **argv)
{
	struct random random;

	map_board(atoi(argv[3]));
	seed = strtoull(argv[4], NULL, 10);
	random = random_stream(seed, 1000);
	victim = become_peers(atoi(argv[2]));
	meet_receiver(&victim);
	begin();
	blocks = victim.target.control;
	tids[0] = victim.target.tid;
	for (int i = 1; i < 8; i++)
		tids[i] = rpal_tid() + (random_word(&random) & 3);
	for (int i = 4; i < 6; i++)
		tids[i] = blocks[0].state >> 32;
	gap = 10 << random_below(&random, 16);
	nonsense = 4 << random_below(&random, 8);
	is_ready();
	while (!all_are_ready())
		usleep(1000);
	forge(random_below(&random, 4));
	return 0;
}

/* ---- The test ------------------------------------------------------------ */

static pid_t start_role(const char *role, int socket, int other, const char *last)
{
	char text[3][16];
	char *args[] = { "peer", (char *)role, text[0], text[1], text[2], (char *)last, NULL };
	int mine = dup(socket);
	pid_t pid;

	snprintf(text[0], sizeof(text[0]), "%d", mine);
	snprintf(text[1], sizeof(text[1]), "%d", board_fd);
	snprintf(text[2], sizeof(text[2]), "%d", other);
	if (other < 0)
		args[4] = (char *)last;
	if (other < 0)
		args[5] = NULL;
	pid = start_as(true, USER, args);
	close(mine);
	return pid;
}

static bool has_died(pid_t pid)
{
	siginfo_t info = {};

	return !waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

/* Whether it died of itself before. What is killed has to end. */
static bool kill_and_wait(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL;
}

static void wait_until_all_are_ready(const pid_t pids[ROLES])
{
	while (!all_are_ready()) {
		for (int i = 0; i < ROLES; i++)
			if (has_died(pids[i]))
				die("a process ended before one was hostile", EPROTO);
		usleep(1000);
	}
}

/* Adds what an episode of STATE_WORDS has shown. */
static void hear_of(struct impostors *impostors)
{
	if (!impostors->times)
		*impostors = board->impostors;
	else
		impostors->times += board->impostors.times;
}

static void episode(struct random *random, unsigned int crashes[ROLES],
		    struct impostors *impostors)
{
	enum mode mode = random_below(random, MODES);
	int honest[2], evil[2], other;
	char number[24];
	pid_t pids[ROLES];

	board->ready = 0;
	board->mode = mode;
	board->impostors = (struct impostors){};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, honest) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, evil))
		die("socketpair", errno);
	other = dup(evil[0]);
	pids[0] = start_role("--server", honest[0], other, one_in(random, 2) ? "1" : "0");
	close(other);
	pids[1] = start_role("--client", honest[1], -1, NULL);
	snprintf(number, sizeof(number), "%llu", (unsigned long long)random_word(random));
	pids[2] = start_role("--hostile", evil[1], -1, number);
	for (int i = 0; i < 2; i++) {
		close(honest[i]);
		close(evil[i]);
	}
	wait_until_all_are_ready(pids);
	/* When one of them is gone there is nothing left to try. */
	for (double until = now_seconds() + 0.5; now_seconds() < until && !has_died(pids[0]) &&
						 !has_died(pids[2]);)
		usleep(5000);
	/* In any order. */
	for (int i = 0, first = random_below(random, ROLES); i < ROLES; i++)
		crashes[(first + i) % ROLES] += kill_and_wait(pids[(first + i) % ROLES]);
	if (mode == STATE_WORDS)
		hear_of(impostors);
}

/* Everything that an episode is for has happened in one. */
static bool all_was_tried(void)
{
	return board->writes && board->forged_calls && board->good;
}

int main(int argc, char **argv)
{
	unsigned int crashes[ROLES] = {};
	struct impostors impostors = {};
	struct random random;
	struct long_run run;
	int tasks, log, episodes = 0;
	long memory = 0;

	RUN_IDLE_SERVICE(argc, argv);
	RUN_BYSTANDER(argc, argv);
	if (argc == 6 && !strcmp(argv[1], "--server"))
		return server(argv);
	if (argc == 4 && !strcmp(argv[1], "--client"))
		return client(argv);
	if (argc == 5 && !strcmp(argv[1], "--hostile"))
		return hostile(argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	run = long_run(argc, argv, 5);
	log = kernel_log_from_now();
	exception_trace("0");
	board_fd = shared_memory(sizeof(*board));
	map_board(board_fd);
	tasks = count_tasks();
	start_bystanders();
	random = random_stream(run.seed, 0);
	while (episodes < 4 || !all_was_tried() || goes_on_after(&run, episodes)) {
		episode(&random, crashes, &impostors);
		/* What the kernel needs once and keeps is no leak. */
		if (++episodes == 3)
			memory = free_memory();
	}
	printf("# %llu words forged, %llu calls by hand; %u servers, %u clients and %u hostile "
	       "peers crashed\n",
	       (unsigned long long)board->writes, (unsigned long long)board->forged_calls,
	       crashes[0], crashes[1], crashes[2]);
	printf("# %llu calls served; of %llu %llu were right, %llu failed, %llu were wrong\n",
	       (unsigned long long)board->server_calls, (unsigned long long)board->client_calls,
	       (unsigned long long)board->good, (unsigned long long)board->failed,
	       (unsigned long long)board->bad);
	ok(all_was_tried(), "%d episodes", episodes);
	if (!ok(!impostors.times, "nobody acted as another"))
		printf("# %llu times, first: %s\n", (unsigned long long)impostors.times,
		       impostors.first);
	memory_is_back_but(4096, memory, 3 * (episodes - 3), "services that were under attack");
	bystanders_noticed_nothing();
	tasks_are_gone(tasks);
	ids_are_free(PKEYS);
	exception_trace("1");
	kernel_log_is_quiet_but(log, FORGED);
	return done();
}
