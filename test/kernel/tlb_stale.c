// SPDX-License-Identifier: MIT
/* guest: cpus=3 append=pti=on debug timeout=300 */
/*
 * When a service has changed its mappings, no CPU reads or writes the old page
 * through a peer. What the peer reads after the owner's system call has returned
 * must be the new contents, and what it writes must not get where the owner does
 * not want it any more.
 *
 * As a rule the peer never stops. In some rounds it holds still while the owner
 * changes something: so an entry that it has in its TLB cannot be gone, nor the
 * page be there again, because of its own next access.
 *
 * Owner and peer share a page with a round number and what the owner did.
 */
#include "kasan.h"
#include "loop_device.h"
#include "page_state.h"
#include "peer.h"
#include "pin.h"
#include "setting.h"
#include <pthread.h>
#include <stdatomic.h>

#define ROUNDS	     200
#define HUGE_ROUNDS  60
#define MOVE_ROUNDS  40
#define MERGE_ROUNDS 20
#define ALL_ROUNDS   (16 * ROUNDS)
#define PAGE	     4096UL
#define HUGE	     (2UL << 20)
#define SMALL_PAGES  (HUGE / PAGE)
#define PAGES_OF_CPUS "/proc/sys/vm/percpu_pagelist_high_fraction"
#define PFN(address) (page_entry((uint64_t)(address)) & ((1UL << 55) - 1))

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct board {
	_Atomic uint64_t address; /* that is read */
	_Atomic uint64_t old;	  /* what was there */
	_Atomic uint64_t round;	  /* odd: the old value may be read */
	_Atomic uint64_t seen;	  /* how often it was read */
	_Atomic uint64_t value;	  /* that it read last */
	_Atomic uint64_t stale;
	_Atomic uint64_t faults;  /* it had */
	_Atomic uint64_t writing; /* instead of reading */
	_Atomic uint64_t hold;	  /* it is to hold still */
	_Atomic uint64_t held;	  /* it does */
	_Atomic uint64_t stop;
};

static struct board *board;

/* The board comes as descriptor 100, which exec does not close. */
static void attach(void)
{
	board = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 100, 0);
	if (board == MAP_FAILED)
		bail_out("board");
}

/*
 * In an even round a fault is as good as a new value: the page may have gone.
 *
 * No WRPKRU and no system call without need: QEMU's TLB is emptied by the
 * former, and stale entries are what is looked for.
 */
static void read_once(uint64_t pkey)
{
	uint64_t round = atomic_load(&board->round), value;

	if (!sigsetjmp(after_fault, 0)) {
		value = *(volatile uint64_t *)atomic_load(&board->address);
	} else {
		open_key(pkey);
		atomic_fetch_add(&board->faults, 1);
		value = ~0UL;
	}
	if (!(round & 1) && value == atomic_load(&board->old) &&
	    round == atomic_load(&board->round))
		atomic_fetch_add(&board->stale, 1);
	atomic_store(&board->value, value);
}

/* Another value each time. */
static void write_once(uint64_t pkey)
{
	static uint64_t value;

	if (!sigsetjmp(after_fault, 0)) {
		*(volatile uint64_t *)atomic_load(&board->address) = ++value;
	} else {
		open_key(pkey);
		atomic_fetch_add(&board->faults, 1);
	}
}

static void hold_still(void)
{
	atomic_store(&board->held, 1);
	while (atomic_load(&board->hold))
		;
	atomic_store(&board->held, 0);
}

static int reader_role(int socket)
{
	struct rpal_info info;
	struct rpal_request asked;
	uint64_t key, pkey;

	attach();
	my_device = introduce(socket, &info);
	key = hear(socket);
	pkey = hear(socket);
	say(socket, request(my_device, key, &asked));
	pin(1);
	catch_faults();
	open_key(pkey);
	while (!atomic_load(&board->stop)) {
		if (atomic_load(&board->writing))
			write_once(pkey);
		else
			read_once(pkey);
		atomic_fetch_add(&board->seen, 1);
		if (atomic_load(&board->hold))
			hold_still();
	}
	return 0;
}

static void wait_for_accesses(int count)
{
	uint64_t seen = atomic_load(&board->seen);

	while (atomic_load(&board->seen) < seen + count)
		;
}

/* ---- The owner ---------------------------------------------------------------- */

static volatile uint64_t *page;
static int changed; /* rounds in which the kernel has done what is tested */

static void map_at(volatile void *address, size_t size)
{
	if (mmap((void *)address, size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != address)
		bail_out("mmap");
}

static void *reserve(size_t size)
{
	void *memory = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);

	if (memory == MAP_FAILED)
		bail_out("mmap");
	return memory;
}

/*
 * Every round has an address of its own: what the peer's TLB still has of
 * earlier rounds does not matter.
 */
static void next_page(void)
{
	static char *next;

	if (!next)
		next = reserve(2 * PAGE * (ALL_ROUNDS + 1));
	next += 2 * PAGE;
	page = (void *)next;
	map_at(page, PAGE);
}

/*
 * Compaction moves pages from the lower end of memory to free ones among others
 * in use at its upper end. So a few of many pages stay: the lowest of them is
 * to move.
 */
static void next_low_page(void)
{
	const size_t size = 4 * HUGE;
	static char *next;
	char *lowest;

	if (!next)
		next = reserve(size * (2 * MOVE_ROUNDS + 1));
	else
		munmap(next, size);
	next += size;
	map_at(next, size);
	if (madvise(next, size, MADV_POPULATE_WRITE))
		bail_out("MADV_POPULATE_WRITE");
	lowest = next;
	for (char *other = next; other < next + size; other += 64 * PAGE) {
		if (PFN(other) < PFN(lowest))
			lowest = other;
		madvise(other + PAGE, 63 * PAGE, MADV_DONTNEED);
	}
	page = (void *)lowest;
}

/* In the middle of what can be a huge page. The last one is given back. */
static void next_huge_area(int advice)
{
	static char *next;

	if (!next)
		next = (char *)(((uint64_t)reserve(HUGE * (4 * HUGE_ROUNDS + 2)) + HUGE - 1) &
				~(HUGE - 1));
	else
		munmap(next, HUGE);
	next += HUGE;
	map_at(next, HUGE);
	if (madvise(next, HUGE, advice))
		bail_out("madvise");
	page = (void *)(next + HUGE / 2 + 5 * PAGE);
}

static void next_huge_page(void)
{
	next_huge_area(MADV_HUGEPAGE);
}

/* The pages around it are there, too. */
static void next_small_pages(void)
{
	next_huge_area(MADV_NOHUGEPAGE);
	for (int i = -8; i <= 8; i++)
		page[i * (long)(PAGE / sizeof(*page))] = 1;
}

static bool is_huge(void)
{
	uint64_t start = (uint64_t)page & ~(HUGE - 1);

	return PFN(start) && PFN(start) % SMALL_PAGES == 0 &&
	       PFN(page) == PFN(start) + ((uint64_t)page - start) / PAGE;
}

/* Until the end of the round. */
static void hold_peer(void)
{
	atomic_store(&board->hold, 1);
	while (!atomic_load(&board->held))
		;
}

static void let_peer_go(void)
{
	atomic_store(&board->hold, 0);
	while (atomic_load(&board->held))
		;
	wait_for_accesses(5);
}

static void by_munmap(uint64_t value)
{
	munmap((void *)page, PAGE);
}

static void by_replacing(uint64_t value)
{
	map_at(page, PAGE);
}

static void by_dontneed(uint64_t value)
{
	madvise((void *)page, PAGE, MADV_DONTNEED);
}

static void by_protecting(uint64_t value)
{
	mprotect((void *)page, PAGE, PROT_NONE);
}

static void by_moving(uint64_t value)
{
	void *to = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mremap((void *)page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	munmap(to, PAGE);
}

static void by_pageout(uint64_t value)
{
	madvise((void *)page, PAGE, MADV_PAGEOUT);
	page[0] = value + 1;
}

/* A child keeps the old page: the owner's store goes to a copy. */
static void by_copying(uint64_t value)
{
	int pipes[2];
	char c;
	pid_t pid;

	if (pipe(pipes))
		bail_out("pipe");
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		_exit(read(pipes[0], &c, 1));
	}
	page[0] = value + 1;
	close(pipes[0]);
	close(pipes[1]);
	waitpid(pid, NULL, 0);
}

/*
 * The peer holds still, or it would have the page back at once. If it used an
 * old entry after that, the page would stay where it is.
 */
static void by_swapping(uint64_t value)
{
	hold_peer();
	for (int i = 0; i < 1000 && !page_is_swapped((uint64_t)page); i++)
		madvise((void *)page, PAGE, MADV_PAGEOUT);
	if (page_is_swapped((uint64_t)page)) {
		let_peer_go();
		changed++;
		if (!page_is_present((uint64_t)page))
			atomic_fetch_add(&board->stale, 1);
	}
	page[0] = value + 1;
}

static void by_splitting(uint64_t value)
{
	bool huge = is_huge();

	madvise((void *)page, PAGE, MADV_DONTNEED);
	changed += huge && !page_is_present((uint64_t)page) &&
		   page_is_present((uint64_t)page & ~(HUGE - 1));
}

static void by_forbidding_a_part(uint64_t value)
{
	changed += is_huge();
	mprotect((void *)page, PAGE, PROT_NONE);
}

/* Copies the page, and says so by its number. */
static void by_collapsing(uint64_t value)
{
	uint64_t before = PFN(page), start = (uint64_t)page & ~(HUGE - 1);

	if (madvise((void *)start, HUGE, MADV_HUGEPAGE) ||
	    madvise((void *)start, HUGE, MADV_COLLAPSE))
		return;
	changed += PFN(page) != before && is_huge();
	page[0] = value + 1;
}

static void compact(void)
{
	set("/proc/sys/vm/compact_memory", "1");
}

static void by_compacting(uint64_t value)
{
	uint64_t before = PFN(page);

	compact();
	changed += PFN(page) != before;
	page[0] = value + 1;
}

static int orders[2]; /* pipe */
static _Atomic bool compacted;

static void *compactor(void *argument)
{
	char c;

	pin(2);
	while (read(orders[0], &c, 1) == 1) {
		compact();
		atomic_store(&compacted, true);
	}
	return NULL;
}

/*
 * On a CPU that neither side is on: then flushes of the owner's pages are put
 * off and become one. Nothing else is to flush, so the thread stays, and the
 * owner keeps its CPU.
 */
static void by_compacting_elsewhere(uint64_t value)
{
	uint64_t before = PFN(page);
	pthread_t thread;

	if (!orders[1] &&
	    (pipe2(orders, O_CLOEXEC) || pthread_create(&thread, NULL, compactor, NULL)))
		bail_out("a thread that compacts");
	atomic_store(&compacted, false);
	if (write(orders[1], "", 1) != 1)
		bail_out("pipe");
	while (!atomic_load(&compacted))
		;
	changed += PFN(page) != before;
	page[0] = value + 1;
}

/* KSM keeps one page for the two: the second one. */
static void by_merging(uint64_t value)
{
	volatile uint64_t *twin = page + PAGE / sizeof(*page);
	uint64_t before = PFN(page);

	*twin = value;
	if (madvise((void *)page, 2 * PAGE, MADV_MERGEABLE))
		return;
	for (int i = 0; i < 2000 && PFN(page) != PFN(twin); i++)
		usleep(1000);
	changed += PFN(page) == PFN(twin) && PFN(page) != before;
	page[0] = value + 1;
}

struct way {
	const char *name;
	void (*prepare)(void);
	void (*change)(uint64_t value);
	int rounds;
	bool hold;  /* in every second round */
	bool store; /* the page has value + 1 afterwards */
	int enough; /* rounds in which it must have happened; they are counted */
};

static void test_reads(const struct way *way)
{
	static uint64_t round, value = 0x1000;
	uint64_t stale = atomic_load(&board->stale);
	int rounds = rounds_here(way->rounds), wrong = 0;

	changed = 0;
	for (int i = 0; i < rounds; i++, round += 2, value += 2) {
		atomic_store(&board->round, round + 1);
		way->prepare();
		page[0] = value;
		atomic_store(&board->old, value);
		atomic_store(&board->address, (uint64_t)page);
		while (atomic_load(&board->value) != value)
			;
		if (way->hold && i % 2)
			hold_peer();
		way->change(value);
		atomic_store(&board->round, round + 2);
		let_peer_go();
		/* The old page may have got other contents by now. */
		wrong += way->store && atomic_load(&board->value) != value + 1;
	}
	stale = atomic_load(&board->stale) - stale;
	if (!ok(!stale && !wrong, "no stale read after %s", way->name))
		printf("# %lu reads, of %d pages\n", stale, wrong);
	if (way->enough)
		ok(changed * 100 >= rounds * way->enough, "which has happened %d times of %d",
		   changed, rounds);
}

static const struct way ways[] = {
	{ "munmap", next_page, by_munmap, ROUNDS, true, false, 0 },
	{ "mmap over it", next_page, by_replacing, ROUNDS, true, false, 0 },
	{ "MADV_DONTNEED", next_page, by_dontneed, ROUNDS, true, false, 0 },
	{ "mprotect", next_page, by_protecting, ROUNDS, true, false, 0 },
	{ "mremap", next_page, by_moving, ROUNDS, true, false, 0 },
	{ "MADV_PAGEOUT and a store", next_page, by_pageout, ROUNDS, false, true, 0 },
	{ "swapping out", next_page, by_swapping, HUGE_ROUNDS, false, true, 90 },
	{ "a store after fork", next_page, by_copying, ROUNDS, true, true, 0 },
	{ "MADV_DONTNEED of a part of a huge page", next_huge_page, by_splitting, HUGE_ROUNDS,
	  true, false, 40 },
	{ "mprotect of a part of a huge page", next_huge_page, by_forbidding_a_part, HUGE_ROUNDS,
	  true, false, 50 },
	{ "MADV_COLLAPSE and a store", next_small_pages, by_collapsing, HUGE_ROUNDS, true, true, 50 },
	{ "compaction and a store", next_low_page, by_compacting, MOVE_ROUNDS, true, true, 80 },
	{ "compaction on another CPU and a store", next_low_page, by_compacting_elsewhere,
	  MOVE_ROUNDS, true, true, 80 },
	{ "merging and a store", next_small_pages, by_merging, MERGE_ROUNDS, true, true, 50 },
};

/* The peer writes to a new page now. */
static void let_peer_write(void)
{
	next_page();
	page[0] = 0;
	atomic_store(&board->address, (uint64_t)page);
	atomic_store(&board->writing, 1);
	wait_for_accesses(5);
}

static void let_peer_read(void)
{
	atomic_store(&board->address, (uint64_t)&board->old);
	atomic_store(&board->writing, 0);
	wait_for_accesses(5);
}

static void test_protected(void)
{
	int rounds = rounds_here(ROUNDS), written = 0, refused = 0;

	for (int i = 0; i < rounds; i++) {
		uint64_t faults, last;

		let_peer_write();
		if (i % 2)
			hold_peer();
		if (mprotect((void *)page, PAGE, PROT_READ))
			bail_out("mprotect");
		last = page[0];
		faults = atomic_load(&board->faults);
		let_peer_go();
		written += page[0] != last;
		refused += atomic_load(&board->faults) > faults;
	}
	let_peer_read();
	if (!ok(!written && refused == rounds, "no write after mprotect to read only"))
		printf("# %d written, %d refused, of %d\n", written, refused, rounds);
}

/* The child's exit status: the peer's writes have come to its page. */
static bool is_written_in_child(void)
{
	uint64_t last = page[0];

	wait_for_accesses(5);
	return page[0] != last;
}

/* The page is the child's alone as soon as anybody of the parent's has written. */
static void test_forked(void)
{
	int rounds = rounds_here(ROUNDS) / 2, written = 0, lost = 0;

	for (int i = 0; i < rounds; i++) {
		uint64_t last;
		int status;
		pid_t pid;

		let_peer_write();
		pid = fork();
		if (!pid)
			_exit(is_written_in_child());
		last = page[0];
		wait_for_accesses(5);
		lost += page[0] == last;
		waitpid(pid, &status, 0);
		written += status != 0;
	}
	let_peer_read();
	if (!ok(!written && !lost, "after fork the peer's writes are the parent's"))
		printf("# %d in the child, %d lost, of %d\n", written, lost, rounds);
}

static int owner_role(int socket)
{
	struct loop_device swap = swap_space(16 << 20);
	struct rpal_info info;
	struct rpal_request asked;

	attach();
	my_device = introduce(socket, &info);
	if (request(my_device, hear(socket), &asked) || asked.flags != RPAL_PEER_LINKED)
		bail_out("the link");
	pin(0);
	/* Few free pages in lists of the CPUs, where compaction does not see them. */
	set(PAGES_OF_CPUS, "100000");
	set("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	set("/sys/kernel/mm/ksm/run", "1");
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		test_reads(&ways[i]);
	test_protected();
	test_forked();
	atomic_store(&board->stop, 1);
	/* Undoes all merging. */
	set("/sys/kernel/mm/ksm/run", "2");
	set("/sys/kernel/mm/ksm/sleep_millisecs", "20");
	set(PAGES_OF_CPUS, "0");
	stop_swapping(&swap);
	return done();
}

const struct role roles[] = {
	{ "peer", peer_role }, { "owner", owner_role }, { "reader", reader_role }, {}
};

int main(int argc, char **argv)
{
	struct child owner, reader;
	int fd = memfd_create("board", 0);

	RUN_ROLE(argc, argv);
	close(device());
	if (sysconf(_SC_NPROCESSORS_ONLN) < 3)
		skip_all("needs three CPUs");
	if (fd < 0 || ftruncate(fd, PAGE) || dup2(fd, 100) != 100)
		bail_out("board");
	attach();
	board->address = (uint64_t)&board->old;

	reader = spawn("reader", true);
	meet(&reader);
	owner = spawn("owner", true);
	meet(&owner);
	say(reader.socket, owner.info.key);
	say(reader.socket, owner.info.pkey);
	if (hear(reader.socket))
		bail_out("the reader's request");
	say(owner.socket, reader.info.key);

	fd = outcome(&owner);
	board->stop = 1;
	outcome(&reader);
	return fd;
}
