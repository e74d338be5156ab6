/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Memory that comes into being by a client's page fault in the server's slot
 * is charged to the server's control group: pages, what they are read into
 * from a file, and page tables.
 */
#include "cgroup.h"
#include "loop_device.h"
#include "peer_access.h"

#define PAGE  4096UL
#define BYTES (8UL << 20)

/* What may be charged to anybody for other reasons, or in advance, in bytes. */
#define NOISE (1L << 20)

/* What the server is asked for, in word 0. */
enum {
	ANONYMOUS,
	SHARED,
	BLOCK_DEVICE,
	SPARSE,
};

static struct loop_device disk;

static uint64_t map(size_t bytes, int flags, int fd)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	return memory == MAP_FAILED ? 0 : (uintptr_t)memory;
}

static int handle(struct rpal_message *m)
{
	int fd;

	if (handle_access(m))
		return 0;
	switch (m->word[0]) {
	case ANONYMOUS:
		m->word[0] = map(BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		return 0;
	case SHARED:
		m->word[0] = map(BYTES, MAP_SHARED | MAP_ANONYMOUS, -1);
		return 0;
	case BLOCK_DEVICE:
		fd = open((const char *)&m->word[1], O_RDWR | O_CLOEXEC);
		m->word[0] = map(BYTES, MAP_SHARED, fd);
		close(fd);
		return 0;
	case SPARSE: /* Each of its pages needs a page table of its own. */
		m->word[0] =
			map(BYTES / PAGE << 21, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static struct cgroup owner, sender;

static long charged(const struct cgroup *group)
{
	return get_number(cgroup_file(group, "memory.current"), NULL);
}

static uint64_t make(struct side *side, uint64_t what)
{
	struct rpal_message m = { { what } };

	memcpy(&m.word[1], disk.path, sizeof(disk.path));
	MUST(rpal_call(&side->target, &m, -1));
	if (!m.word[0])
		die("there is no such memory", ENOMEM);
	return m.word[0];
}

/* By turns of all ways that the client's task has. */
static int touch(struct side *side, uint64_t address, size_t stride)
{
	uint64_t value = 1;
	int ret = 0;

	for (size_t i = 0; i < BYTES / PAGE && !ret; i++) {
		const struct way *way = &ways[i % WAYS];

		if (way->store)
			value = i;
		ret = way->access(side, address + i * stride, &value);
		/* The server's own task had the fault: as good. */
		if (ret == -EREMCHG)
			ret = 0;
	}
	return ret;
}

static void test(struct side *side, const char *name, uint64_t what, size_t stride, long expected)
{
	long owners = charged(&owner), senders = charged(&sender);
	uint64_t address = make(side, what);
	int ret = touch(side, address, stride);

	owners = charged(&owner) - owners;
	senders = charged(&sender) - senders;
	ok(!ret && owners > expected - NOISE && owners < expected + NOISE && senders < NOISE,
	   "%s: %ld KiB to the server, %ld to the client (%d)", name, owners >> 10, senders >> 10,
	   ret);
}

static int client(struct side *side, int argc, char **argv)
{
	disk = loop_device(BYTES);
	owner = new_cgroup("owner");
	sender = new_cgroup("sender");
	join_cgroup(&owner, side->other);
	join_cgroup(&sender, getpid());
	/* Whatever a first time costs. */
	touch(side, make(side, ANONYMOUS), PAGE);

	/* Half of the accesses are loads, and find the zero page. */
	test(side, "anonymous memory", ANONYMOUS, PAGE, BYTES / 2);
	test(side, "shared memory", SHARED, PAGE, BYTES);
	test(side, "a block device", BLOCK_DEVICE, PAGE, BYTES);
	test(side, "page tables", SPARSE, 1 << 21, BYTES + BYTES / 2);

	leave_cgroup(getpid());
	leave_cgroup(side->other);
	end_cgroup(&owner);
	end_cgroup(&sender);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
