/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Page faults in the server's slot are handled in the server's address space,
 * whoever's task has them: by a guarded copy of the client, by the kernel's own
 * copies for the client's system calls, and by the server's handler on loan.
 *
 * The server makes memory of every kind, in a state in which the next access
 * faults, and says what is to be found there.
 */
#include "loan_limit.h"
#include "loop_device.h"
#include "page_state.h"
#include "peer_access.h"
#include "setting.h"
#include <linux/perf_event.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)

/* In the server: of the memory made last. */
static int file = -1;	  /* what is mapped */
static pid_t copy_holder; /* a child that shares the page */
static int copy_socket;

static uint64_t map(size_t size, int flags, int fd)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	return memory == MAP_FAILED ? 0 : (uintptr_t)memory;
}

static void put(uint64_t address, uint64_t value)
{
	*(volatile uint64_t *)address = value;
}

static uint64_t get(uint64_t address)
{
	return *(volatile uint64_t *)address;
}

static uint64_t make_anonymous(void)
{
	return map(16 * PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static bool is_absent(uint64_t address)
{
	return !page_is_present(address);
}

static uint64_t make_zero_page(void)
{
	uint64_t address = make_anonymous();

	return get(address) ? 0 : address;
}

static uint64_t make_private_file(void)
{
	file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	return map(16 * PAGE, MAP_PRIVATE, file);
}

/* What the file has at its beginning. */
static uint64_t in_file(void)
{
	uint64_t value = 0;

	return pread(file, &value, sizeof(value), 0) == sizeof(value) ? value : 0;
}

static bool file_is_kept(uint64_t address)
{
	uint64_t value = in_file();

	return !memcmp(&value, "\177ELF", 4);
}

static uint64_t make_shared_file(void)
{
	uint64_t value = 0xf11e;

	file = memfd_create("file", MFD_CLOEXEC);
	if (ftruncate(file, 16 * PAGE) || pwrite(file, &value, sizeof(value), 0) != sizeof(value))
		return 0;
	return map(32 * PAGE, MAP_SHARED, file);
}

static bool file_is_same(uint64_t address)
{
	return in_file() == get(address);
}

/* A child keeps what is there now, until it is asked. */
static void share_with_child(uint64_t address)
{
	int sockets[2];
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	copy_holder = fork();
	if (!copy_holder) {
		close(sockets[1]);
		_exit(read(sockets[0], &byte, 1) == 1 && get(address) == 0xc0 ? 0 : 1);
	}
	close(sockets[0]);
	copy_socket = sockets[1];
}

static bool child_keeps_its_copy(uint64_t address)
{
	int status = -1;

	tell(copy_socket, "?", 1);
	close(copy_socket);
	return waitpid(copy_holder, &status, 0) == copy_holder && !status;
}

static uint64_t make_copied_on_write(void)
{
	uint64_t address = make_anonymous();

	put(address, 0xc0);
	share_with_child(address);
	return address;
}

static uint64_t make_huge(void)
{
	uint64_t address = map(2 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	address = (address + HUGE - 1) & ~(HUGE - 1);
	return madvise((void *)address, HUGE, MADV_HUGEPAGE) ? 0 : address;
}

static bool is_huge(uint64_t address)
{
	return mapping_has(address, "AnonHugePages") > 0;
}

static uint64_t make_huge_copied_on_write(void)
{
	uint64_t address = make_huge();

	put(address, 0xc0);
	share_with_child(address);
	return address;
}

static bool is_present(uint64_t address)
{
	return page_is_present(address);
}

static uint64_t make_hugetlb(void)
{
	return map(HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
}

/* There are not many: it is given back. */
static bool was_hugetlb(uint64_t address)
{
	return mapping_has(address, "Private_Hugetlb") > 0 && !munmap((void *)address, HUGE);
}

/* Deeper than ever in the stack on which this runs. */
static uint64_t make_stack(void)
{
	static uint64_t address;

	if (!address)
		address = (uintptr_t)__builtin_frame_address(0) & ~(PAGE - 1);
	address -= 1 << 20;
	return address;
}

static bool is_below_stack(uint64_t address)
{
	return !is_mapped(address);
}

/*
 * A page that was touched just now is in a batch of the CPU that did it. While
 * it is there it is not swapped out, and MADV_PAGEOUT drains the batches of the
 * own CPU only, which after a call can be another one: this drains all.
 */
static void drain_batches(void)
{
	set("/proc/sys/vm/drop_caches", "1");
}

static uint64_t make_swapped(void)
{
	uint64_t address = make_anonymous();

	put(address, 0x5a);
	drain_batches();
	for (int i = 0; i < 100 && page_is_present(address); i++)
		madvise((void *)address, 16 * PAGE, MADV_PAGEOUT);
	return address;
}

static uint64_t make_shared_swapped(void)
{
	uint64_t address = make_shared_file();

	put(address, 0xf11e);
	drain_batches();
	for (int i = 0; i < 100 && mapping_has(address, "Swap") <= 0; i++)
		madvise((void *)address, 16 * PAGE, MADV_PAGEOUT);
	return address;
}

static bool is_swapped_file(uint64_t address)
{
	return !page_is_present(address) && mapping_has(address, "Swap") > 0;
}

static const struct kind {
	const char *name;
	uint64_t (*make)(void); /* 0: failed */
	bool (*before)(uint64_t address);
	bool (*after)(uint64_t address);
	uint64_t value; /* that is to be found; 0: if it is a file, what that has */
} kinds[] = {
	{ "anonymous", make_anonymous, is_absent, is_present, 0 },
	{ "zero page", make_zero_page, is_present, is_present, 0 },
	{ "private file", make_private_file, is_absent, file_is_kept, 0 },
	{ "shared file", make_shared_file, is_absent, file_is_same, 0 },
	{ "copied on write", make_copied_on_write, is_present, child_keeps_its_copy, 0xc0 },
	{ "huge page", make_huge, is_absent, is_huge, 0 },
	{ "huge page copied on write", make_huge_copied_on_write, is_huge, child_keeps_its_copy,
	  0xc0 },
	{ "hugetlb page", make_hugetlb, is_absent, was_hugetlb, 0 },
	{ "stack", make_stack, is_below_stack, is_mapped, 0 },
	{ "swapped out", make_swapped, page_is_swapped, is_present, 0x5a },
	{ "file, swapped out", make_shared_swapped, is_swapped_file, file_is_same, 0 },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* What the server is asked for, in word 0. */
enum {
	MAKE,	/* word 1: kind; its address, or 0 if it is not in its state, and its value */
	VERIFY, /* word 1: kind, 2: address; what is there, and if it is as it should be */
	FORBID, /* word 1: address */
	FAR,	/* an address in the stack, beyond its limit */
};

static int handle(struct rpal_message *m)
{
	const struct kind *kind = &kinds[m->word[1] % KINDS];
	uint64_t address;

	if (handle_access(m))
		return 0;
	switch (m->word[0]) {
	case MAKE:
		address = kind->make();
		if (!address || !kind->before(address))
			address = 0;
		*m = (struct rpal_message){ { address, kind->value } };
		if (!kind->value && file >= 0)
			m->word[1] = in_file();
		return 0;
	case VERIFY:
		address = m->word[2];
		m->word[0] = get(address);
		m->word[1] = kind->after(address);
		if (file >= 0)
			close(file);
		file = -1;
		return 0;
	case FORBID:
		return mprotect((void *)m->word[1], PAGE, PROT_NONE) ? -errno : 0;
	case FAR:
		m->word[0] = (uintptr_t)__builtin_frame_address(0) - (16 << 20);
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static struct side *to;

static int ask(struct rpal_message *m, uint64_t what, uint64_t a, uint64_t b)
{
	*m = (struct rpal_message){ { what, a, b } };
	return rpal_call(&to->target, m, -1);
}

static void test(uint64_t kind, const struct way *way)
{
	uint64_t address, expected, value, found;
	struct rpal_message m;
	int ret;

	do {
		ask(&m, MAKE, kind, 0);
		address = m.word[0];
		expected = way->store ? 0x5e7 : m.word[1];
		if (!address) {
			ok(false, "%s, %s: there is such memory", kinds[kind].name, way->name);
			return;
		}
		value = 0x5e7;
		ret = way->access(to, address, &value);
		ask(&m, VERIFY, kind, address);
	} while (ret == -EREMCHG);

	found = way->store ? m.word[0] : value;
	ok(!ret && found == expected && m.word[0] == expected && m.word[1],
	   "%s, %s (%d, found %#lx, the server %#llx %llu)", kinds[kind].name, way->name, ret,
	   found, m.word[0], m.word[1]);
}

/* What is not there, or may not be touched, is an error and no signal. */
static void test_refused(void)
{
	uint64_t address, value = 0, kind = 3;
	struct rpal_message m;

	ask(&m, MAKE, kind, 0);
	address = m.word[0];
	for (size_t i = 0; i < WAYS && !ways[i].loan; i++)
		ok(ways[i].access(to, address + 16 * PAGE, &value) == -EFAULT,
		   "beyond the end of a file, %s", ways[i].name);
	ask(&m, FORBID, address, 0);
	for (size_t i = 0; i < WAYS && !ways[i].loan; i++)
		ok(ways[i].access(to, address, &value) == -EFAULT, "forbidden memory, %s",
		   ways[i].name);
}

/* The limit of a stack is that of the process whose stack it is. */
static void test_stack_limit(void)
{
	struct rlimit low = { 64 << 10, RLIM_INFINITY }, high = { 64 << 20, RLIM_INFINITY };
	uint64_t value = 1;
	struct rpal_message m;

	ask(&m, FAR, 0, 0);
	if (setrlimit(RLIMIT_STACK, &high))
		die("setrlimit", errno);
	is(store_by_copy(to, m.word[0], &value), -EFAULT, "the server's stack has its own limit");
	if (setrlimit(RLIMIT_STACK, &low) || prlimit(to->other, RLIMIT_STACK, &high, NULL))
		die("prlimit", errno);
	is(store_by_copy(to, m.word[0], &value), 0, "and grows when that allows it");
}

static int count_faults(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_PAGE_FAULTS,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		bail_out("perf_event_open");
	return fd;
}

static uint64_t counted(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		bail_out("a count of faults");
	return count;
}

static long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt;
}

/* A fault counts once, for the task that has it. */
static void test_counts(void)
{
	int fd = count_faults();
	uint64_t before, value = 1;
	struct rpal_message m;
	long minor;

	/* Twice: the first time this code has faults of its own. */
	for (int i = 0; i < 2; i++) {
		ask(&m, MAKE, 0, 0);
		before = counted(fd);
		minor = minor_faults();
		for (uint64_t at = 0; at < 16 * PAGE; at += PAGE)
			MUST(store_by_copy(to, m.word[0] + at, &value));
	}
	is(counted(fd) - before, 16, "perf has counted 16 faults once each");
	is(minor_faults() - minor, 16, "and getrusage()");
	close(fd);
}

static int client(struct side *side, int argc, char **argv)
{
	struct loop_device swap = swap_space(16 << 20);

	set("/proc/sys/vm/nr_hugepages", "%zu", WAYS);
	/* A read shall get a huge page, too. */
	set("/sys/kernel/mm/transparent_hugepage/use_zero_page", "0");
	to = side;
	limit_loans(LONGEST_LOAN_LIMIT);
	for (uint64_t kind = 0; kind < KINDS; kind++)
		for (size_t i = 0; i < WAYS; i++)
			test(kind, &ways[i]);
	test_refused();
	test_stack_limit();
	test_counts();
	limit_loans(DEFAULT_LOAN_LIMIT);
	set("/sys/kernel/mm/transparent_hugepage/use_zero_page", "1");
	set("/proc/sys/vm/nr_hugepages", "0");
	stop_swapping(&swap);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
