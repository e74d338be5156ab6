/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Credentials that change after two services became peers. Whether they may is
 * asked when they ask: the link stays, as a debugger stays attached, and calls
 * go on, but who asks anew may be refused. And a system call has the
 * credentials of the service whose code makes it, whoever has changed, also in
 * the midst of a call.
 */
#include "two_services.h"
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

enum {
	USER = 1000,
	NO_NAME = 65534, /* root in a user namespace that has no names yet */
};

/* Only root may open it. */
#define ROOTS_FILE "/tmp/of-root"

enum change { NOTHING, SET_UID, NOT_DUMPABLE, USER_NAMESPACE };

/* What a handler is asked for. */
enum {
	CHANGE, /* word 1 says what */
	WHO,	/* identity */
	LATER,	/* another thread changes the uid of all while this call spins */
	ASK,	/* for the client, again */
	PEEK,	/* at the client's memory at word 1 */
};

static void change(enum change what)
{
	if (what == SET_UID && (setgroups(0, NULL) || setresgid(USER, USER, USER) ||
				setresuid(USER, USER, USER)))
		die("setresuid", errno);
	if (what == NOT_DUMPABLE && prctl(PR_SET_DUMPABLE, 0))
		die("PR_SET_DUMPABLE", errno);
	if (what == USER_NAMESPACE && unshare(CLONE_NEWUSER))
		die("unshare", errno);
}

struct identity {
	uid_t uid;
	bool opens;
};

static struct identity who_am_i(void)
{
	int fd = open(ROOTS_FILE, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	return (struct identity){ geteuid(), fd >= 0 };
}

/* ---- The server ------------------------------------------------------------- */

static struct side client_side;
static volatile bool wanted, changed;

static void *change_later(void *unused)
{
	while (!wanted)
		usleep(100);
	/* libc interrupts every thread of the process, to change them all. */
	change(SET_UID);
	changed = true;
	return NULL;
}

static int handle(struct rpal_message *m)
{
	struct identity identity;
	uint64_t value = 0;

	switch (m->word[0]) {
	case CHANGE:
		change(m->word[1]);
		return 0;
	case WHO:
		identity = who_am_i();
		*m = (struct rpal_message){ { identity.uid, identity.opens } };
		return 0;
	case LATER:
		/* On loan all the time, but for what interrupts it. */
		wanted = true;
		while (!changed)
			;
		return 0;
	case ASK:
		return rpal_peer_request(client_side.key, &client_side.peer);
	case PEEK:
		MUST(rpal_read_peer(client_side.peer.id, client_side.peer.pkey, &value,
				    (void *)m->word[1], sizeof(value)));
		m->word[1] = value;
		return 0;
	default:
		return -ENOSYS;
	}
}

static void serve(struct side *side)
{
	client_side = *side;
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	pthread_t thread;

	pthread_create(&thread, NULL, change_later, NULL);
	serve(side);
}

/* ---- The client ------------------------------------------------------------- */

static int ask(const struct side *side, struct rpal_message *m, uint64_t what, uint64_t argument)
{
	*m = (struct rpal_message){ { what, argument } };
	return rpal_call(&side->target, m, -1);
}

/* The link is there, and each side is itself. */
static void test_calls(const struct side *side, struct identity server, struct identity own,
		       const char *when)
{
	static const uint64_t secret = 0x5ec7e7;
	struct rpal_message m, peeked;
	long wrong = 0;

	for (int i = 0; i < 100; i++) {
		int ret = ask(side, &m, WHO, 0);
		struct identity now = who_am_i();

		wrong += ret || m.word[0] != server.uid || m.word[1] != server.opens ||
			 now.uid != own.uid || now.opens != own.opens;
	}
	ok(!wrong, "%s: calls go on, and each side is itself (%ld wrong, the server uid %llu)",
	   when, wrong, m.word[0]);
	ok(!ask(side, &peeked, PEEK, (uintptr_t)&secret) && peeked.word[1] == secret,
	   "the link stays");
}

/* What the client and the server get when they ask again. */
static void test_questions(struct side *side, int to, int from)
{
	struct rpal_peer peer;
	struct rpal_message m;
	int got_to = rpal_peer_request(side->key, &peer), got_from = ask(side, &m, ASK, 0);

	ok(got_to == to && got_from == from, "the client asks again: %d, the server: %d", got_to,
	   got_from);
	ok(to || peer.linked, "if not refused, it is told that they are linked");
}

static struct side new_server(pid_t *pid)
{
	struct side side = start_peer("--mortal", 0, NULL, pid);

	meet_receiver(&side);
	return side;
}

static void end_server(struct side *side, pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(side->socket);
}

/* Kills the server when the client, which cannot any more, closes the pipe. */
static int start_hangman(pid_t server)
{
	int pipes[2];
	char byte;

	if (pipe2(pipes, O_CLOEXEC))
		die("pipe", errno);
	if (!fork()) {
		close(pipes[1]);
		_exit(read(pipes[0], &byte, 1) || kill(server, SIGKILL));
	}
	close(pipes[0]);
	return pipes[1];
}

static void test_server_changes(enum change what, struct identity server, struct identity own,
				int to, int from, const char *when)
{
	struct rpal_message m;
	struct side side;
	pid_t pid;

	side = new_server(&pid);
	ok(!ask(&side, &m, CHANGE, what), "the server changes in a handler");
	test_calls(&side, server, own, when);
	test_questions(&side, to, from);
	end_server(&side, pid);
}

/* The client has changed; @side is an old peer. */
static void test_client_changed(struct side *side, struct identity server, struct identity own,
				int to, int from, const char *when)
{
	struct rpal_peer peer;
	struct rpal_message m;
	uint64_t value;

	test_calls(side, server, own, when);
	test_questions(side, to, from);
	if (!to)
		return;
	MUST(rpal_peer_release(side->peer.id));
	ok(rpal_peer_request(side->key, &peer) == to &&
		   rpal_read_peer(side->peer.id, side->peer.pkey, &value, side->target.control,
				  sizeof(value)) == -EFAULT &&
		   ask(side, &m, WHO, 0) == -EOWNERDEAD,
	   "once released, it cannot be the peer again, and sees nothing");
}

static int client(struct side *side, int argc, char **argv)
{
	const struct identity root = { 0, true }, user = { USER, false }, nobody = { NO_NAME, true };
	struct rpal_message m;
	struct side roots;
	int hangman;
	pid_t pid;

	test_server_changes(NOTHING, root, root, 0, 0, "both root's");
	test_server_changes(SET_UID, user, root, 0, -EPERM, "the server becomes another user's");
	test_server_changes(USER_NAMESPACE, nobody, root, 0, -EPERM,
			    "the server enters a user namespace");
	test_server_changes(NOT_DUMPABLE, root, root, 0, 0,
			    "the server, root's, must not be dumped");

	ok(!ask(side, &m, LATER, 0), "a thread of the server changes its user during a call");
	test_calls(side, user, root, "after it");

	roots = new_server(&pid);
	hangman = start_hangman(pid);
	change(NOT_DUMPABLE);
	test_client_changed(&roots, root, root, 0, 0, "the client, root's, must not be dumped");
	change(SET_UID);
	test_client_changed(&roots, root, user, -EPERM, 0, "the client becomes another user's");
	close(hangman);
	end_server(&roots, pid);

	/* From here on both are the user's. */
	prctl(PR_SET_DUMPABLE, 1);
	test_server_changes(NOTHING, user, user, 0, 0, "both the user's");
	test_server_changes(NOT_DUMPABLE, user, user, -EPERM, 0,
			    "the server, the user's, must not be dumped");
	test_server_changes(USER_NAMESPACE, (struct identity){ NO_NAME, false }, user, 0, -EPERM,
			    "the user's server enters a user namespace");
	return done();
}

int main(int argc, char **argv)
{
	struct side side;
	int fd;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve(&side);
	if (argc < 2) {
		if (geteuid())
			skip_all("not root");
		fd = open(ROOTS_FILE, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			bail_out(ROOTS_FILE);
		close(fd);
	}
	return two_services(argc, argv, server, client);
}
