/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Nobody waits for ever because a peer wrote over the words. A peer may do to
 * its peers what a debugger may, and crash them; but the kernel waits for
 * things that it knows, not for words that somebody has written.
 *
 * A server has a client, which may be called honest, and another one, which
 * forges its state word, with a thread of its own that has borrowed nothing.
 */
#include "bystanders.h"
#include "free_again.h"
#include "kernel_log.h"
#include <poll.h>
#include <pthread.h>
#include <sys/personality.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

/* How long is for ever? The kernel looks again after one second. */
#define FOR_EVER 30000

struct party {
	pid_t pid;
	int socket; /* for orders and answers */
};

/* What they are told to do. Each answers with one int when it is done. */
enum order {
	FORGE, /* hostile: value becomes the server's state word */
	STEAL, /* hostile: register a sender with the server's FS base, a receiver with 0 */
	CALL,  /* client: one call, without a deadline */
	LEAVE, /* server: release the hostile peer; client: be no sender any more */
};

struct word {
	enum order order;
	uint64_t value;
};

static struct word hear_order(int socket)
{
	struct word word;

	if (read(socket, &word, sizeof(word)) != sizeof(word))
		_exit(0);
	return word;
}

/* ---- The three -------------------------------------------------------------- */

struct release {
	int socket;
	uint32_t id, by; /* whom it releases; its own id */
};

static void *leave_when_told(void *arg)
{
	struct release *release = arg;
	int ret;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	__atomic_store_n(&release->by, rpal_tid(), __ATOMIC_SEQ_CST);
	hear_order(release->socket);
	ret = rpal_peer_release(release->id);
	tell(release->socket, &ret, sizeof(ret));
	return NULL;
}

/* What an event tells the server. */
enum event {
	TELL = 1, /* that it has seen it */
	/*
	 * To become, by its word, the one whom the client called last. A peer
	 * can write that, too, only not exactly now: while the server runs.
	 */
	PRETEND,
};

static void pretend_to_be_called(void)
{
	struct rpal_control *own = own_control();
	uint64_t client = ((struct rpal_control *)own->caller)->tid;

	own->state = client << RPAL_STATE_TID_SHIFT | RPAL_STATE_ACTIVE;
}

/* --server SOCKET HOSTILE-SOCKET ORDERS EVENTFD ROLES */
static void server(char **argv)
{
	static struct release release;
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 };
	struct epoll_event kernel = { .events = EPOLLIN, .data.u64 = 2 }, event;
	int epfd = epoll_create1(EPOLL_CLOEXEC), orders = atoi(argv[4]), events = atoi(argv[5]);
	uint32_t roles = atoi(argv[6]);
	struct side honest = become_peers(atoi(argv[2]));
	struct side hostile = become_peers(atoi(argv[3]));
	struct rpal_message m;
	pthread_t thread;
	uint64_t value;
	int heard = 1;

	introduce_receiver(&honest, roles);
	introduce_receiver(&hostile, roles);
	release = (struct release){ .socket = orders, .id = hostile.peer.id };
	pthread_create(&thread, NULL, leave_when_told, &release);
	while (!__atomic_load_n(&release.by, __ATOMIC_SEQ_CST))
		sched_yield();
	epoll_ctl(epfd, EPOLL_CTL_ADD, events, &kernel);
	MUST(rpal_call_event(&call));
	for (;;) {
		int n = rpal_epoll_wait(epfd, &event, 1, -1);

		if (n == 1 && event.data.u64 == 2 && read(events, &value, 8) == 8) {
			if (value == PRETEND)
				pretend_to_be_called();
			else
				tell(orders, &heard, sizeof(heard));
		} else if (n == 1 && rpal_take(&m, NULL) == 1)
			rpal_reply(0, &m);
	}
}

/* --client SOCKET ORDERS */
static void client(char **argv)
{
	struct side side = become_peers(atoi(argv[2]));
	int orders = atoi(argv[3]);

	meet_receiver(&side);
	for (;;) {
		struct rpal_message m = {};
		int ret;

		if (hear_order(orders).order == LEAVE)
			ret = rpal_detach();
		else
			ret = rpal_call(&side.target, &m, -1);
		tell(orders, &ret, sizeof(ret));
	}
}

static void *do_nothing(void *tid)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	__atomic_store_n((uint32_t *)tid, rpal_tid(), __ATOMIC_SEQ_CST);
	for (;;)
		pause();
	return NULL;
}

/* Nothing but SIGKILL ends its wait. */
static void *wait_for_child(void *tid)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	__atomic_store_n((uint32_t *)tid, rpal_tid(), __ATOMIC_SEQ_CST);
	if (!vfork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return NULL;
}

static void *serve_nobody(void *tid)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;

	MUST(rpal_attach(RPAL_ROLE_RECEIVER));
	__atomic_store_n((uint32_t *)tid, rpal_tid(), __ATOMIC_SEQ_CST);
	for (;;)
		rpal_epoll_wait(epfd, &event, 1, -1);
	return NULL;
}

/*
 * From then on the kernel would take the server's context for this thread's.
 * Without a word of TLS until its own FS base is back.
 */
static long register_as(uint64_t fs_base, uint32_t roles)
{
	struct rpal_register request = { .roles = roles };
	uint64_t own;
	long ret, device = open("/dev/rpal", O_RDWR | O_CLOEXEC);

	asm volatile("rdfsbase %[own]\n\t"
		     "wrfsbase %[theirs]\n\t"
		     "syscall\n\t"
		     "wrfsbase %[own]"
		     : "=a"(ret), [own] "=&r"(own)
		     : "a"(SYS_ioctl), "D"(device), "S"(RPAL_IOC_REGISTER), "d"(&request),
		       [theirs] "r"(fs_base)
		     : "rcx", "r11", "memory");
	close(device);
	return ret;
}

struct theft {
	uint64_t fs_base;
	uint32_t roles;
	long ret;
};

static void *steal_fs_base(void *arg)
{
	struct theft *theft = arg;

	/* The area of rseq has to go, and librpal knows how. */
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	MUST(rpal_detach());
	theft->ret = register_as(theft->fs_base, theft->roles);
	return NULL;
}

/* The thread with the control block behind that of the server's receiver. */
static struct rpal_control *leaver_of(const struct side *server)
{
	return (void *)server->target.control + RPAL_CONTROL_STRIDE;
}

/* In a FORGE: who has the context, and whose it is if not the server's. */
#define BY_THREAD  (1UL << 63) /* the thread that does nothing */
#define BY_ITSELF  (1UL << 62) /* the server */
#define BY_LEAVER  (1UL << 61) /* who releases the forger */
#define OF_LEAVER  (1UL << 60)
#define OF_FORGER  (1UL << 59) /* a receiver of its own */
#define BY_PARENT  (1UL << 58) /* the thread that waits for its child */

/* --hostile SOCKET ORDERS */
static void hostile(char **argv)
{
	struct side side = become_peers(atoi(argv[2]));
	int orders = atoi(argv[3]), done = 0;
	uint32_t idle = 0, receiver = 0, parent = 0;
	struct rpal_control *own;
	pthread_t threads[3];

	meet_receiver(&side);
	pthread_create(&threads[0], NULL, do_nothing, &idle);
	pthread_create(&threads[1], NULL, serve_nobody, &receiver);
	pthread_create(&threads[2], NULL, wait_for_child, &parent);
	while (!__atomic_load_n(&idle, __ATOMIC_SEQ_CST) ||
	       !__atomic_load_n(&receiver, __ATOMIC_SEQ_CST) ||
	       !__atomic_load_n(&parent, __ATOMIC_SEQ_CST))
		sched_yield();
	own = (void *)own_control() + (RPAL_TID_INDEX(receiver) - RPAL_TID_INDEX(rpal_tid())) *
					      RPAL_CONTROL_STRIDE;
	for (;;) {
		struct rpal_control *of = side.target.control;
		struct word word = hear_order(orders);
		uint64_t value = word.value, by = 0;

		if (word.order == STEAL) {
			struct theft theft = { .roles = value };

			if (value == RPAL_ROLE_SENDER)
				theft.fs_base = of->fs_base;
			pthread_create(&threads[0], NULL, steal_fs_base, &theft);
			pthread_join(threads[0], NULL);
			done = theft.ret;
			tell(orders, &done, sizeof(done));
			continue;
		}
		if (value & OF_LEAVER)
			of = leaver_of(&side);
		if (value & OF_FORGER)
			of = own;
		if (value & BY_LEAVER)
			by = leaver_of(&side)->tid;
		if (value & BY_THREAD)
			by = idle;
		if (value & BY_PARENT)
			by = parent;
		if (value & BY_ITSELF)
			by = side.target.tid;
		/* It has parked: nothing else writes the word. */
		while (of != leaver_of(&side) && (of->state & 0xff) == RPAL_STATE_RUN)
			sched_yield();
		of->state = by << 32 | (value & 0xffff);
		tell(orders, &done, sizeof(done));
	}
}

/* ---- The test --------------------------------------------------------------- */

static struct party the_server, the_client, the_forger;
static int event_fd;
static uint32_t server_roles = RPAL_ROLE_RECEIVER;

static struct party start_party(char *role, int socket, int second, int third)
{
	int orders[2], number = 0;
	char text[5][16];
	char *args[8] = { "party", role };
	struct party party;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, orders))
		die("socketpair", errno);
	int fds[] = { dup(socket), second < 0 ? -1 : dup(second), dup(orders[1]),
		      third < 0 ? -1 : dup(third) };

	for (int i = 0; i < 4; i++) {
		if (fds[i] < 0)
			continue;
		snprintf(text[number], sizeof(text[number]), "%d", fds[i]);
		args[2 + number] = text[number];
		number++;
	}
	if (third >= 0) {
		snprintf(text[number], sizeof(text[number]), "%u", server_roles);
		args[2 + number] = text[number];
	}
	party.pid = start_as(true, USER, args);
	party.socket = orders[0];
	for (int i = 0; i < 4; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	close(orders[1]);
	return party;
}

static void start_all(void)
{
	int honest[2], evil[2];

	event_fd = eventfd(0, EFD_CLOEXEC);
	if (event_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, honest) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, evil))
		die("sockets", errno);
	the_server = start_party("--server", honest[0], evil[0], event_fd);
	the_client = start_party("--client", honest[1], -1, -1);
	the_forger = start_party("--hostile", evil[1], -1, -1);
	for (int i = 0; i < 2; i++) {
		close(honest[i]);
		close(evil[i]);
	}
}

static void order(struct party *party, enum order order, uint64_t value)
{
	struct word word = { order, value };

	tell(party->socket, &word, sizeof(word));
}

/* Whether there is an answer, or the party has ended. */
static bool answers(struct party *party)
{
	struct pollfd answer = { .fd = party->socket, .events = POLLIN };

	return poll(&answer, 1, FOR_EVER) == 1;
}

static int answer_of(struct party *party)
{
	int answer = -ESHUTDOWN;

	if (read(party->socket, &answer, sizeof(answer)) != sizeof(answer))
		answer = -ESHUTDOWN;
	return answer;
}

static void forge(uint64_t value)
{
	order(&the_forger, FORGE, value);
	answer_of(&the_forger);
}

static void raise_event(enum event event)
{
	eventfd_write(event_fd, event);
}

static void kill_party(struct party *party)
{
	kill(party->pid, SIGKILL);
	waitpid(party->pid, NULL, 0);
	close(party->socket);
	party->pid = 0;
}

static void end_all(void)
{
	kill_party(&the_client);
	if (the_forger.pid)
		kill_party(&the_forger);
	if (the_server.pid)
		kill_party(&the_server);
	close(event_fd);
}

/* They work as long as nobody forges anything. */
static void start_working(void)
{
	start_all();
	order(&the_client, CALL, 0);
	if (answer_of(&the_client))
		die("the first call", EPROTO);
	raise_event(TELL);
	if (answer_of(&the_server) != 1)
		die("the first event", EPROTO);
}

static void test_events(void)
{
	static const struct {
		uint64_t word;
		const char *what;
	} forged[] = {
		{ RPAL_STATE_LENT | BY_THREAD, "lent" },
		{ RPAL_STATE_LENT | BY_PARENT, "lent to who waits for its child" },
		{ RPAL_STATE_ACTIVE | BY_THREAD, "running" },
		{ RPAL_STATE_RETURNING | BY_THREAD, "on its way back" },
		{ RPAL_STATE_LENT | RPAL_FLAG_WANTED | BY_THREAD, "lent and wanted" },
		{ RPAL_STATE_PARKED | BY_THREAD, "another that is parked" },
		{ RPAL_STATE_RUN, "not parked" },
		{ 0x77 | BY_ITSELF, "in no known state" },
	};

	for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
		start_working();
		forge(forged[i].word);
		raise_event(TELL);
		ok(answers(&the_server), "an event comes to a server that is said to be %s",
		   forged[i].what);
		end_all();
	}
}

static void test_callers(void)
{
	/* Of a receiver that is parked. */
	static const uint64_t impossible[] = {
		RPAL_STATE_RUN,
		RPAL_STATE_PARKED | BY_THREAD,
		0x77,
	};

	start_working();
	forge(RPAL_STATE_LENT | BY_THREAD);
	order(&the_client, CALL, 0);
	usleep(50000);
	forge(RPAL_STATE_PARKED | BY_ITSELF);
	ok(answers(&the_client), "a caller goes on although CONTENDED was overwritten");
	end_all();

	for (size_t i = 0; i < sizeof(impossible) / sizeof(impossible[0]); i++) {
		start_working();
		forge(impossible[i]);
		order(&the_client, CALL, 0);
		ok(answers(&the_client), "a caller goes on although the server has word %llx",
		   (unsigned long long)impossible[i]);
		end_all();
	}

	start_working();
	forge(RPAL_STATE_LENT | BY_THREAD);
	order(&the_client, CALL, 0);
	ok(answers(&the_client) && answer_of(&the_client) == 0,
	   "a caller is served although somebody is said to have borrowed the server");
	end_all();

	start_working();
	forge(RPAL_STATE_LENT | BY_THREAD);
	order(&the_client, CALL, 0);
	usleep(50000);
	kill_party(&the_forger);
	ok(answers(&the_client), "a caller goes on when the one who is said to have borrowed ends");
	end_all();
}

static void test_release(void)
{
	static const struct {
		uint64_t word;
		const char *what;
	} forged[] = {
		{ RPAL_STATE_LENT | BY_THREAD, "is said to have borrowed it" },
		{ RPAL_STATE_LENT | BY_PARENT, "is said to have borrowed it and waits for a child" },
		{ RPAL_STATE_LENT | OF_FORGER | BY_LEAVER, "is said to be borrowed by who does that" },
		{ RPAL_STATE_ACTIVE | OF_LEAVER | BY_THREAD, "is said to have borrowed who does that" },
	};

	for (size_t i = 0; i < sizeof(forged) / sizeof(forged[0]); i++) {
		start_working();
		forge(forged[i].word);
		order(&the_server, LEAVE, 0);
		ok(answers(&the_server), "the server gets rid of a peer that %s", forged[i].what);
		order(&the_client, CALL, 0);
		ok(answers(&the_client) && answer_of(&the_client) == 0, "and serves the others");
		end_all();
	}
}

/*
 * The server's task jumps to where the client's would: to code of the client,
 * which makes system calls.
 */
static void test_impostor(void)
{
	for (int i = 0; i < 4; i++) {
		bool calls = i & 1, client_left = i & 2, ended;
		int status = 0;

		server_roles = RPAL_ROLE_RECEIVER | (calls ? RPAL_ROLE_SENDER : 0);
		start_working();
		if (client_left) {
			order(&the_client, LEAVE, 0);
			MUST(answer_of(&the_client));
		}
		raise_event(PRETEND);
		ended = answers(&the_server) && answer_of(&the_server) == -ESHUTDOWN;
		if (ended) {
			waitpid(the_server.pid, &status, 0);
			the_server.pid = 0;
		}
		ok(ended && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV,
		   "a server%s does not act for a client whose call is forged%s",
		   calls ? " that calls, too," : "", client_left ? ", and that has left" : "");
		end_all();
	}
	server_roles = RPAL_ROLE_RECEIVER;
}

static void test_stolen_fs_base(void)
{
	start_working();
	order(&the_forger, STEAL, RPAL_ROLE_SENDER);
	is(answer_of(&the_forger), -EINVAL, "nobody registers with a peer's FS base");
	/* A sender may have the same one. */
	order(&the_forger, STEAL, RPAL_ROLE_RECEIVER);
	is(answer_of(&the_forger), -EINVAL, "nor a receiver with one outside of its slot");
	end_all();
}

int main(int argc, char **argv)
{
	int tasks, log;

	RUN_IDLE_SERVICE(argc, argv);
	if (argc == 7 && !strcmp(argv[1], "--server"))
		server(argv);
	if (argc == 4 && !strcmp(argv[1], "--client"))
		client(argv);
	if (argc == 4 && !strcmp(argv[1], "--hostile"))
		hostile(argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	signal(SIGPIPE, SIG_IGN);
	log = kernel_log_from_now();
	exception_trace("0");
	tasks = count_tasks();
	test_events();
	test_callers();
	test_release();
	test_impostor();
	test_stolen_fs_base();
	tasks_are_gone(tasks);
	ids_are_free(PKEYS);
	exception_trace("1");
	kernel_log_is_quiet_but(log, FORGED);
	return done();
}
