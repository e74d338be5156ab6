// SPDX-License-Identifier: MIT
/*
 * What ordinary paths of the kernel cost a process that is no service, in guest
 * instructions: to be run on two kernels and compared.
 *
 *	kernel_paths CPUS	that many CPUs are there: 1 or 2
 *
 * Every round of a path reads the clock right before and right after, and its
 * result is verified. What counts is the median of the rounds: the ticks, the
 * page that comes from another list, the table that has to be made first are
 * in few of them. On two CPUs the clock counts the instructions of both: of
 * the one that waits for the flush of the other's TLB, and of the other.
 */
#include "measure.h"
#include "raw_syscall.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/wait.h>

#define PAGE	    4096UL
#define TABLE	    (512 * PAGE) /* what one page table maps */
#define ROUNDS_MOST 20000

static const struct plan plan = { .instructions = true };
static uint64_t cost;

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "%s failed: this run is no result\n", what);
	exit(3);
}

static inline uint64_t since(uint64_t start)
{
	return ticks(&plan) - start - cost;
}

static uint64_t getppid_call(void)
{
	static long expected;
	uint64_t start = ticks(&plan);
	long parent = raw(SYS_getppid, 0, 0, 0, 0);
	uint64_t result = since(start);

	if (!expected)
		expected = getppid();
	check(parent == expected, "getppid");
	return result;
}

static int zero;

static void open_zero(void)
{
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	check(zero >= 0, "open");
}

static uint64_t read_byte(void)
{
	char byte = 1;
	uint64_t start = ticks(&plan);
	long got = raw(SYS_read, zero, (long)&byte, 1, 0);
	uint64_t result = since(start);

	check(got == 1 && !byte, "read");
	return result;
}

/*
 * A table's worth of addresses. The first page is always there, so that the
 * page table stays.
 */
static char *area;

static void map_area_of(int flags, int fd)
{
	char *reserved = mmap(NULL, 2 * TABLE, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(reserved != MAP_FAILED, "mmap");
	area = (char *)(((uintptr_t)reserved + TABLE - 1) & ~(TABLE - 1));
	check(mmap(area, TABLE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == area, "mmap");
	*(volatile char *)area = 1;
}

static void map_area(void)
{
	map_area_of(MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void drop(char *page, size_t bytes)
{
	check(!raw(SYS_madvise, (long)page, bytes, MADV_DONTNEED, 0), "madvise");
}

/* The kernel has to clear a page. */
static uint64_t write_fault(void)
{
	volatile char *page = area + TABLE / 2;
	uint64_t start = ticks(&plan), result;

	*page = 1;
	result = since(start);
	drop((char *)page, PAGE);
	return result;
}

/* The page of zeroes is mapped: the path alone. */
static uint64_t read_fault(void)
{
	volatile char *page = area + TABLE / 2;
	uint64_t start = ticks(&plan), result;
	char byte = *page;

	result = since(start);
	check(!byte, "a fault");
	drop((char *)page, PAGE);
	return result;
}

static void map_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	char page[PAGE];

	memset(page, 2, sizeof(page));
	for (size_t at = 0; at < TABLE; at += PAGE)
		check(write(fd, page, PAGE) == PAGE, "write");
	map_area_of(MAP_PRIVATE, fd);
	close(fd);
}

/* The page cache has it, and maps what lies around it as well. */
static uint64_t file_fault(void)
{
	volatile char *page = area + TABLE / 2;
	uint64_t start = ticks(&plan), result;
	char byte = *page;

	result = since(start);
	check(byte == 2, "a fault");
	drop(area + PAGE, TABLE - PAGE);
	return result;
}

static pid_t other;

static void wait_for_other(void)
{
	int status;

	check(waitpid(other, &status, 0) == other && WIFEXITED(status) && !WEXITSTATUS(status),
	      "the other process");
}

static int there[2], back[2];

static void start_echo(void)
{
	char byte;

	check(!pipe2(there, O_CLOEXEC) && !pipe2(back, O_CLOEXEC), "pipe");
	other = fork();
	if (other) {
		close(there[0]);
		close(back[1]);
		return;
	}
	close(there[1]);
	close(back[0]);
	while (raw(SYS_read, there[0], (long)&byte, 1, 0) == 1) {
		byte++;
		raw(SYS_write, back[1], (long)&byte, 1, 0);
	}
	_exit(0);
}

static void end_echo(void)
{
	close(there[1]);
	close(back[0]);
	wait_for_other();
}

/* There and back: two switches. */
static uint64_t switch_processes(void)
{
	char byte = 5;
	uint64_t start = ticks(&plan), result;

	raw(SYS_write, there[1], (long)&byte, 1, 0);
	raw(SYS_read, back[0], (long)&byte, 1, 0);
	result = since(start);
	check(byte == 6, "the answer");
	return result;
}

static pthread_t thread;
static _Atomic uint32_t turn; /* 0: the main thread's, 1: the other's, 2: it ends */

static void pass(uint32_t whose)
{
	turn = whose;
	raw(SYS_futex, (long)&turn, FUTEX_WAKE_PRIVATE, 1, 0);
}

static void await(uint32_t not_mine)
{
	while (turn == not_mine)
		raw(SYS_futex, (long)&turn, FUTEX_WAIT_PRIVATE, not_mine, 0);
}

static void *pass_back(void *arg)
{
	for (;;) {
		await(0);
		if (turn == 2)
			return NULL;
		pass(0);
	}
}

static void start_thread(void)
{
	turn = 0;
	check(!pthread_create(&thread, NULL, pass_back, NULL), "pthread_create");
}

static void end_thread(void)
{
	pass(2);
	pthread_join(thread, NULL);
}

static uint64_t switch_threads(void)
{
	uint64_t start = ticks(&plan);

	pass(1);
	await(1);
	return since(start);
}

/* @pages of memory in the area come, are used and go. */
static char *use(size_t pages)
{
	char *at = area + TABLE / 2;

	check(mmap(at, pages * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at,
	      "mmap");
	for (size_t i = 0; i < pages; i++)
		at[i * PAGE] = 1;
	return at;
}

static uint64_t unmap(size_t pages)
{
	char *at = use(pages);
	uint64_t start = ticks(&plan);
	long ret = raw(SYS_munmap, (long)at, pages * PAGE, 0, 0);
	uint64_t result = since(start);

	check(!ret, "munmap");
	return result;
}

static uint64_t unmap_1(void)
{
	return unmap(1);
}

static uint64_t unmap_64(void)
{
	return unmap(64);
}

static uint64_t protect_1(void)
{
	char *at = use(1);
	uint64_t start = ticks(&plan);
	long ret = raw(SYS_mprotect, (long)at, PAGE, PROT_READ, 0);
	uint64_t result = since(start);

	check(!ret, "mprotect");
	return result;
}

static uint64_t map_and_unmap(void)
{
	uint64_t start = ticks(&plan), result;
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long ret = raw(SYS_munmap, (long)at, PAGE, 0, 0);

	result = since(start);
	check(!ret, "mmap and munmap");
	return result;
}

static uint64_t fork_and_wait(void)
{
	uint64_t start = ticks(&plan), result;
	long child = raw(SYS_clone, SIGCHLD, 0, 0, 0), ended;
	int status;

	if (!child)
		raw(SYS_exit_group, 0, 0, 0, 0);
	ended = raw(SYS_wait4, child, (long)&status, 0, 0);
	result = since(start);
	check(child > 0 && ended == child && !status, "fork");
	return result;
}

/* A program that ends at its first instruction, in memory. */
static int nothing;

static void load_nothing(void)
{
	char path[4096], bytes[65536];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 16), size;
	int fd;

	check(length > 0, "readlink");
	strcpy(path + length, "_nothing");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	size = read(fd, bytes, sizeof(bytes));
	check(size > 0 && size < (ssize_t)sizeof(bytes), path);
	close(fd);
	nothing = memfd_create("nothing", MFD_CLOEXEC);
	check(write(nothing, bytes, size) == size, "write");
	/* Nobody has it open for writing, or it could not be executed. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", nothing);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	close(nothing);
	nothing = fd;
	check(nothing >= 0, "open");
}

static uint64_t exec_and_wait(void)
{
	static char *const none[] = { NULL };
	uint64_t start = ticks(&plan), result;
	pid_t child = vfork();
	int status = 0;
	long ended;

	if (!child) {
		syscall(SYS_execveat, nothing, "", none, none, AT_EMPTY_PATH);
		_exit(1);
	}
	ended = raw(SYS_wait4, child, (long)&status, 0, 0);
	result = since(start);
	check(child > 0 && ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 42,
	      "exec");
	return result;
}

static volatile sig_atomic_t handled;

static void handle(int signal)
{
	handled++;
}

static void set_handler(void)
{
	struct sigaction action = { .sa_handler = handle };

	check(!sigaction(SIGUSR1, &action, NULL), "sigaction");
}

static uint64_t signal_and_return(void)
{
	long self = getpid(), before = handled;
	uint64_t start = ticks(&plan), result;

	raw(SYS_tgkill, self, self, SIGUSR1, 0);
	result = since(start);
	check(handled == before + 1, "the handler");
	return result;
}

/* Interrupts by which the second CPU was told to flush its TLB. */
static long flushes(void)
{
	FILE *file = fopen("/proc/interrupts", "r");
	char line[512];
	long cpu, count = -1;

	check(file, "/proc/interrupts");
	while (count < 0 && fgets(line, sizeof(line), file))
		sscanf(line, " TLB: %ld %ld", &cpu, &count);
	fclose(file);
	check(count >= 0, "/proc/interrupts");
	return count;
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	check(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static atomic_bool stop, spinning;
static long flushes_before;

/* In user mode, where it has to be told; PAUSE lets the emulator go on with the other. */
static void *spin(void *arg)
{
	stay_on(1);
	spinning = true;
	while (!stop)
		__builtin_ia32_pause();
	return NULL;
}

static void map_area_for_two(void)
{
	map_area();
	stay_on(0);
	stop = spinning = false;
	check(!pthread_create(&thread, NULL, spin, NULL), "pthread_create");
	while (!spinning)
		__builtin_ia32_pause();
	flushes_before = flushes();
}

/* As many as there were rounds, or it was not what it is said to be. */
static void end_spin(long rounds)
{
	long told = flushes() - flushes_before;

	stop = true;
	pthread_join(thread, NULL);
	check(told >= rounds, "a flush on the other CPU");
}

struct path {
	const char *name;
	long rounds;
	uint64_t (*run)(void);
	void (*prepare)(void);
	void (*end)(void);
};

#define ON_AREA(name_, rounds_, run_) \
	{ .name = name_, .rounds = rounds_, .run = run_, .prepare = map_area }

static const struct path on_one[] = {
	{ .name = "system call (getppid)", .rounds = 5000, .run = getppid_call },
	{ .name = "read of 1 byte from /dev/zero",
	  .rounds = 5000,
	  .run = read_byte,
	  .prepare = open_zero },
	ON_AREA("page fault, anonymous, written", 5000, write_fault),
	ON_AREA("page fault, anonymous, read", 5000, read_fault),
	{ .name = "page fault, file, minor",
	  .rounds = 5000,
	  .run = file_fault,
	  .prepare = map_file },
	{ .name = "2 context switches, processes (pipes)",
	  .rounds = 5000,
	  .run = switch_processes,
	  .prepare = start_echo,
	  .end = end_echo },
	{ .name = "2 context switches, threads (futex)",
	  .rounds = 5000,
	  .run = switch_threads,
	  .prepare = start_thread,
	  .end = end_thread },
	ON_AREA("munmap, 1 page", 5000, unmap_1),
	ON_AREA("munmap, 64 pages", 1000, unmap_64),
	ON_AREA("mprotect, 1 page", 5000, protect_1),
	{ .name = "mmap and munmap, untouched", .rounds = 5000, .run = map_and_unmap },
	{ .name = "fork, exit, wait", .rounds = 1000, .run = fork_and_wait },
	{ .name = "vfork, exec, exit, wait",
	  .rounds = 1000,
	  .run = exec_and_wait,
	  .prepare = load_nothing },
	{ .name = "signal, handler, sigreturn",
	  .rounds = 5000,
	  .run = signal_and_return,
	  .prepare = set_handler },
	{ .name = NULL },
};

/* Another thread of the process runs on the other CPU. */
static const struct path on_two[] = {
	{ .name = "munmap, 1 page", .rounds = 2000, .run = unmap_1 },
	{ .name = "munmap, 64 pages", .rounds = 1000, .run = unmap_64 },
	{ .name = "mprotect, 1 page", .rounds = 2000, .run = protect_1 },
	{ .name = NULL },
};

static int compare(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static void measure(const struct path *path, int cpus)
{
	static uint64_t value[ROUNDS_MOST];

	if (path->prepare)
		path->prepare();
	if (cpus == 2)
		map_area_for_two();
	for (long i = 0; i < path->rounds / 10; i++)
		path->run();
	for (long i = 0; i < path->rounds; i++)
		value[i] = path->run();
	if (cpus == 2)
		end_spin(path->rounds);
	if (path->end)
		path->end();
	qsort(value, path->rounds, sizeof(*value), compare);
	printf("{\"path\":\"%s\",\"cpus\":%d,\"rounds\":%ld,\"instructions\":%llu}\n", path->name,
	       cpus, path->rounds, (unsigned long long)value[path->rounds / 2]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int cpus = argc > 1 ? atoi(argv[1]) : 0;

	check(cpus == sysconf(_SC_NPROCESSORS_ONLN), "the number of CPUs");
	/* The same addresses, every time. */
	if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) {
		personality(ADDR_NO_RANDOMIZE);
		execv("/proc/self/exe", argv);
		check(false, "execv");
	}
	cost = clock_cost(&plan);
	for (const struct path *path = cpus == 2 ? on_two : on_one; path->name; path++)
		measure(path, cpus);
	return 0;
}
