/* guest: cpus=1,2 isolation=mpk,none debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * PKRU of a receiver: its service's default wherever its code runs, on the
 * client's task, on its own one, and in its signal handlers. So a handler does
 * not reach its client's memory before it opens the client's key, and what it
 * has opened stays so, for itself.
 */
#include "registers.h"
#include "pkru.h"
#include "raw_syscall.h"
#include "two_services.h"
#include <sys/syscall.h>
#include <sys/time.h>

enum {
	EVERYWHERE, /* answers: PKRU at the entry, in the handler of a signal, and after both */
	OPENED,	    /* with the client's key open: after a system call, in a handler, after it */
	LOAD,	    /* from word[1], without opening a key */
	STORE,	    /* there */
	HANDLE,	    /* SIGSEGV */
	ALARMS,	    /* for the server from now on, one every word[1] µs */
	DEFAULT,    /* PKRU of the server before its first call, and its default */
};

#define SECRET 0x5ec7e7

static uint32_t default_pkru;
static struct rpal_peer client_peer;
static volatile uint32_t pkru_in_handler;
static volatile sig_atomic_t handled, segv_code, segv_pkey;

static void on_signal(int signal)
{
	pkru_in_handler = current_pkru();
	handled = signal;
}

static void on_segv(int signal, siginfo_t *info, void *context)
{
	ucontext_t *where = context;

	pkru_in_handler = current_pkru();
	segv_code = info->si_code;
	segv_pkey = info->si_pkey;
	/* Both of load() and store() have two bytes. */
	where->uc_mcontext.gregs[REG_RIP] += 2;
}

static uint64_t load(uint64_t address)
{
	uint32_t value = 0;

	asm volatile("mov (%%rdx), %%eax" : "+a"(value) : "d"(address));
	return value;
}

static void store(uint64_t address)
{
	asm volatile("mov %%eax, (%%rdx)" : : "a"(0), "d"(address) : "memory");
}

/* In the handler of a signal that comes meanwhile: ALARMS sees to that. */
static uint32_t pkru_in_interruption(void)
{
	handled = 0;
	while (handled != SIGALRM)
		;
	return pkru_in_handler;
}

/* In that of an exception. It begins on loan, as the above does. */
static uint32_t pkru_in_trap(void)
{
	handled = 0;
	asm volatile("int3");
	return handled == SIGTRAP ? pkru_in_handler : ~0u;
}

static void look_everywhere(struct rpal_message *m, bool trap)
{
	m->word[1] = current_pkru();
	m->word[2] = trap ? pkru_in_trap() : pkru_in_interruption();
	m->word[3] = current_pkru();
	raw(SYS_getppid, 0, 0, 0, 0);
	m->word[4] = current_pkru();
}

static void alarm_every(int us)
{
	struct itimerval often = { { 0, us }, { 0, us } };

	setitimer(ITIMER_REAL, &often, NULL);
}

static void look_opened(struct rpal_message *m)
{
	uint32_t before;

	if (!has_pkru())
		return;
	before = open_key(client_peer.pkey);
	raw(SYS_getppid, 0, 0, 0, 0);
	m->word[1] = read_pkru();
	m->word[2] = pkru_in_trap();
	m->word[3] = read_pkru();
	write_pkru(before);
}

static void access_client(struct rpal_message *m)
{
	segv_code = 0;
	segv_pkey = 0;
	pkru_in_handler = ~0u;
	if (m->word[0] == LOAD)
		m->word[1] = load(m->word[1]);
	else
		store(m->word[1]);
	m->word[2] = segv_code;
	m->word[3] = segv_pkey;
	m->word[4] = pkru_in_handler;
}

static int handle(struct rpal_message *m)
{
	struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO };

	switch (m->word[0]) {
	case EVERYWHERE:
		look_everywhere(m, m->word[1]);
		break;
	case OPENED:
		look_opened(m);
		break;
	case LOAD:
	case STORE:
		access_client(m);
		break;
	case HANDLE:
		sigaction(SIGSEGV, &action, NULL);
		break;
	case ALARMS:
		alarm_every(m->word[1]);
		break;
	case DEFAULT:
		m->word[1] = default_pkru;
		m->word[2] = rpal_service()->pkru;
		m->word[3] = rpal_service()->pkey;
		break;
	}
	return 0;
}

static void serve(struct side *side)
{
	client_peer = side->peer;
	signal(SIGTRAP, on_signal);
	signal(SIGALRM, on_signal);
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	serve(side);
}

static int ask(const struct side *side, struct rpal_message *m, uint64_t what, uint64_t argument)
{
	bool kept;
	int ret;

	*m = (struct rpal_message){ { what, argument } };
	ret = call_keeping_registers(&side->target, m, -1, &kept);
	return kept ? ret : -EILSEQ;
}

static void test_everywhere(const struct side *side, uint32_t expected, bool trap)
{
	long wrong = 0;
	int ret = 0;

	for (int i = 0; i < 50 && !ret; i++) {
		struct rpal_message m;

		ret = ask(side, &m, EVERYWHERE, trap);
		for (int word = 1; word < 5; word++)
			if (m.word[word] != expected && !wrong++)
				printf("# word %d: %#llx\n", word, m.word[word]);
	}
	ok(!ret && !wrong,
	   "on loan, handed back, and in a handler of %s: the default, %#x (%d, %ld wrong)",
	   trap ? "an exception" : "an interruption", expected, ret, wrong);
}

static void test_opened(const struct side *side, uint32_t expected)
{
	/* The client's key is our own. */
	uint32_t opened = expected & ~(3u << 2 * rpal_service()->pkey);
	struct rpal_message m;
	int ret = ask(side, &m, OPENED, 0);

	ok(!ret && m.word[1] == opened && m.word[3] == opened && opened != expected,
	   "a key that a handler has opened stays so (%d, %#llx, %#llx)", ret, m.word[1],
	   m.word[3]);
	is(m.word[2], expected, "but not in a handler of a signal");
}

static uint64_t secret = SECRET;

static void test_closed(const struct side *side, uint32_t expected, uint64_t what, const char *name)
{
	struct rpal_message m;
	int ret = ask(side, &m, what, (uintptr_t)&secret);

	ok(!ret && m.word[2] == SEGV_PKUERR && m.word[3] == rpal_service()->pkey,
	   "a %s without the client's key: SEGV_PKUERR of that key, for the server (%d, %llu, %llu)",
	   name, ret, m.word[2], m.word[3]);
	ok(secret == SECRET && m.word[1] != SECRET, "and nothing was read or written");
	is(m.word[4], expected, "and its handler had the default PKRU");
}

/* A server of its own, without a handler. */
static void test_death(uint64_t what, const char *name)
{
	struct rpal_message m;
	struct side mortal;
	int ret, status;
	pid_t pid;

	mortal = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&mortal);
	ret = ask(&mortal, &m, what, (uintptr_t)&secret);
	if (ret != -EOWNERDEAD)
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	ok(ret == -EOWNERDEAD && secret == SECRET, "a %s without a handler: the client gets %s",
	   name, strerror(-ret));
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV,
	   "and the server died of it (status %x)", status);
	close(mortal.socket);
}

static int client(struct side *side, int argc, char **argv)
{
	/* No key but 0 is open; a service has a key of its own, if any. */
	uint32_t expected = has_pkru() ? 0x55555554 : 0;
	bool keys = rpal_service()->pkey;
	struct rpal_message m;
	int ret;

	ret = ask(side, &m, DEFAULT, 0);
	if (keys)
		expected &= ~(3u << 2 * m.word[3]);
	ok(!ret && m.word[1] == expected && (!keys || m.word[2] == expected),
	   "a service has its own key and key 0 open (%d, %#llx, %#llx)",
	   ret, m.word[1], m.word[2]);
	ok(!keys || current_pkru() != expected, "and so has the client, with another key");
	test_everywhere(side, expected, true);
	MUST(ask(side, &m, ALARMS, 3000));
	test_everywhere(side, expected, false);
	MUST(ask(side, &m, ALARMS, 0));
	if (keys) {
		test_death(LOAD, "load");
		test_death(STORE, "store");
		test_opened(side, expected);
		MUST(ask(side, &m, HANDLE, 0));
		test_closed(side, expected, LOAD, "load");
		test_closed(side, expected, STORE, "store");
	}
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	default_pkru = current_pkru();
	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve(&side);
	return two_services(argc, argv, server, client);
}
