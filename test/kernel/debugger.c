/* guest: cpus=1,2 debug=no timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A session of gdb with either side in the midst of calls: it attaches, finds
 * its breakpoint, says where the thread is, steps over a call and detaches. It
 * has that side's frames, never the other's, and every answer is right.
 * (traced.c has what gdb does for that, each by itself.)
 */
#include "shared_memory.h"
#include "two_services.h"

/* Shared by all three. */
static volatile struct board {
	bool stop;
	uint64_t calls, wrong;
} *board;

static void map_board(int fd)
{
	board = map_shared(fd, sizeof(*board));
}

__attribute__((noinline, noclone)) static uint64_t answer_of(uint64_t question)
{
	asm volatile("");
	return question ^ 0x5555;
}

static int handle(struct rpal_message *m)
{
	m->word[1] = answer_of(m->word[0]);
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

__attribute__((noinline, noclone)) static uint64_t question(struct side *side, uint64_t word)
{
	struct rpal_message m = { { word } };
	int status = rpal_call(&side->target, &m, -1);

	return status ? 0 : m.word[1];
}

static int client(struct side *side, int argc, char **argv)
{
	map_board(atoi(argv[1]));
	for (uint64_t i = 0; !board->stop; i++) {
		board->wrong += question(side, i) != (i ^ 0x5555);
		board->calls++;
	}
	return 0;
}

/* All that gdb said. */
static char said[65536];

static void run_gdb(pid_t pid, const char *commands)
{
	char command[1024];
	size_t length;
	FILE *gdb;

	snprintf(command, sizeof(command),
		 "timeout 40 gdb -nx -batch -p %d -ex 'set pagination off' %s 2>&1", pid, commands);
	gdb = popen(command, "r");
	if (!gdb)
		die("gdb", errno);
	length = fread(said, 1, sizeof(said) - 1, gdb);
	said[length] = 0;
	if (!is(pclose(gdb), 0, "a session of gdb ends well"))
		puts(said);
}

static bool has(const char *what)
{
	return strstr(said, what);
}

/* The values of two expressions, which gdb numbers. */
static bool same_values(void)
{
	const char *one = strstr(said, "$1 = "), *two = strstr(said, "$2 = ");

	return one && two && strtoull(one + 5, NULL, 0) == strtoull(two + 5, NULL, 0);
}

static void test_calls(const char *when)
{
	uint64_t before = board->calls;

	for (int i = 0; i < 1000 && board->calls < before + 1000; i++)
		usleep(10000);
	ok(board->calls >= before + 1000 && !board->wrong, "%s, calls go on, %llu were wrong", when,
	   (unsigned long long)board->wrong);
}

static void debug(const pid_t pids[2])
{
	test_calls("before it");
	for (int i = 0; i < 3; i++) {
		run_gdb(pids[0], "-ex 'break answer_of' -ex continue -ex bt"
				 " -ex 'print question ^ 0x5555' -ex delete -ex finish -ex detach");
		if (!ok(has("Breakpoint 1, answer_of") && has("handle (") && has("server (") &&
			   has("main (argc="),
		   "the server's breakpoint in a handler is hit, with the server's frames"))
			puts(said);
		ok(!has("client (") && !has("question ("), "and not the client's");
		ok(same_values(), "the handler is finished, and has its result");
		test_calls("after it");

		run_gdb(pids[1], "-ex 'break question' -ex continue -ex bt"
				 " -ex 'print word ^ 0x5555' -ex delete -ex finish -ex detach");
		ok(has("Breakpoint 1, question") && has("client (") && has("main (argc="),
		   "the client's breakpoint is hit, with the client's frames");
		ok(!has("server (") && !has("handle ("), "and not the server's");
		ok(same_values(), "a call is stepped over, and has its answer");
		test_calls("after it");
	}
	board->stop = true;
}

int main(int argc, char **argv)
{
	char text[16], *args[] = { argv[0], text };
	int fd, ret;

	if (argc > 1)
		return two_services(argc, argv, server, client);
	if (system("gdb --version > /dev/null 2>&1"))
		skip_all("no gdb");
	fd = shared_memory(sizeof(*board));
	map_board(fd);
	snprintf(text, sizeof(text), "%d", fd);
	meanwhile = debug;
	ret = two_services(2, args, server, client);
	is(ret, 0, "the client ends well");
	return done();
}
