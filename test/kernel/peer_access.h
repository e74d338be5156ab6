/* SPDX-License-Identifier: MIT */
/*
 * The ways in which a client's task gets page faults in the server's slot: by
 * guarded copies, by the kernel's copies for its system calls, and by the
 * server's handler on loan.
 */
#ifndef PEER_ACCESS_H
#define PEER_ACCESS_H

#include "handed_back.h"
#include "pkru.h"
#include "two_services.h"
#include <sys/mman.h>

/* What a server has to know, in word 0. It enters no kernel by itself. */
enum {
	LOAD = 100, /* word 1: address; the value */
	STORE,	    /* word 1: address, 2: value */
};

/* In the server's handler: false if it is something else. */
static inline bool handle_access(struct rpal_message *m)
{
	if (m->word[0] == LOAD)
		m->word[0] = *(volatile uint64_t *)m->word[1];
	else if (m->word[0] == STORE)
		*(volatile uint64_t *)m->word[1] = m->word[2];
	else
		return false;
	return true;
}

static inline int load_by_copy(struct side *side, uint64_t address, uint64_t *value)
{
	return rpal_read_peer(side->peer.id, side->peer.pkey, value, (void *)address,
			      sizeof(*value));
}

static inline int store_by_copy(struct side *side, uint64_t address, uint64_t *value)
{
	return rpal_write_peer(side->peer.id, side->peer.pkey, (void *)address, value,
			       sizeof(*value));
}

/* A regular file: its copies must not fault, and are repeated if they do. */
static inline int load_by_kernel(struct side *side, uint64_t address, uint64_t *value)
{
	int fd = memfd_create("to", MFD_CLOEXEC);
	uint32_t old = open_key(side->peer.pkey);
	int ret = result(write(fd, (void *)address, sizeof(*value)));

	write_pkru(old);
	if (ret == sizeof(*value))
		ret = pread(fd, value, sizeof(*value), 0) == sizeof(*value) ? 0 : -EIO;
	close(fd);
	return ret;
}

static inline int store_by_kernel(struct side *side, uint64_t address, uint64_t *value)
{
	int fd = memfd_create("from", MFD_CLOEXEC), ret = -EIO;
	uint32_t old;

	if (pwrite(fd, value, sizeof(*value), 0) == sizeof(*value)) {
		old = open_key(side->peer.pkey);
		ret = result(read(fd, (void *)address, sizeof(*value)));
		write_pkru(old);
	}
	close(fd);
	return ret == sizeof(*value) ? 0 : ret;
}

/*
 * -EREMCHG: the context was handed back, so the fault was not this task's. That
 * happens a few times in a second, when this task has work of the kernel to do.
 */
static inline int on_loan(struct side *side, uint64_t what, uint64_t address, uint64_t *value)
{
	struct rpal_message m = { { what, address, *value } };
	uint64_t before = handed_back();
	int ret = rpal_call(&side->target, &m, -1);

	*value = m.word[0];
	return ret ?: handed_back() != before ? -EREMCHG : 0;
}

static inline int load_on_loan(struct side *side, uint64_t address, uint64_t *value)
{
	return on_loan(side, LOAD, address, value);
}

static inline int store_on_loan(struct side *side, uint64_t address, uint64_t *value)
{
	return on_loan(side, STORE, address, value);
}

static const struct way {
	const char *name;
	int (*access)(struct side *side, uint64_t address, uint64_t *value);
	bool store;
	bool loan; /* what is not there, is a signal for the server */
} ways[] = {
	{ "guarded read", load_by_copy, false, false },
	{ "guarded write", store_by_copy, true, false },
	{ "write(2)", load_by_kernel, false, false },
	{ "read(2)", store_by_kernel, true, false },
	{ "load on loan", load_on_loan, false, true },
	{ "store on loan", store_on_loan, true, true },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

#endif
