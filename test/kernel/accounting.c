/* guest: icount timeout=180 */
// SPDX-License-Identifier: MIT
/*
 * Time on loan is the receiver's: getrusage(), /proc/PID/stat and cpu.stat of
 * the cgroup tell who has computed, whoever's task it was.
 *
 * The client computes a little and calls a server that computes a little, in
 * user mode. Both know how many instructions they have executed, and that is
 * the time of a guest that counts them. It has to be met within 5 % of the sum.
 * Or the client has the kernel work for it: that is no time on loan either.
 */
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
#define TOLERANCE 5

enum { COMPUTE = 1, USED };

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

static int handle(struct rpal_message *m)
{
	struct used used;

	if (m->word[0] == COMPUTE) {
		compute(m->word[1]);
		return 0;
	}
	used = used_so_far();
	*m = (struct rpal_message){ { used.rusage, used.proc, used.cgroup, computed } };
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	enter_cgroup();
	serve_calls(handle);
}

/* Percent of the sum. */
static long percent(long part, long other)
{
	return part + other ? (100 * part + (part + other) / 2) / (part + other) : 0;
}

/*
 * Time is moved when it has passed, by ticks: a process that was given nothing
 * since can have a tick less than before.
 */
static void check(const char *what, long server, long client, long truth)
{
	long got = percent(server, client);

	ok(labs(got - truth) <= TOLERANCE && server + client > SECONDS * 900,
	   "%s: the server has used %ld %% (%ld ms, the client %ld ms)", what, got, server, client);
}

/* @zero: a file for the client to read from instead of computing in user mode, or -1. */
static void share(struct side *side, unsigned int on_loan, int zero)
{
	struct rpal_message there, then = { { USED } }, m;
	struct used before, after;
	long own, truth;
	double end;

	MUST(rpal_call(&side->target, &then, -1));
	before = used_so_far();
	own = computed;
	end = now() + SECONDS;
	while (now() < end) {
		if (zero < 0)
			compute(BURST * (100 - on_loan) / 100);
		else
			compute_in_kernel(zero, BURST * (100 - on_loan) / 100);
		m = (struct rpal_message){ { COMPUTE, BURST * on_loan / 100 } };
		MUST(rpal_call(&side->target, &m, -1));
	}
	there = (struct rpal_message){ { USED } };
	MUST(rpal_call(&side->target, &there, -1));
	after = used_so_far();

	truth = percent(there.word[3] - then.word[3], computed - own);
	printf("# %u %% of the work on loan%s; measured %ld %%\n", on_loan,
	       zero < 0 ? "" : ", the client's in the kernel", truth);
	check("getrusage", there.word[0] - then.word[0], after.rusage - before.rusage, truth);
	check("/proc/PID/stat", there.word[1] - then.word[1], after.proc - before.proc, truth);
	check("cpu.stat", there.word[2] - then.word[2], after.cgroup - before.cgroup, truth);
}

static int client(struct side *side, int argc, char **argv)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	enter_cgroup();
	for (unsigned int on_loan = 0; on_loan <= 100; on_loan += 25)
		share(side, on_loan, -1);
	for (unsigned int on_loan = 25; on_loan <= 75; on_loan += 25)
		share(side, on_loan, zero);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
