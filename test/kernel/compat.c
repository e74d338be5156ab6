/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A program as it was written for the original user library: it includes
 * rpal_compat.h alone, marks its ELF header, listens on a Unix socket, exchanges
 * keys, and uses every function of that interface.
 *
 * The test executes a marked copy of itself as a server and as a client. The
 * client tells the server what to do by bytes on the socket that they share,
 * and prints the TAP lines.
 */
#include <rpal_compat.h>

#include "marked_program.h"
#include "tap.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	printf("Bail out! %s: %s (pid %d)\n", what, strerror(errno), getpid());
	fflush(stdout);
	_exit(99);
}

static void say(int socket, const void *data, size_t bytes)
{
	if (write(socket, data, bytes) != (ssize_t)bytes)
		die("write");
}

static void hear(int socket, void *data, size_t bytes)
{
	ssize_t got = recv(socket, data, bytes, MSG_WAITALL);

	if (got != (ssize_t)bytes)
		die("read");
}

/* What the server says of itself, when the two are peers. */
struct hello {
	int fd;
	int64_t *number;
};

/* What the client says to the server, as an int64_t. */
enum {
	RECEIVE,    /* becomes a receiver and registers the socket: EPOLLRPALIN */
	STOP,	    /* does not take words from now on */
	GO,	    /* takes them again */
	UNREGISTER, /* removes the socket from its epoll file */
	ADD_UP,	    /* words are numbers: answers with their sum */
	FOLLOW,	    /* words are pointers to numbers of the client: the same */
	LIMITS,	    /* answers: whether the limits of receivers are kept */
	COUNTERS,   /* answers: whether they are printed */
	LEAVE,	    /* rpal_exit(), and comes back */
	END,
};

static int connection, epfd, rpal_fd;
static uint64_t peer_key;
static int peer_id;

static uint64_t abstract_address(struct sockaddr_un *address, const char *name)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "%s", name);
	return sizeof(*address);
}

/* Both: each tells its key, requests the other, and waits until it has as well. */
static void become_peers(int socket)
{
	uint64_t key;
	char byte = 'r';
	int ret;

	if (rpal_get_service_key(&key))
		die("rpal_get_service_key");
	say(socket, &key, sizeof(key));
	hear(socket, &peer_key, sizeof(peer_key));
	ret = rpal_request_service(peer_key);
	if (ret) {
		errno = ret;
		die("rpal_request_service");
	}
	say(socket, &byte, 1);
	hear(socket, &byte, 1);
	peer_id = rpal_get_request_service_id(peer_key);
}

/* In the server: for the client to read, in place. */
static volatile int64_t number = 0x5eed;

static int64_t sum;

/* Handed a pointer by the client. */
static int add(va_list args)
{
	const int64_t *number = va_arg(args, const int64_t *);
	int times = va_arg(args, int);

	sum += *(volatile const int64_t *)number * times;
	return 7;
}

static void take_words(int how)
{
	int64_t words[64], answer[2] = { 0, 0 };
	int n = rpal_read_ptrs(connection, words, 64), ret = 0;

	if (n < 0)
		die("rpal_read_ptrs");
	if (!n)
		return;
	sum = 0;
	for (int i = 0; i < n; i++) {
		if (how == ADD_UP) {
			sum += words[i];
			continue;
		}
		if (how == FOLLOW && rpal_copy_prepare(peer_id))
			die("rpal_copy_prepare");
		ret = 0;
		if (rpal_read_access_safety(add, &ret, (int64_t *)words[i], 1))
			answer[1] = errno;
		else if (ret != 7)
			answer[1] = -1;
		if (how == FOLLOW && rpal_copy_finish())
			die("rpal_copy_finish");
	}
	answer[0] = sum;
	say(connection, answer, sizeof(answer));
}

static pthread_barrier_t both_have_tried;

/* Ends without rpal_receiver_exit(). */
static void *try_receiver(void *result)
{
	int ret = rpal_receiver_init();

	*(int *)result = ret < 0 ? -errno : 0;
	pthread_barrier_wait(&both_have_tried);
	return NULL;
}

static int64_t check_limits(void)
{
	int first = rpal_receiver_init();
	pthread_t threads[2];
	int results[2];

	if (first < 0 || rpal_receiver_init() != first || write(first, &(uint64_t){ 1 }, 8) != 8)
		return 1;
	pthread_barrier_init(&both_have_tried, NULL, 2);
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 2; i++)
			pthread_create(&threads[i], NULL, try_receiver, &results[i]);
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		/* Two are allowed, and this thread is one. */
		if (results[0] + results[1] != -EUSERS)
			return 2;
	}
	return 0;
}

static int64_t check_counters(void)
{
	char text[512] = "";
	int out = dup(1), pipes[2];

	fflush(stdout);
	if (pipe(pipes))
		die("pipe");
	dup2(pipes[1], 1);
	rpal_recver_count_print();
	rpal_sender_count_print();
	fflush(stdout);
	dup2(out, 1);
	close(out);
	close(pipes[1]);
	if (read(pipes[0], text, sizeof(text) - 1) < 0)
		die("read");
	close(pipes[0]);
	return !strstr(text, "receiver: ") || !strstr(text, "sender: ") ||
	       strstr(text, "receiver: 0 words");
}

static void order_epoll(int op, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = connection };

	if (rpal_epoll_ctl(epfd, op, connection, &event))
		die("rpal_epoll_ctl");
}

/* Returns whether it goes on. */
static bool obey(int *how)
{
	int64_t order, answer = 0;

	hear(connection, &order, sizeof(order));
	switch (order) {
	case RECEIVE:
		if (rpal_receiver_init() < 0)
			die("rpal_receiver_init");
		order_epoll(EPOLL_CTL_MOD, EPOLLIN | EPOLLRPALIN);
		break;
	case STOP:
		order_epoll(EPOLL_CTL_MOD, EPOLLIN);
		break;
	case GO:
		order_epoll(EPOLL_CTL_MOD, EPOLLIN | EPOLLRPALIN);
		break;
	case UNREGISTER:
		order_epoll(EPOLL_CTL_DEL, 0);
		order_epoll(EPOLL_CTL_ADD, EPOLLIN);
		break;
	case ADD_UP:
	case FOLLOW:
		*how = order;
		break;
	case LIMITS:
		answer = check_limits();
		break;
	case COUNTERS:
		answer = check_counters();
		break;
	case LEAVE:
		if (rpal_receiver_exit())
			die("rpal_receiver_exit");
		rpal_exit();
		say(connection, &answer, sizeof(answer));
		hear(connection, &answer, sizeof(answer));
		rpal_fd = rpal_init(2, 0, NULL);
		if (rpal_fd < 0)
			die("rpal_init");
		become_peers(connection);
		if (rpal_receiver_init() < 0)
			die("rpal_receiver_init");
		return true;
	case END:
		return false;
	}
	say(connection, &answer, sizeof(answer));
	return true;
}

static int server(const char *name)
{
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), how = ADD_UP;
	rpal_error_code_t error = RPAL_ERR_INVAL;
	struct sockaddr_un address;
	struct epoll_event event = { .events = EPOLLIN };
	int length = abstract_address(&address, name);
	struct hello hello;

	rpal_fd = rpal_init(2, 0, &error);
	if (rpal_fd < 0 || error)
		die("rpal_init");
	if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1))
		die(name);
	/* Whoever starts us waits for this. */
	say(0, "l", 1);
	connection = accept(listener, NULL, NULL);
	if (connection < 0)
		die("accept");
	close(listener);
	become_peers(connection);
	hello = (struct hello){ connection, (int64_t *)&number };
	say(connection, &hello, sizeof(hello));

	epfd = epoll_create1(EPOLL_CLOEXEC);
	event.data.fd = connection;
	if (rpal_epoll_ctl(epfd, EPOLL_CTL_ADD, connection, &event))
		die("rpal_epoll_ctl");
	for (;;) {
		struct epoll_event events[8];
		int n = rpal_epoll_wait(epfd, events, 8, -1);

		if (n < 0 && errno != EINTR)
			die("rpal_epoll_wait");
		for (int i = 0; i < n; i++) {
			if (events[i].events & EPOLLHUP)
				return 0;
			if (events[i].events & EPOLLIN && !obey(&how))
				return 0;
			if (events[i].events & EPOLLRPALIN)
				take_words(how);
		}
	}
}

/* @standard_input: becomes descriptor 0, if it is not negative. */
static pid_t start(int program, const char *role, const char *argument, int standard_input)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (standard_input >= 0)
		dup2(standard_input, 0);
	fexecve(program, (char *[]){ "compat", (char *)role, (char *)argument, NULL }, environ);
	die("fexecve");
	return 0;
}

/* The client's program file, for more servers. */
static int program;

static pid_t start_server(const char *name)
{
	int pair[2];
	pid_t pid;
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	pid = start(program, "server", name, pair[1]);
	close(pair[1]);
	hear(pair[0], &byte, 1);
	close(pair[0]);
	return pid;
}

static int connect_to(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	int length = abstract_address(&address, name);

	if (connect(fd, (struct sockaddr *)&address, length))
		die(name);
	return fd;
}

static int64_t tell(int64_t what)
{
	int64_t answer;

	say(connection, &what, sizeof(what));
	hear(connection, &answer, sizeof(answer));
	return answer;
}

/* A status_t or a descriptor, as -errno if it is -1. */
#define failed(call) result(call)

static uint64_t sid_fd(int id, int fd)
{
	return (uint64_t)id << 32 | (uint32_t)fd;
}

static void test_before_init(void)
{
	rpal_error_code_t error = RPAL_ERR_NONE;
	uint64_t key, rpalfd;
	int64_t word = 1;

	is(failed(rpal_get_service_id()), -EPERM, "no id before rpal_init()");
	is(failed(rpal_get_service_key(&key)), -EPERM, "no key");
	is(failed(rpal_receiver_init()), -EPERM, "no receiver");
	is(failed(rpal_sender_init(&error)), -EPERM, "no sender");
	is(error, RPAL_DONT_INITED, "because of that");
	is(rpal_request_service(1), RPAL_DONT_INITED, "no request");
	is(rpal_release_service(1), RPAL_DONT_INITED, "no release");
	is(failed(rpal_uds_fdmap(sid_fd(1, 0), &rpalfd)), -EPERM, "no map");
	is(rpal_write_ptrs(1, 0, &word, 1), -RPAL_DONT_INITED, "no words");
	is(failed(rpal_copy_prepare(1)), -ESRCH, "no copy");
	rpal_exit();

	is(failed(rpal_init(0, 0, &error)), -EINVAL, "room for no receivers");
	is(error, RPAL_INVALID_ARG, "is a wrong argument");
	error = RPAL_ERR_INVAL;
	rpal_fd = rpal_init(1, 0, &error);
	ok(rpal_fd >= 0 && !error, "rpal_init");
	is(rpal_init(1, 0, NULL), rpal_fd, "a second time is the same");
	ok(rpal_get_service_id() > 0 && !rpal_get_service_key(&key) && key, "it has an id and a key");
	is(rpal_request_service(key), RPAL_ERR_BAD_ARG, "its own key cannot be requested");
	is(rpal_request_service(key ^ 1), RPAL_ERR_NO_SERVICE, "nor can nobody's");
	is(rpal_release_service(key ^ 1), RPAL_ERR_NO_SERVICE, "nor be released");
	is(failed(rpal_get_request_service_id(key ^ 1)), -ESRCH, "nor has it an id");
}

static void test_threads(void)
{
	rpal_error_code_t error = RPAL_ERR_INVAL;
	int fd;

	is(failed(rpal_receiver_exit()), -EINVAL, "not a receiver yet");
	fd = rpal_receiver_init();
	ok(fd >= 0, "a receiver has an eventfd");
	is(rpal_receiver_init(), fd, "the same the next time");
	is(rpal_receiver_exit(), 0, "it gives that up");
	is(rpal_receiver_init() >= 0, 1, "and becomes one again");
	is(failed(rpal_sender_exit()), -EINVAL, "not a sender yet");
	is(rpal_sender_init(&error), RPAL_SUCCESS, "a sender, too");
	is(error, RPAL_ERR_NONE, "without an error");
	is(rpal_sender_exit(), RPAL_SUCCESS, "and no more");
	is(rpal_sender_init(NULL), RPAL_SUCCESS, "and again");
}

static uint64_t rpalfd;

static void test_map(int their_fd)
{
	int pair[2], rid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	is(failed(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd)), -EAGAIN,
	   "the server has not registered its end");
	is(failed(rpal_get_peer_rid(sid_fd(peer_id, connection))), -EAGAIN, "nor has a receiver");
	is(tell(RECEIVE), 0, "it does");
	is(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd), RPAL_SUCCESS, "rpal_uds_fdmap");
	is((uint32_t)rpalfd, their_fd, "names the server's descriptor");
	rid = rpal_get_peer_rid(sid_fd(peer_id, connection));
	ok(rid >= 0 && rid == (int)(rpalfd >> 32 & 0xffff), "and its receiver");
	is(failed(rpal_uds_fdmap(sid_fd(peer_id, -1), &rpalfd)), -EBADF, "no descriptor");
	is(failed(rpal_uds_fdmap(sid_fd(peer_id, epfd), &rpalfd)), -ENOTSOCK, "no socket");
	is(failed(rpal_uds_fdmap(sid_fd(peer_id, pair[0]), &rpalfd)), -ENOENT,
	   "a socket to somebody else");
	is(failed(rpal_uds_fdmap(sid_fd(254, connection), &rpalfd)), -ESRCH, "not a peer");
	is(failed(rpal_uds_fdmap(sid_fd(9999, connection), &rpalfd)), -ESRCH, "nor that");
	is(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd), RPAL_SUCCESS, "once more");
	close(pair[0]);
	close(pair[1]);
}

/* Writes the words and hears what the server answers: sum, and its errors. */
static bool ask_sum(int64_t *words, int n, int64_t expected, int64_t error)
{
	int64_t answer[2];
	int ret = rpal_write_ptrs(peer_id, rpalfd, words, n);

	if (ret != n) {
		printf("# rpal_write_ptrs: %d\n", ret);
		return false;
	}
	hear(connection, answer, sizeof(answer));
	return answer[0] == expected && answer[1] == error;
}

static void test_words(void)
{
	int64_t words[33];
	long wrong = 0;

	for (int i = 0; i < 33; i++)
		words[i] = i + 1;
	is(rpal_write_ptrs(peer_id, rpalfd, words, 0), -RPAL_INVALID_ARG, "no words");
	is(rpal_write_ptrs(peer_id, rpalfd, words, -1), -RPAL_INVALID_ARG, "fewer");
	is(rpal_write_ptrs(peer_id, rpalfd, words, 33), -RPAL_INVALID_ARG, "too many");
	is(rpal_write_ptrs(-1, rpalfd, words, 1), -RPAL_INVAL_SERVICE, "service -1");
	is(rpal_write_ptrs(254, rpalfd, words, 1), -RPAL_INVAL_SERVICE, "not a peer");
	is(rpal_write_ptrs(peer_id, rpalfd + 1, words, 1), -RPAL_INVAL_SERVICE,
	   "a descriptor that is not mapped");
	is(rpal_write_ptrs(peer_id, rpalfd ^ 1ULL << 60, words, 1), -RPAL_FDE_OUTDATED,
	   "one that was mapped before");
	ok(ask_sum(words, 1, 1, 0), "a word, and an answer on the socket");
	ok(ask_sum(words, 32, 32 * 33 / 2, 0), "32 words");
	for (int i = 0; i < 2000; i++) {
		int n = 1 + i % 32;

		words[0] = i;
		wrong += !ask_sum(words, n, n * (n + 1) / 2 - 1 + i, 0);
	}
	is(wrong, 0, "2000 times");
	is(failed(rpal_read_ptrs(connection, words, 1)), 0, "nothing has come the other way");
	is(failed(rpal_read_ptrs(connection, words, 0)), -EINVAL, "room for no words");
	is(failed(rpal_read_ptrs(epfd, words, 1)), -EBADF, "a descriptor without a queue");
}

/* EPOLLRPALOUT, rpal_epoll_wait_user(), an old map. */
static void test_room(void)
{
	struct epoll_event event = { .events = EPOLLRPALOUT, .data.u64 = 0x1234 };
	struct epoll_event event_in = { .events = EPOLLIN, .data.u64 = 0x5678 }, events[4];
	int64_t word = 1, answer[2], total = 0;
	int n = 0, kernel = rpal_receiver_init();

	is(failed(rpal_epoll_ctl(epfd, EPOLL_CTL_MOD, connection, &event)), -ENOENT,
	   "modify what is not registered");
	is(failed(rpal_epoll_ctl(-1, EPOLL_CTL_ADD, connection, &event)), -EBADF, "no epoll file");
	is(rpal_epoll_ctl(epfd, EPOLL_CTL_ADD, connection, &event), 0, "register for EPOLLRPALOUT");
	is(failed(rpal_epoll_ctl(epfd, EPOLL_CTL_ADD, connection, &event)), -EEXIST, "twice");
	is(tell(STOP), 0, "the server does not take words");
	while (rpal_write_ptrs(peer_id, rpalfd, &word, 1) == 1)
		n++;
	is(n, 64, "so many words have room");
	is(rpal_write_ptrs(peer_id, rpalfd, &word, 1), -RPAL_QUEUE_PUT_FAILED, "no more");
	is(rpal_epoll_wait_user(epfd, events, 4, -1), 0, "there is nothing, and no waiting");
	is(failed(rpal_epoll_wait_user(epfd, events, 0, 0)), -EINVAL, "room for no events");
	is(rpal_epoll_wait(epfd, events, 4, 0), 0, "nor here");
	is(tell(GO), 0, "it does again");
	while (total < n) {
		hear(connection, answer, sizeof(answer));
		total += answer[0];
	}
	is(rpal_epoll_wait(epfd, events, 4, 10000), 1, "then there is");
	ok(events[0].events == EPOLLRPALOUT && events[0].data.u64 == 0x1234, "EPOLLRPALOUT");
	ok(ask_sum(&word, 1, 1, 0), "and room");

	rpal_epoll_ctl(epfd, EPOLL_CTL_ADD, kernel, &event_in);
	if (write(kernel, &(uint64_t){ 1 }, 8) != 8)
		die("eventfd");
	is(rpal_epoll_wait(epfd, events, 4, 10000), 1, "an event of the kernel");
	ok(events[0].events == EPOLLIN && events[0].data.u64 == 0x5678, "which it is");
	is(rpal_epoll_wait_user(epfd, events, 4, 0), 0, "is none of RPAL's");
	rpal_epoll_ctl(epfd, EPOLL_CTL_DEL, kernel, NULL);

	is(tell(UNREGISTER), 0, "the server removes the socket from its epoll file");
	is(rpal_write_ptrs(peer_id, rpalfd, &word, 1), -RPAL_FDE_OUTDATED, "the map is old");
	is(tell(GO), 0, "it registers it again");
	is(rpal_write_ptrs(peer_id, rpalfd, &word, 1), -RPAL_FDE_OUTDATED, "it stays old");
	is(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd), RPAL_SUCCESS, "until it is made anew");
	ok(ask_sum(&word, 1, 1, 0), "then words arrive");
	is(rpal_epoll_ctl(epfd, EPOLL_CTL_DEL, connection, NULL), 0, "unregister");
}

static int own_number(va_list args)
{
	return va_arg(args, int) + 1;
}

static sigjmp_buf after_fault;

static void on_fault(int signal)
{
	siglongjmp(after_fault, 1);
}

/* Or -1, where that is a bad access. */
static int64_t peek(volatile int64_t *address)
{
	int64_t value = -1;

	signal(SIGSEGV, on_fault);
	if (!sigsetjmp(after_fault, 1))
		value = *address;
	signal(SIGSEGV, SIG_DFL);
	return value;
}

static void test_pointers(int64_t *theirs)
{
	int64_t *numbers = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				0);
	int64_t words[3] = { (intptr_t)numbers, (intptr_t)(numbers + 1), (intptr_t)(numbers + 512) };
	int ret = 0;

	numbers[0] = 100;
	numbers[1] = 20;
	numbers[512] = 3;
	is(tell(FOLLOW), 0, "words that are pointers");
	ok(ask_sum(words, 3, 123, 0), "the server reads what they point to");
	munmap(numbers + 512, 4096);
	ok(ask_sum(words, 3, 120, EFAULT), "one points to memory that has gone: it notices");
	numbers[1] = 30;
	ok(ask_sum(words, 2, 130, 0), "and goes on");
	is(tell(ADD_UP), 0, "no pointers any more");

	is(failed(rpal_copy_finish()), -EINVAL, "nothing to finish");
	is(failed(rpal_copy_prepare(254)), -ESRCH, "nobody to prepare for");
	is(peek(theirs), -1, "the server's memory is closed");
	is(rpal_copy_prepare(peer_id), RPAL_SUCCESS, "rpal_copy_prepare");
	is(peek(theirs), 0x5eed, "it is open");
	ok(ask_sum(words + 2, 1, words[2], 0), "words while a copy is prepared");
	is(peek(theirs), 0x5eed, "it is still open");
	is(rpal_copy_finish(), RPAL_SUCCESS, "rpal_copy_finish");
	is(peek(theirs), -1, "it is closed again");
	is(rpal_read_access_safety(own_number, &ret, 41), RPAL_SUCCESS, "a function of its own");
	is(ret, 42, "gets its arguments and gives its result");
	munmap(numbers, 4096);
}

static volatile int released;

static void *release_it(void *key)
{
	rpal_release_service(*(uint64_t *)key);
	released = 1;
	return NULL;
}

static bool readable(void)
{
	struct pollfd fd = { .fd = rpal_fd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

static void test_death(pid_t first)
{
	struct pollfd gone = { .fd = rpal_fd, .events = POLLIN };
	int64_t word = 1, token = 0;
	uint64_t first_key = peer_key, other_key;
	struct hello hello;
	pthread_t thread;
	pid_t other;
	int socket;

	is(readable(), 0, "nobody has gone");
	other = start_server("rpal-compat-other");
	socket = connect_to("rpal-compat-other");
	become_peers(socket);
	other_key = peer_key;
	hear(socket, &hello, sizeof(hello));
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	is(poll(&gone, 1, 10000), 1, "a peer dies: the descriptor is readable");
	kill(first, SIGKILL);
	waitpid(first, NULL, 0);
	peer_id = rpal_get_request_service_id(first_key);
	/* Not at once: its memory goes some time after it. */
	while (rpal_write_ptrs(peer_id, rpalfd, &word, 1) == 1)
		;
	is(rpal_write_ptrs(peer_id, rpalfd, &word, 1), -RPAL_ERR_PEER_MEM,
	   "another dies: words do not arrive");
	is(failed(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd)), -ESRCH,
	   "nor can it be mapped");

	rpal_clean_service_start(&token);
	pthread_create(&thread, NULL, release_it, &other_key);
	for (int i = 0; i < 100; i++)
		sched_yield();
	is(released, 0, "nobody releases while another thread cleans up");
	rpal_clean_service_end(&token);
	pthread_join(thread, NULL);
	is(released, 1, "afterwards it does");
	is(readable(), 1, "the other that has gone is not forgotten");
	is(rpal_release_service(first_key), 0, "release it");
	is(readable(), 0, "then nobody is left");
	is(rpal_release_service(first_key), RPAL_ERR_NO_SERVICE, "it is no peer any more");
	is(rpal_write_ptrs(peer_id, rpalfd, &word, 1), -RPAL_INVAL_SERVICE, "for words either");
}

static void test_leave(void)
{
	int64_t order = LEAVE, answer, word = 5;

	say(connection, &order, sizeof(order));
	hear(connection, &answer, sizeof(answer));
	is(rpal_request_service(peer_key), RPAL_ERR_BAD_SERVICE_STATUS,
	   "after rpal_exit() the server cannot be requested");
	is(rpal_write_ptrs(peer_id, rpalfd, &word, 1), -RPAL_ERR_PEER_MEM, "nor get words");
	is(readable(), 1, "it has gone");
	is(rpal_release_service(peer_key), 0, "release it");
	is(readable(), 0, "done");
	say(connection, &answer, sizeof(answer));
	become_peers(connection);
	ok(peer_id > 0, "after another rpal_init() it can");
	is(tell(GO), 0, "it registers its end");
	is(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd), RPAL_SUCCESS, "map it");
	ok(ask_sum(&word, 1, 5, 0), "words arrive");
}

/* The id of a peer that has died, and was not released, is another's. */
static void test_successor(void)
{
	struct hello hello;
	int before, status;
	pid_t pid;

	pid = start_server("rpal-compat-first");
	connection = connect_to("rpal-compat-first");
	become_peers(connection);
	hear(connection, &hello, sizeof(hello));
	before = peer_id;
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	pid = start_server("rpal-compat-second");
	connection = connect_to("rpal-compat-second");
	become_peers(connection);
	hear(connection, &hello, sizeof(hello));
	is(peer_id, before, "a new peer has the id of one that died");
	is(tell(GO), 0, "it registers its end");
	is(rpal_uds_fdmap(sid_fd(peer_id, connection), &rpalfd), RPAL_SUCCESS,
	   "and is a peer, though the other one was not released");
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	is(rpal_release_service(peer_key), 0, "release it");
	is(readable(), 0, "nobody is left");
}

static int client(const char *name)
{
	struct hello hello;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	program = marked_program();
	test_before_init();
	test_threads();
	pid = start_server(name);
	connection = connect_to(name);
	become_peers(connection);
	hear(connection, &hello, sizeof(hello));
	is(rpal_request_service(peer_key), 0, "a request that was made already");
	epfd = epoll_create1(EPOLL_CLOEXEC);
	test_map(hello.fd);
	test_words();
	test_room();
	test_pointers(hello.number);
	is(tell(LIMITS), 0, "there are as many receivers as rpal_init() allowed");
	is(tell(COUNTERS), 0, "counters are printed");
	test_leave();
	test_death(pid);
	test_successor();
	rpal_exit();
	is(failed(rpal_get_service_id()), -EPERM, "after rpal_exit() there is no id");
	return done();
}

int main(int argc, char **argv)
{
	rpal_error_code_t error = RPAL_ERR_NONE;
	int status;
	pid_t pid;

	if (argc > 2 && !strcmp(argv[1], "server"))
		return server(argv[2]);
	if (argc > 2 && !strcmp(argv[1], "client"))
		return client(argv[2]);
	if (access("/dev/rpal", F_OK))
		skip_all("no /dev/rpal");
	if (rpal_init(1, 0, &error) != -1 || error != RPAL_ERR_RPAL_DISABLED) {
		printf("Bail out! rpal_init() of a program that is not marked: %d\n", error);
		return 1;
	}
	pid = start(marked_program(), "client", "rpal-compat", -1);
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("Bail out! the client died of signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}
