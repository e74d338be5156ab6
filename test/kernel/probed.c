/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * A uprobe in what a handler executes on loan: it is hit in the server, as if
 * nobody had called it, whether the client's own program has probes or not.
 */
#include "setting.h"
#include "two_services.h"
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define COPY   "/tmp/rpal-probed"
#define EVENTS "/sys/kernel/tracing/uprobe_events"
#define HITS   "/sys/kernel/tracing/uprobe_profile"
#define EVENT  "/sys/kernel/tracing/events/rpal/add"
#define CALLS  100

__attribute__((noinline, noclone)) static uint64_t add(uint64_t a, uint64_t b)
{
	asm volatile("" : : : "memory");
	return a + b;
}

static int handle(struct rpal_message *m)
{
	m->word[0] = add(m->word[1], m->word[2]);
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* Where something is in the file of this program. */
static unsigned long offset_of(const void *code)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end, offset, at = (uintptr_t)code;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && start <= at &&
		    at < end) {
			fclose(maps);
			return at - start + offset;
		}
	}
	die("/proc/self/maps", errno);
	return 0;
}

static void copy_program(void)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to = open(COPY, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	struct stat stat;
	off_t at = 0;

	if (from < 0 || to < 0 || fstat(from, &stat))
		die(COPY, errno);
	while (at < stat.st_size)
		if (sendfile(to, from, &at, stat.st_size - at) <= 0)
			die("sendfile", errno);
	close(to);
	close(from);
}

/* A server that executes the copy. */
static struct side start_copy(pid_t *pid)
{
	struct side side;
	char number[16];
	char *argv[] = { COPY, "--copy", number, NULL };
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	snprintf(number, sizeof(number), "%d", dup(sockets[0]));
	*pid = vfork();
	if (!*pid) {
		MUST(rpal_exec_service());
		execv(COPY, argv);
		die(COPY, errno);
	}
	close(sockets[0]);
	side = become_peers(sockets[1]);
	meet_receiver(&side);
	return side;
}

static long hits_of_add(void)
{
	FILE *file = fopen(HITS, "r");
	char name[64];
	long hits;

	if (!file || fscanf(file, "%*s %63s %ld", name, &hits) != 2 || strcmp(name, "add"))
		die(HITS, errno);
	fclose(file);
	return hits;
}

/* Return: how many were wrong. */
static long load(struct side *side)
{
	long wrong = 0;

	for (uint64_t i = 0; i < CALLS; i++) {
		struct rpal_message m = { { 0, i, 2 * i } };
		int ret = rpal_call(&side->target, &m, -1);

		if ((ret || m.word[0] != 3 * i) && !wrong++)
			printf("# call %lu: %d, %llu\n", i, ret, m.word[0]);
	}
	return wrong;
}

static void probe(const char *path, const void *code)
{
	set(EVENTS, "p:rpal/add %s:%#lx", path, offset_of(code));
	set(EVENT "/enable", "1");
}

static void remove_probe(void)
{
	set(EVENT "/enable", "0");
	set(EVENTS, "-:rpal/add");
}

static void test(struct side *side, const char *path, const char *who)
{
	long wrong, hits;

	probe(path, add);
	wrong = load(side);
	hits = hits_of_add();
	remove_probe();
	ok(!wrong && hits == CALLS, "%s: %d calls, %ld hits, %ld wrong", who, CALLS, hits, wrong);
	is(load(side), 0, "and then calls are right");
}

/* Of librpal: where a call begins to execute the receiver's code. */
extern const char rpal_at_entry_mpk[];

/* The server's own task never comes there: the caller learns that it cannot. */
static void test_entry(struct side *side, const char *path, const char *who)
{
	struct rpal_message m = { { 0, 1, 2 } };

	probe(path, rpal_at_entry_mpk);
	is(rpal_call(&side->target, &m, -1), -EOWNERDEAD, who);
	remove_probe();
	is(load(side), 0, "and then calls are right");
}

static int client(struct side *side, int argc, char **argv)
{
	char path[4096] = "";
	struct side other;
	pid_t pid;

	if (readlink("/proc/self/exe", path, sizeof(path) - 1) < 0)
		die("readlink", errno);
	copy_program();
	other = start_copy(&pid);
	test(side, path, "a probe in the program of both");
	test(&other, COPY, "a probe in the server's program");
	test_entry(side, path, "a probe where the server is entered, in the program of both");
	test_entry(&other, COPY, "in the server's program");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink(COPY);
	return done();
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "--copy")) {
		struct side side = become_peers(atoi(argv[2]));

		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		server(&side, 0, NULL);
	}
	return two_services(argc, argv, server, client);
}
