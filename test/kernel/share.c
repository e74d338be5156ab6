// SPDX-License-Identifier: MIT
/* guest: cpus=1,2 append=pti=on debug timeout=60 */
/* Who sees whose slot, and what one can do with a peer's memory. */
#include "peer.h"

#define PAGE 4096UL

const struct role roles[] = { { "peer", peer_role }, { "wait", wait_role }, {} };

static uint64_t new_page(struct child *owner, uint64_t value)
{
	uint64_t page = tell(owner, MAP, 16 * PAGE, 0, 0);

	store(owner, owner, page, value);
	return page;
}

static void test_consent(struct child *a, struct child *b)
{
	uint64_t page = new_page(b, 0xb0b), mine = new_page(a, 0xa11ce);

	is(load(a, b, page), NO_MEMORY, "a stranger's slot is empty");
	is(tell(a, REQUEST, b->info.key, 0, 0), 0, "A asks for B");
	is(last.more, 0, "they are not linked by that");
	is(load(a, b, page), NO_MEMORY, "nor does A see B");
	is(load(b, a, mine), NO_MEMORY, "nor B A");
	is(tell(b, REQUEST, a->info.key, 0, 0), 0, "B asks for A");
	is(last.more, RPAL_PEER_LINKED, "that links them");
	is(tell(a, REQUEST, b->info.key, 0, 0), 0, "A asks again");
	is(last.more, RPAL_PEER_LINKED, "and hears that they are");
	is(load(a, b, page), 0xb0b, "A reads B's memory");
	is(load(b, a, mine), 0xa11ce, "B reads A's");
}

static void test_access(struct child *a, struct child *b)
{
	uint64_t page = new_page(b, 1), address;

	is(store(a, b, page, 0x5e7), 0, "A writes to B's memory");
	is(load(b, b, page), 0x5e7, "B reads what A wrote");
	is(load(a, b, page + PAGE), 0, "a page that B never touched reads as 0");
	is(store(a, b, page + 2 * PAGE, 77), 0, "and one can be written");
	is(load(b, b, page + 2 * PAGE), 77, "for B");
	is(load(a, b, page - 100 * 1024 * PAGE), NO_MEMORY,
	   "what B has not mapped is not there for A");
	tell(b, PROTECT, page, PAGE, PROT_READ);
	is(store(a, b, page, 1), NO_ACCESS, "what B may not write A may not");
	tell(b, PROTECT, page, PAGE, PROT_NONE);
	is(load(a, b, page), NO_ACCESS, "nor read");

	is(tell(a, WRITE_FILE, page + 2 * PAGE, b->info.pkey, 0), 77,
	   "write(2) of B's memory by A");
	is(tell(a, WRITE_FILE, page + 5 * PAGE, b->info.pkey, 0), 0,
	   "of a page that nobody touched");
	is(tell(a, READ_FILE, page + 6 * PAGE, b->info.pkey, 78), 8,
	   "read(2) into an untouched page of B by A");
	is(load(b, b, page + 6 * PAGE), 78, "arrives");
	is(tell(a, WRITE_FILE, page + 2 * PAGE, 0, 0), b->info.pkey ? -EFAULT : 77,
	   "not with B's key closed");
	is(tell(a, WRITE_FILE, page - 100 * 1024 * PAGE, b->info.pkey, 0), -EFAULT,
	   "nor where B has nothing");
	is(tell(a, DIRECT, page + 2 * PAGE, b->info.pkey, 0), -EFAULT,
	   "what pins pages does not take B's");

	address = tell(b, MAP_SHARED_FILE, 8 * PAGE, 0xf11e, 0);
	is(load(a, b, address), 0xf11e, "a file that B mapped");
	is(store(a, b, address + PAGE, 5), 0, "can be written");
	is(load(b, b, address + PAGE), 5, "for B");
	is(load(a, b, address + 8 * PAGE), NO_FILE, "it ends where it ends");

	address = tell(b, MAP, 4 << 20, 0, 0);
	tell(b, ADVISE, address, 4 << 20, MADV_HUGEPAGE);
	is(store(a, b, address + (2 << 20), 9), 0, "A touches a huge page first");
	is(load(b, b, address + (2 << 20)), 9, "B has it");
	address = tell(b, MAP, 2 << 20, MAP_HUGETLB, 0);
	if ((int64_t)address > 0) {
		is(store(a, b, address, 10), 0, "a hugetlb page likewise");
		is(load(b, b, address), 10, "B has it");
	}

	address = tell(b, USE_STACK, 0, 0, 0);
	is(store(a, b, address, 11), 0, "A makes B's stack grow");
	is(load(b, b, address), 11, "for B");

	page = new_page(b, 12);
	is(tell(b, FORK_STORE, page, 13, 0), 0, "B forks and writes");
	is(load(a, b, page), 13, "A sees B's copy, not the child's");
}

static void test_end(struct child *a, struct child *b)
{
	struct child c = start_peer();
	uint64_t page = new_page(&c, 21), mine = new_page(a, 22);

	link_peers(a, &c);
	is(load(a, &c, page), 21, "A sees C");
	is(tell(a, RELEASE, c.info.id, 0, 0), 0, "A releases C");
	is(load(a, &c, page), NO_MEMORY, "A does not see C any more");
	is(load(&c, a, mine), NO_MEMORY, "nor C A");
	is(tell(&c, POLL_GONE, 1000, 0, 0), 1, "C is told");
	is(tell(&c, READ_GONE, 0, 0, 0), a->info.id, "who it was");
	is(tell(&c, READ_GONE, 0, 0, 0), -EAGAIN, "once");
	is(tell(&c, POLL_GONE, 0, 0, 0), 0, "and not longer");
	is(tell(a, RELEASE, c.info.id, 0, 0), -ENOTCONN, "it is over");
	is(tell(a, REQUEST, c.info.key, 0, 0), 0, "A asks again");
	is(last.more, 0, "C would have to, too");

	link_peers(&c, a);
	is(load(&c, a, mine), 22, "it does");
	is(tell(a, DISABLE, 0, 0, 0), 0, "A is disabled");
	is(load(&c, a, mine), NO_MEMORY, "that parts them");
	is(tell(&c, REQUEST, a->info.key, 0, 0), -ECONNREFUSED, "and nobody may ask for A");
	is(tell(a, DISABLE, 0, 0, 0), -EINVAL, "once is enough");
	is(tell(a, ENABLE, 0, 0, 0), 0, "until it is enabled");
	is(tell(a, ENABLE, 0, 0, 0), -EALREADY, "once, too");
	link_peers(a, b);
	link_peers(&c, a);

	tell(&c, READ_GONE, 0, 0, 0);
	tell(a, READ_GONE, 0, 0, 0);
	is(load(a, &c, page), 21, "A sees C again");
	is(tell(a, POLL_GONE, 0, 0, 0), 0, "nobody is gone");
	is(end(&c), -SIGKILL, "C is killed");
	is(tell(a, POLL_GONE, 2000, 0, 0), 1, "A is told");
	is(tell(a, READ_GONE, 0, 0, 0), c.info.id, "who it was");
	is(load(a, &c, page), NO_MEMORY, "its slot is empty");
	is(tell(a, REQUEST, c.info.key, 0, 0), -ENOENT, "its key is unknown");

	c = start_peer();
	link_peers(a, &c);
	page = new_page(&c, 31);
	is(load(a, &c, page), 31, "another C");
	tell(&c, EXEC_PLAIN, 0, 0, 0);
	is(tell(a, POLL_GONE, 2000, 0, 0), 1, "it execs: A is told");
	is(load(a, &c, page), NO_MEMORY, "and sees nothing");
	is(tell(a, REQUEST, c.info.key, 0, 0), -ENOENT, "it is a service no more");
	end(&c);
	tell(a, READ_GONE, 0, 0, 0);
}

static void test_rights(struct child *a)
{
	struct child b = start_peer(), c;

	is(tell(a, REQUEST, a->info.key, 0, 0), -EINVAL, "no one links to itself");
	is(tell(a, REQUEST, 0, 0, 0), -ENOENT, "key 0 is nobody's");
	is(tell(a, REQUEST, b.info.key ^ 1, 0, 0), -ENOENT, "a guess neither");
	if (geteuid() || tell(a, SET_UID, 1000, 0, 0))
		return;

	is(tell(a, REQUEST, b.info.key, 0, 0), -EPERM, "who may not trace B may not ask for it");
	is(tell(&b, REQUEST, a->info.key, 0, 0), 0, "B may ask for A");
	is(last.more, 0, "in vain");
	end(&b);

	b = start_peer();
	c = start_peer();
	tell(&b, SET_UID, 1001, 0, 0);
	tell(&c, SET_UID, 1001, 0, 0);
	tell(&b, SET_DUMPABLE, 1, 0, 0);
	is(tell(&c, REQUEST, b.info.key, 0, 0), 0, "same user");
	tell(&b, SET_DUMPABLE, 0, 0, 0);
	is(tell(&c, REQUEST, b.info.key, 0, 0), -EPERM, "but not dumpable");
	end(&b);
	end(&c);
}

static void test_same_key(void)
{
	struct child peers[16];
	int n, i;

	for (n = 0; n < 16; n++)
		peers[n] = start_peer();
	if (peers[0].info.pkey) {
		for (i = n = 0; i < 16; i++)
			for (int j = 0; j < i; j++)
				if (peers[i].info.pkey == peers[j].info.pkey)
					n = i * 16 + j;
		ok(n, "with 16 services two have the same key");
		is(tell(&peers[n / 16], REQUEST, peers[n % 16].info.key, 0, 0), -EADDRINUSE,
		   "these two cannot be peers");
	}
	for (i = 0; i < 16; i++)
		end(&peers[i]);
}

int main(int argc, char **argv)
{
	struct child a, b;

	RUN_ROLE(argc, argv);
	close(device());

	a = start_peer();
	b = start_peer();
	ok(a.info.id != b.info.id && a.info.key != b.info.key && a.info.key,
	   "two services have two ids and keys");
	test_consent(&a, &b);
	test_access(&a, &b);
	test_end(&a, &b);
	test_same_key();
	end(&b);
	test_rights(&a);
	end(&a);
	return done();
}
