// SPDX-License-Identifier: MIT
/* guest: cpus=1,2 debug timeout=240 */
/* All the services there can be, and many one after the other: none leaks. */
#include "kasan.h"
#include "marked_program.h"
#include "memory.h"
#include "peer.h"
#include <sys/resource.h>

#define SERVICES (RPAL_ID_MAX - RPAL_ID_MIN + 1)
#define CYCLES	 1000

const struct role roles[] = { { "peer", peer_role }, {} };

static struct child children[SERVICES];

static void test_all(void)
{
	static bool used[256];
	struct child one_more;
	int different = 0, linked = 0;

	for (int i = 0; i < SERVICES; i++) {
		children[i] = start_peer();
		different += !used[children[i].info.id];
		used[children[i].info.id] = true;
	}
	is(different, SERVICES, "254 services have 254 ids");
	one_more = spawn("peer", true);
	is(hear(one_more.socket), -EAGAIN, "the next one's exec fails");
	is(outcome(&one_more), 97, "and it goes on");
	one_more = spawn_file(marked_program(), "peer", false);
	is(hear(one_more.socket), -EAGAIN, "so does that of a marked program");
	is(outcome(&one_more), 97, "which does not run");

	/* The first is linked with all that have another key. */
	for (int i = 1; i < SERVICES; i++) {
		if (children[i].info.pkey == children[0].info.pkey)
			continue;
		link_peers(&children[0], &children[i]);
		linked++;
	}
	for (int i = 1; i < SERVICES; i += 7) {
		uint64_t page = tell(&children[i], MAP, 4096, 0, 0);

		if (children[i].info.pkey == children[0].info.pkey)
			continue;
		store(&children[i], &children[i], page, i);
		if (load(&children[0], &children[i], page) != i)
			linked = 0;
	}
	ok(linked > 200, "one has %d peers and sees them", linked);

	is(end(&children[100]), -SIGKILL, "one ends");
	one_more = start_peer();
	is(one_more.info.id, children[100].info.id, "its id is used again");
	ok(one_more.info.key != children[100].info.key, "with another key");
	end(&one_more);
	end(&children[0]);
	for (int i = 1; i < SERVICES; i++)
		if (i != 100)
			end(&children[i]);
}

static void cycle(struct child *a, int n)
{
	struct child b = start_peer();
	uint64_t page = tell(&b, MAP, 65536, 0, 0);

	link_peers(a, &b);
	if (store(a, &b, page, n) || load(&b, &b, page) != n)
		bail_out("a new peer's memory");
	if (n % 3 == 0)
		tell(a, RELEASE, b.info.id, 0, 0);
	else if (n % 3 == 1)
		tell(&b, RELEASE, a->info.id, 0, 0);
	end(&b);
	while (tell(a, READ_GONE, 0, 0, 0) > 0)
		;
}

static void test_cycles(void)
{
	struct child a = start_peer();
	int cycles = rounds_here(CYCLES);
	long before;

	for (int i = 0; i < 50; i++)
		cycle(&a, i);
	sleep(1);
	before = free_memory();
	for (int i = 0; i < cycles; i++)
		cycle(&a, i);
	memory_is_back(before, cycles, "services that linked");
	end(&a);
}

int main(int argc, char **argv)
{
	struct rlimit files = { 1024, 1024 };

	RUN_ROLE(argc, argv);
	close(device());
	setrlimit(RLIMIT_NOFILE, &files);
	test_all();
	test_cycles();
	return done();
}
