/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Forged words and a forged FS base. They can hurt the one who forges and, as
 * far as a debugger could, its peers; never anybody's identity, and never the
 * kernel.
 */
#include "two_services.h"
#include <sys/syscall.h>

enum { NOTHING, PID };

static int handle(struct rpal_message *m)
{
	if (m->word[0] == PID)
		m->word[1] = getpid();
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* Each is tried in a service of its own, a client of a server of its own. */
static void forge(struct side *side, int what)
{
	struct rpal_control *server = side->target.control;
	struct rpal_control *own = own_control();
	uint64_t fs = server->fs_base;
	long pid = -1;

	switch (what) {
	case 0: /* The server's FS base, no call. */
		asm volatile("wrfsbase %1\n\tsyscall"
			     : "=a"(pid)
			     : "r"(fs), "a"(SYS_getpid)
			     : "rcx", "r11", "memory");
		break;
	case 1: /* callee of a parked receiver, and its FS base. */
		own->callee = side->target.tid;
		asm volatile("wrfsbase %1\n\tsyscall"
			     : "=a"(pid)
			     : "r"(fs), "a"(SYS_getpid)
			     : "rcx", "r11", "memory");
		break;
	case 2: /* RETURNING, though nobody called. */
		own->call_sp = 0xffff800000000000;
		own->callee = side->target.tid;
		server->state = (uint64_t)rpal_tid() << 32 | RPAL_STATE_RETURNING;
		asm volatile("wrfsbase %1\n\tsyscall"
			     : "=a"(pid)
			     : "r"(fs), "a"(SYS_getpid)
			     : "rcx", "r11", "memory");
		break;
	case 3: /* A callee that is nobody. */
		own->callee = 0x12345678;
		own->call_sp = 16;
		kill(getpid(), SIGUSR1);
		break;
	case 4: /* A state that does not exist, then a call. */
		server->state = 0xffffffffffffff77;
		kill(side->other, SIGUSR1);
		break;
	}
	/* Whoever got here must be itself. */
	_exit(pid == -1 || pid == (long)syscall(SYS_getpid) ? 0 : 42);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_message m = { { PID } };
	int ret;

	for (int what = 0; what < 5; what++) {
		char number[8], *args[] = { number };
		struct side forger;
		int status;
		pid_t pid;

		snprintf(number, sizeof(number), "%d", what);
		forger = start_peer("--forger", 1, args, &pid);
		waitpid(pid, &status, 0);
		ok(!WIFEXITED(status) || WEXITSTATUS(status) != 42,
		   "forgery %d gains no identity (status %x)", what, status);
		close(forger.socket);

		ret = rpal_call(&side->target, &m, -1);
		ok(ret == 0 && m.word[1] == (uint64_t)side->other, "others go on calling");
		m.word[0] = PID;
	}
	return done();
}

/* The forger and its victim: the forger starts a server of its own. */
static void forger(int what)
{
	struct side side;
	pid_t pid;

	side = start_peer("--victim", 0, NULL, &pid);
	meet_receiver(&side);
	forge(&side, what);
}

int main(int argc, char **argv)
{
	struct side side;

	if (argc > 3 && !strcmp(argv[1], "--forger")) {
		side = become_peers(atoi(argv[2]));
		forger(atoi(argv[3]));
	}
	if (argc > 2 && !strcmp(argv[1], "--victim")) {
		side = become_peers(atoi(argv[2]));
		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		server(&side, 0, NULL);
	}
	return two_services(argc, argv, server, client);
}
