/* guest: icount timeout=180 */
// SPDX-License-Identifier: MIT
/*
 * Time on loan is the receiver's: getrusage(), /proc/PID/stat and cpu.stat of
 * the cgroup tell who has computed, whoever's task it was.
 *
 * The client computes a little and calls a server that computes a little, in
 * user mode. Both know how many instructions they have executed, and that is
 * the time of a guest that counts them. It has to be met within 5 % of the sum.
 * Or the client has the kernel work for it: that is no time on loan either. Or
 * the server's handler calls a third service, and all three compute.
 */
#include "random.h"
#include "two_services.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#define SECONDS	  1.5
/*
 * Instructions of a burst: with the call, the golden section of a tick, so that
 * ticks fall evenly into all of its parts.
 */
#define BURST	  2469000L
/*
 * A nested call is handed back before the second one, so two tasks take turns,
 * and no burst is such a section for both. So they are of any length, and for
 * longer: ticks are samples then.
 */
#define NESTED_SECONDS 4
#define TOLERANCE 5

enum { COMPUTE = 1, USED, USED_BY_THIRD };

static long computed;

static void compute(uint64_t instructions)
{
	uint64_t left = instructions / 2;

	computed += instructions;
	if (left)
		asm volatile("1: dec %0; jnz 1b" : "+r"(left) : : "cc");
}

/* The same, but in a system call. */
static void compute_in_kernel(int zero, uint64_t instructions)
{
	static char buffer[65536];
	struct timespec start, end;
	int64_t used;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		if (read(zero, buffer, sizeof(buffer)) != sizeof(buffer))
			die("/dev/zero", errno);
		clock_gettime(CLOCK_MONOTONIC, &end);
		used = (end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec;
	} while (used < (int64_t)instructions);
	computed += used;
}

/* In seconds, without a system call. */
static double now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

/* As three interfaces of the kernel have it, in ms. */
struct used {
	uint64_t rusage, proc, cgroup;
};

static uint64_t proc_ms(void)
{
	unsigned long user, system;
	char line[1024], *end;
	FILE *file = fopen("/proc/self/stat", "r");

	if (!file || !fgets(line, sizeof(line), file))
		die("/proc/self/stat", errno);
	fclose(file);
	end = strrchr(line, ')');
	if (sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		   &system) != 2)
		die("/proc/self/stat", EPROTO);
	return (user + system) * 1000 / sysconf(_SC_CLK_TCK);
}

static char cgroup[64];

static uint64_t cgroup_ms(void)
{
	unsigned long long usec;
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "%s/cpu.stat", cgroup);
	file = fopen(path, "r");
	if (!file || fscanf(file, "usage_usec %llu", &usec) != 1)
		die(path, errno);
	fclose(file);
	return usec / 1000;
}

static void enter_cgroup(void)
{
	char path[96];
	int fd;

	snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup/accounting-%d", getpid());
	if (mkdir(cgroup, 0755))
		die(cgroup, errno);
	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "0", 1) != 1)
		die(path, errno);
	close(fd);
}

static struct used used_so_far(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (struct used){
		(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
			(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000,
		proc_ms(),
		cgroup_ms(),
	};
}

/* The server's. */
static struct side third;

/* Word 1 is its own work, word 2 the third's, which is done in the midst of it. */
static int compute_nested(const struct rpal_message *m)
{
	struct rpal_message next = { { COMPUTE, m->word[2] } };
	int ret = 0;

	compute(m->word[1] / 2);
	if (m->word[2])
		ret = rpal_call(&third.target, &next, -1);
	compute(m->word[1] / 2);
	return ret;
}

static int handle(struct rpal_message *m)
{
	struct used used;

	if (m->word[0] == COMPUTE)
		return compute_nested(m);
	if (m->word[0] == USED_BY_THIRD) {
		*m = (struct rpal_message){ { USED } };
		return rpal_call(&third.target, m, -1);
	}
	used = used_so_far();
	*m = (struct rpal_message){ { used.rusage, used.proc, used.cgroup, computed } };
	return 0;
}

static void serve(void)
{
	enter_cgroup();
	serve_calls(handle);
}

static void server(struct side *side, int argc, char **argv)
{
	pid_t pid;

	third = start_peer("--mortal", 0, NULL, &pid);
	meet_receiver(&third);
	serve();
}

/* Of the whole. */
static long percent(long part, long whole)
{
	return whole ? (100 * part + whole / 2) / whole : 0;
}

/*
 * Time is moved when it has passed, by ticks: a process that was given nothing
 * since can have a tick less than before.
 */
static void check(const char *what, const char *who, long part, long whole, long truth)
{
	long got = percent(part, whole);

	ok(labs(got - truth) <= TOLERANCE && whole > SECONDS * 900,
	   "%s: %s has used %ld %%, in truth %ld (%ld of %ld ms)", what, who, got, truth, part,
	   whole);
}

enum { CLIENT, SERVER, THIRD, SIDES };

static const char *const side_names[] = { "the client", "the server", "the third" };

/* How far a side is. */
struct account {
	long used[3]; /* ms, by each interface */
	long computed;
};

static void ask(const struct side *side, uint64_t what, struct account *account)
{
	struct rpal_message m = { { what } };

	MUST(rpal_call(&side->target, &m, -1));
	*account = (struct account){ { m.word[0], m.word[1], m.word[2] }, m.word[3] };
}

static void take_stock(const struct side *side, int sides, struct account accounts[SIDES])
{
	struct used used;

	ask(side, USED, &accounts[SERVER]);
	if (sides > THIRD)
		ask(side, USED_BY_THIRD, &accounts[THIRD]);
	used = used_so_far();
	accounts[CLIENT] = (struct account){ { used.rusage, used.proc, used.cgroup }, computed };
}

/*
 * Percent of the work that is the server's and the third's. @zero: a file for
 * the client to read from instead of computing in user mode, or -1.
 */
static void share(const struct side *side, unsigned int server, unsigned int third, int zero)
{
	static const char *const interfaces[] = { "getrusage", "/proc/PID/stat", "cpu.stat" };
	struct account before[SIDES], after[SIDES];
	unsigned int own = 100 - server - third;
	int sides = third ? SIDES : THIRD;
	struct random random = { 1 };
	double end;

	take_stock(side, sides, before);
	end = now() + (third ? NESTED_SECONDS : SECONDS);
	while (now() < end) {
		long burst = third ? BURST / 2 + random_below(&random, BURST) : BURST;
		struct rpal_message m = {
			{ COMPUTE, burst * server / 100, burst * third / 100 },
		};

		if (zero < 0)
			compute(burst * own / 100);
		else
			compute_in_kernel(zero, burst * own / 100);
		MUST(rpal_call(&side->target, &m, -1));
	}
	take_stock(side, sides, after);

	printf("# %u %% on loan of the server, %u %% of a third%s\n", server, third,
	       zero < 0 ? "" : ", the client's in the kernel");
	for (int i = 0; i < 3; i++) {
		long whole = 0, work = 0;

		for (int who = 0; who < sides; who++) {
			whole += after[who].used[i] - before[who].used[i];
			work += after[who].computed - before[who].computed;
		}
		/* The shares of two are one. */
		for (int who = sides == SIDES ? CLIENT : SERVER; who < sides; who++)
			check(interfaces[i], side_names[who],
			      after[who].used[i] - before[who].used[i], whole,
			      percent(after[who].computed - before[who].computed, work));
	}
}

static int client(struct side *side, int argc, char **argv)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	enter_cgroup();
	for (unsigned int on_loan = 0; on_loan <= 100; on_loan += 25)
		share(side, on_loan, 0, -1);
	for (unsigned int on_loan = 25; on_loan <= 75; on_loan += 25)
		share(side, on_loan, 0, zero);
	share(side, 0, 50, -1);
	share(side, 10, 50, -1);
	share(side, 20, 60, -1);
	share(side, 50, 20, -1);
	return done();
}

int main(int argc, char **argv)
{
	struct side side;

	if (is_mortal(argc, argv, RPAL_ROLE_RECEIVER, &side))
		serve();
	return two_services(argc, argv, server, client);
}
