// SPDX-License-Identifier: MIT
/* guest: cpus=2 debug timeout=120 */
/*
 * When a service has changed its mappings, no CPU reads the old page through
 * a peer. The reader never stops reading; what it reads after the owner's
 * system call has returned must be the new contents.
 *
 * Owner and reader share a page with a round number and what the owner did.
 */
#include "kasan.h"
#include "peer.h"
#include <stdatomic.h>

#define ROUNDS 200
#define WAYS   7
#define PAGE   4096UL

struct board {
	_Atomic uint64_t address; /* that is read */
	_Atomic uint64_t old;	  /* what was there */
	_Atomic uint64_t round;	  /* odd: the old value may be read */
	_Atomic uint64_t seen;	  /* how often it was read */
	_Atomic uint64_t value;	  /* that it read last */
	_Atomic uint64_t stale;
	_Atomic uint64_t stop;
};

static struct board *board;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* The board comes as descriptor 100, which exec does not close. */
static void attach(void)
{
	board = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 100, 0);
	if (board == MAP_FAILED)
		bail_out("board");
}

/*
 * Reads all the time. In an even round a fault is as good as a new value: the
 * page may have gone.
 */
static int reader_role(int socket)
{
	struct rpal_info info;
	struct rpal_request asked;
	uint64_t key, pkey, round, value;

	attach();
	my_device = introduce(socket, &info);
	key = hear(socket);
	pkey = hear(socket);
	say(socket, request(my_device, key, &asked));
	pin(1);
	catch_faults();
	/*
	 * No WRPKRU and no system call without need: QEMU's TLB is emptied by
	 * the former, and stale entries are what is looked for.
	 */
	open_key(pkey);
	while (!atomic_load(&board->stop)) {
		round = atomic_load(&board->round);
		if (!sigsetjmp(after_fault, 0)) {
			value = *(volatile uint64_t *)atomic_load(&board->address);
		} else {
			open_key(pkey);
			value = ~0UL;
		}
		if (!(round & 1) && value == atomic_load(&board->old) &&
		    round == atomic_load(&board->round))
			atomic_fetch_add(&board->stale, 1);
		atomic_store(&board->value, value);
		atomic_fetch_add(&board->seen, 1);
	}
	return 0;
}

static void wait_for_reads(int count)
{
	uint64_t seen = atomic_load(&board->seen);

	while (atomic_load(&board->seen) < seen + count)
		;
}

static volatile uint64_t *page;

static void map_page(void)
{
	if (mmap((void *)page, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != page)
		bail_out("mmap");
}

static void by_munmap(uint64_t value)
{
	munmap((void *)page, PAGE);
}

static void by_replacing(uint64_t value)
{
	map_page();
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

static int owner_role(int socket)
{
	static const struct {
		const char *name;
		void (*change)(uint64_t value);
	} ways[WAYS] = {
		{ "munmap", by_munmap },
		{ "mmap over it", by_replacing },
		{ "MADV_DONTNEED", by_dontneed },
		{ "mprotect", by_protecting },
		{ "mremap", by_moving },
		{ "MADV_PAGEOUT and a store", by_pageout },
		{ "a store after fork", by_copying },
	};
	struct rpal_info info;
	struct rpal_request asked;
	uint64_t round = 0, value = 0x1000;
	int rounds = rounds_here(ROUNDS);

	attach();
	my_device = introduce(socket, &info);
	if (request(my_device, hear(socket), &asked) || asked.flags != RPAL_PEER_LINKED)
		bail_out("the link");
	pin(0);
	/*
	 * Every round has an address of its own: what the reader's TLB still
	 * has of earlier rounds does not matter.
	 */
	page = mmap(NULL, 2 * PAGE * (ROUNDS * WAYS + 1), PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (page == MAP_FAILED)
		bail_out("mmap");

	for (int way = 0; way < WAYS; way++) {
		uint64_t stale = atomic_load(&board->stale);

		for (int i = 0; i < rounds; i++, round += 2, value += 2) {
			atomic_store(&board->round, round + 1);
			page += 2 * PAGE / sizeof(*page);
			map_page();
			page[0] = value;
			atomic_store(&board->old, value);
			atomic_store(&board->address, (uint64_t)page);
			while (atomic_load(&board->value) != value)
				;
			ways[way].change(value);
			atomic_store(&board->round, round + 2);
			wait_for_reads(5);
		}
		stale = atomic_load(&board->stale) - stale;
		if (!ok(!stale, "no stale read after %s", ways[way].name))
			printf("# %lu reads\n", stale);
	}
	atomic_store(&board->stop, 1);
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
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip_all("needs two CPUs");
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
