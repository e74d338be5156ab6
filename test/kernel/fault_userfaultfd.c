/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * The server resolves the page faults in its memory itself, by userfaultfd:
 * also those that its client's task has. Both can be interrupted and killed
 * while the client waits for that.
 */
#include "loan_limit.h"
#include "peer_access.h"
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#define PAGE   4096UL
#define PAGES  16
#define FILLED 0xfa17

/* What the server is asked for, in word 0. */
enum {
	MAKE,	  /* memory in which nothing is */
	PROTECT,  /* memory that must not be written to yet */
	SIGBUSES, /* memory in which faults are SIGBUS */
	COUNTS,	  /* of the faults that were resolved */
	HOLD,	  /* the next fault: say so on the socket, wait for an answer there */
	CLIENT,	  /* another client, which loads from word 1; its pid */
};

static struct side *us;
static volatile bool hold;
static int faults; /* the server's userfaultfd */
static volatile uint64_t missing, protected, by_client;
static uint32_t receiver_tid;

static void resolve(const struct uffd_msg *message)
{
	uint64_t page = message->arg.pagefault.address & ~(PAGE - 1);
	uint64_t content[PAGE / 8] = { FILLED };
	struct uffdio_copy copy = { .dst = page, .src = (uintptr_t)content, .len = PAGE };
	struct uffdio_writeprotect protect = { .range = { page, PAGE } };

	by_client += message->arg.pagefault.feat.ptid == (uint32_t)us->other;
	if (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
		protected++;
		if (ioctl(faults, UFFDIO_WRITEPROTECT, &protect))
			die("UFFDIO_WRITEPROTECT", errno);
		return;
	}
	missing++;
	/* EEXIST: somebody else had a fault there, too. */
	if (ioctl(faults, UFFDIO_COPY, &copy) && errno != EEXIST)
		die("UFFDIO_COPY", errno);
}

static void *resolve_faults(void *arg)
{
	struct uffd_msg message;
	char byte;

	while (read(faults, &message, sizeof(message)) == sizeof(message)) {
		if (hold) {
			hold = false;
			tell(us->socket, "f", 1);
			hear(us->socket, &byte, 1);
		}
		resolve(&message);
	}
	die("userfaultfd", errno);
	return NULL;
}

static int open_userfaultfd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		die("userfaultfd", errno);
	return fd;
}

static uint64_t make(int fd, uint64_t mode)
{
	uint64_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = { { (uintptr_t)memory, PAGES * PAGE }, mode, 0 };
	struct uffdio_writeprotect protect = { range.range, UFFDIO_WRITEPROTECT_MODE_WP };

	if (mode == UFFDIO_REGISTER_MODE_WP)
		for (uint64_t i = 0; i < PAGES; i++)
			memory[i * PAGE / 8] = FILLED;
	if (ioctl(fd, UFFDIO_REGISTER, &range) ||
	    (mode == UFFDIO_REGISTER_MODE_WP && ioctl(fd, UFFDIO_WRITEPROTECT, &protect)))
		die("UFFDIO_REGISTER", errno);
	return (uintptr_t)memory;
}

static pid_t start_client(uint64_t address)
{
	struct side side;
	pid_t pid;

	signal(SIGCHLD, SIG_IGN);
	side = start_peer("--client-of-its-own", 0, NULL, &pid);
	tell(side.socket, &receiver_tid, sizeof(receiver_tid));
	tell(side.socket, &address, sizeof(address));
	close(side.socket);
	return pid;
}

static int handle(struct rpal_message *m)
{
	if (handle_access(m))
		return 0;
	switch (m->word[0]) {
	case MAKE:
		m->word[0] = make(faults, UFFDIO_REGISTER_MODE_MISSING);
		return 0;
	case PROTECT:
		m->word[0] = make(faults, UFFDIO_REGISTER_MODE_WP);
		return 0;
	case SIGBUSES:
		m->word[0] =
			make(open_userfaultfd(UFFD_FEATURE_SIGBUS), UFFDIO_REGISTER_MODE_MISSING);
		return 0;
	case COUNTS:
		*m = (struct rpal_message){ { missing, protected, by_client } };
		return 0;
	case HOLD:
		hold = true;
		return 0;
	case CLIENT:
		m->word[0] = start_client(m->word[1]);
		return 0;
	default:
		return -ENOSYS;
	}
}

static void serve(struct side *side)
{
	pthread_t thread;

	us = side;
	receiver_tid = rpal_tid();
	faults = open_userfaultfd(UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	if (pthread_create(&thread, NULL, resolve_faults, NULL))
		die("pthread_create", errno);
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(side);
}

static uint64_t ask(struct side *side, uint64_t what, uint64_t argument)
{
	struct rpal_message m = { { what, argument } };

	MUST(rpal_call(&side->target, &m, -1));
	return m.word[0];
}

static void test_way(struct side *side, const struct way *way, bool protect)
{
	struct rpal_message before, after;
	uint64_t address, value;
	int ret;

	do {
		address = ask(side, protect ? PROTECT : MAKE, 0);
		before = (struct rpal_message){ { COUNTS } };
		MUST(rpal_call(&side->target, &before, -1));
		value = 0x5e7;
		ret = way->access(side, address + (way->store ? 8 : 0), &value);
		after = (struct rpal_message){ { COUNTS } };
		MUST(rpal_call(&side->target, &after, -1));
	} while (ret == -EREMCHG);

	if (way->store)
		value = ask(side, LOAD, address + 8) == 0x5e7 ? ask(side, LOAD, address) : 0;
	ok(!ret && value == FILLED && after.word[protect] == before.word[protect] + 1 &&
		   after.word[2] == before.word[2] + 1,
	   "%s, %s (%d, %#lx)", protect ? "protected" : "missing", way->name, ret, value);
}

static void test_sigbus(struct side *side)
{
	uint64_t address = ask(side, SIGBUSES, 0), value = 0;

	for (size_t i = 0; i < WAYS && !ways[i].loan; i++)
		ok(ways[i].access(side, address, &value) == -EFAULT, "SIGBUS, %s", ways[i].name);
}

/* What happens to whom while the client waits for a fault that is held. */
enum event { INTERRUPT, KILL_SERVER };

struct disturber {
	struct side *side;
	enum event event;
	bool wait; /* until the signal has been handled */
	pthread_t victim, thread;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	interrupted = true;
}

static void *disturb(void *arg)
{
	struct disturber *disturber = arg;
	char byte;

	hear(disturber->side->socket, &byte, 1);
	switch (disturber->event) {
	case INTERRUPT:
		pthread_kill(disturber->victim, SIGUSR1);
		while (disturber->wait && !interrupted)
			usleep(1000);
		tell(disturber->side->socket, "r", 1);
		break;
	case KILL_SERVER:
		kill(disturber->side->other, SIGKILL);
		break;
	}
	return NULL;
}

static int access_disturbed(struct side *side, const struct way *way, uint64_t address,
			    uint64_t *value, enum event event)
{
	/* A system call goes on, and its signal is handled at its end. */
	struct disturber disturber = {
		.side = side,
		.event = event,
		.wait = way->access != load_by_kernel,
		.victim = pthread_self(),
	};
	int ret;

	ask(side, HOLD, 0);
	interrupted = false;
	if (pthread_create(&disturber.thread, NULL, disturb, &disturber))
		die("pthread_create", errno);
	ret = way->access(side, address, value);
	pthread_join(disturber.thread, NULL);
	return ret;
}

static void test_interrupt(struct side *side, const struct way *way)
{
	uint64_t address = ask(side, MAKE, 0), value = 0;
	int ret = access_disturbed(side, way, address, &value, INTERRUPT);

	/* On loan, the signal makes the context go back to its own task. */
	ok(ret == (way->loan ? -EREMCHG : 0) && value == FILLED && interrupted,
	   "the client handles a signal while it waits, %s (%d, %#lx)", way->name, ret, value);
}

/* The last of its address space goes after it, when nobody has a fault there any more. */
static bool is_gone(struct side *side, const struct way *way, uint64_t address)
{
	uint64_t value;

	for (int i = 0; i < 5000; i++) {
		if (way->access(side, address, &value) == (way->loan ? -EOWNERDEAD : -EFAULT))
			return true;
		usleep(1000);
	}
	return false;
}

static void test_death(const struct way *way)
{
	uint64_t address, value = 0;
	struct side side;
	int ret, status;
	pid_t pid;

	side = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&side);
	address = ask(&side, MAKE, 0);
	ret = access_disturbed(&side, way, address, &value, KILL_SERVER);
	waitpid(pid, &status, 0);
	/* Its last act is that nobody resolves faults any more: there are zeroes, or nothing. */
	ok(way->loan ? ret == -EOWNERDEAD : (ret == -EFAULT || !ret) && !value,
	   "the server is killed while the client waits, %s (%d)", way->name, ret);
	ok(is_gone(&side, way, address), "and its memory is gone");
	close(side.socket);
}

/* A client that waits on loan is killed: the server has its context back. */
static void test_client_death(struct side *side)
{
	uint64_t address = ask(side, MAKE, 0);
	pid_t pid;
	char byte;

	ask(side, HOLD, 0);
	pid = ask(side, CLIENT, address);
	hear(side->socket, &byte, 1);
	kill(pid, SIGKILL);
	while (!kill(pid, 0))
		usleep(1000);
	tell(side->socket, "r", 1);
	ok(ask(side, LOAD, address) == FILLED, "another client is killed while it waits");
}

static int client(struct side *side, int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_interrupt };

	sigaction(SIGUSR1, &action, NULL);
	limit_loans(LONGEST_LOAN_LIMIT);
	for (size_t i = 0; i < WAYS; i++)
		test_way(side, &ways[i], false);
	for (size_t i = 0; i < WAYS; i++)
		if (ways[i].store)
			test_way(side, &ways[i], true);
	limit_loans(DEFAULT_LOAN_LIMIT);
	test_sigbus(side);
	for (size_t i = 0; i < WAYS; i++)
		if (!ways[i].store)
			test_interrupt(side, &ways[i]);
	for (size_t i = 0; i < WAYS; i++)
		test_death(&ways[i]);
	test_client_death(side);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve(&side);
	if (argc > 2 && !strcmp(argv[1], "--client-of-its-own")) {
		struct rpal_message m = { { LOAD } };

		side = become_peers(atoi(argv[2]));
		meet_receiver(&side);
		hear(side.socket, &m.word[1], sizeof(m.word[1]));
		return rpal_call(&side.target, &m, -1);
	}
	return two_services(argc, argv, server, client);
}
