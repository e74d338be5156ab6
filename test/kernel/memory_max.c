/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A client's accesses use up what the server's control group may have: that is
 * the business of the server's group, and what the OOM killer does there. If it
 * kills the server, the access fails as in any other death of a server; if it
 * kills another process, the access is made. The client and its group notice
 * nothing else.
 *
 * Who waits for memory is not the one who was killed. If that is not free yet
 * when the kernel has done what it can to the dying server (which is not much
 * with a shared mapping), it reports once more, that nobody is left to be
 * killed. That is a report about a group, as the first. And if a process that
 * was killed is about to free what it had, but has not yet, the OOM killer
 * takes the next one, without any service, too.
 */
#include "cgroup.h"
#include "kernel_log.h"
#include "peer_access.h"

#define PAGE  4096UL
#define LIMIT (4UL << 20)

/* What the server is asked for, in word 0; word 1: bytes. */
enum {
	PING,
	ANONYMOUS,
	SHARED,
};

static int handle(struct rpal_message *m)
{
	void *memory;

	if (handle_access(m))
		return 0;
	if (m->word[0] == PING)
		return 0;
	memory = mmap(NULL, m->word[1], PROT_READ | PROT_WRITE,
		      MAP_ANONYMOUS | (m->word[0] == SHARED ? MAP_SHARED : MAP_PRIVATE), -1, 0);
	m->word[0] = memory == MAP_FAILED ? 0 : (uintptr_t)memory;
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static int ping(struct side *side)
{
	struct rpal_message m = { { PING } };

	return rpal_call(&side->target, &m, -1);
}

static struct cgroup owner, sender;

static long event(const struct cgroup *group, const char *name)
{
	return get_number(cgroup_file(group, "memory.events"), name);
}

/* Touches each page of so much new memory, until that fails. */
static int touch(struct side *side, const struct way *way, uint64_t what, size_t bytes)
{
	struct rpal_message m = { { what, bytes } };
	uint64_t value;
	int ret = 0;

	MUST(rpal_call(&side->target, &m, -1));
	if (!m.word[0])
		die("there is no such memory", ENOMEM);
	for (size_t at = 0; at < bytes && !ret; at += PAGE) {
		value = at;
		ret = way->access(side, m.word[0] + at, &value);
		/* The server's own task had the fault: as good. */
		if (ret == -EREMCHG)
			ret = 0;
	}
	return ret;
}

static int kernel_log;

/*
 * The kernel has killed @pid, and @next (if that is not 0), for the owner's
 * group, and reports nothing else. (Of kills that follow each other fast, not
 * all are reported at length.)
 */
static bool is_reported(pid_t pid, pid_t next)
{
	int reports = 0, first = 0, second = 0, bad = 0;
	char record[8192], *at;
	ssize_t bytes;

	while ((bytes = read(kernel_log, record, sizeof(record) - 1)) > 0) {
		record[bytes] = 0;
		reports += strstr(record, " invoked oom-killer: ") != NULL;
		at = strstr(record, "Killed process ");
		if (at) {
			pid_t victim = atoi(at + strlen("Killed process "));

			first += victim == pid;
			second += victim == next;
			bad += victim != pid && victim != next;
		}
		if (strstr(record, "segfault") || strstr(record, "traps: ") ||
		    strstr(record, "rpal: ") ||
		    (strstr(record, "oom-kill:") &&
		     !strstr(record, ",oom_memcg=/owner,task_memcg=/owner,"))) {
			printf("# kernel: %s", record);
			bad++;
		}
	}
	if (errno != EAGAIN)
		bail_out("/dev/kmsg");
	printf("# %d reports, killed %d and %d\n", reports, first, second);
	return !bad && first == 1 && second == (next != 0) && reports <= 2;
}

static bool was_killed(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGKILL;
}

static void test_server_killed(struct side *side, const char *name, uint64_t what,
			       const struct way *way)
{
	int expected = way->loan ? -EOWNERDEAD : -EFAULT, ret;
	long kills = event(&owner, "oom_kill");
	struct side mortal;
	pid_t pid;

	mortal = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&mortal);
	join_cgroup(&owner, pid);
	ret = touch(&mortal, way, what, 4 * LIMIT);
	ok(ret == expected, "too much %s, %s: %s", name, way->name, strerror(-ret));
	if (!ret)
		kill(pid, SIGKILL);
	ok(was_killed(pid) && event(&owner, "oom_kill") == kills + 1, "the server was killed");
	ok(is_reported(pid, 0), "as the kernel says");
	is(ping(&mortal), -EOWNERDEAD, "it cannot be called any more");
	is(ping(side), 0, "others can");
	close(mortal.socket);
}

/* A process of the owner's group that needs most of it. */
static pid_t start_hog(void)
{
	size_t bytes = LIMIT * 3 / 4;
	int pipes[2];
	pid_t pid;
	char c;

	if (pipe2(pipes, O_CLOEXEC))
		bail_out("pipe");
	pid = fork();
	if (pid < 0)
		bail_out("fork");
	if (!pid) {
		join_cgroup(&owner, getpid());
		memset(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0),
		       1, bytes);
		tell(pipes[1], "", 1);
		for (;;)
			pause();
	}
	hear(pipes[0], &c, 1);
	close(pipes[0]);
	close(pipes[1]);
	return pid;
}

/* False if the server was killed as well. */
static bool other_was_killed(const struct way *way)
{
	int expected = way->loan ? -EOWNERDEAD : -EFAULT, ret;
	struct side mortal;
	pid_t pid, hog;
	bool both;

	mortal = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&mortal);
	join_cgroup(&owner, pid);
	hog = start_hog();
	ret = touch(&mortal, way, SHARED, LIMIT / 2);
	both = ret == expected;
	ok(!ret || both, "what another process has, %s: %s", way->name, strerror(-ret));
	if (ret && !both)
		kill(hog, SIGKILL);
	ok(was_killed(hog), "that was killed");
	ok(is_reported(hog, both ? pid : 0), "as the kernel says%s", both ? ", and the server" : "");
	is(ping(&mortal), both ? -EOWNERDEAD : 0, "the server lives and can be called, or neither");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(mortal.socket);
	return !both;
}

static void test_other_killed(const struct way *way)
{
	int tries = 1;

	while (!other_was_killed(way) && tries < 5)
		tries++;
	ok(tries < 5, "one was enough: try %d", tries);
}

static int client(struct side *side, int argc, char **argv)
{
	kernel_log = kernel_log_from_now();
	owner = new_cgroup("owner");
	sender = new_cgroup("sender");
	set(cgroup_file(&owner, "memory.max"), "%lu", LIMIT);
	join_cgroup(&sender, getpid());

	for (size_t i = 0; i < WAYS; i++) {
		/* Loads of anonymous memory find the zero page. */
		if (ways[i].store)
			test_server_killed(side, "anonymous memory", ANONYMOUS, &ways[i]);
		test_server_killed(side, "shared memory", SHARED, &ways[i]);
		test_other_killed(&ways[i]);
	}
	is(event(&sender, "max") + event(&sender, "oom"), 0, "the client's group had no part in it");

	leave_cgroup(getpid());
	end_cgroup(&owner);
	end_cgroup(&sender);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve_calls(handle);
	return two_services(argc, argv, server, client);
}
