// SPDX-License-Identifier: MIT
/* librpal: copying from and to a peer's memory. */
#include <errno.h>

#include "internal.h"

/* PKRU has two bits a key: no access, no write. 0 stands for "no MPK". */
static uint32_t open_key(uint32_t pkru, uint32_t pkey)
{
	return pkru & ~(3u << 2 * (pkey & 15));
}

static int copy(uint32_t peer, uint32_t pkey, void *to, const void *from,
		size_t bytes)
{
	struct rpal_self *self = &rpal_self;

	if (!self->control)
		return -EPERM;
	return rpal_switch_copy(to, from, bytes,
				open_key(rpal_own.pkru, pkey), rpal_own.pkru,
				self->control, peer);
}

/* Does [start, start + bytes) lie in the peer's slot? */
static int in_slot(uint32_t peer, const void *start, size_t bytes)
{
	uintptr_t first = (uintptr_t)start;
	uintptr_t last = first + (bytes ? bytes - 1 : 0);

	return first >> RPAL_SLOT_SHIFT == peer &&
	       last >> RPAL_SLOT_SHIFT == peer;
}

int rpal_read_peer(uint32_t peer, uint32_t pkey, void *to, const void *from,
		   size_t bytes)
{
	if (!in_slot(peer, from, bytes))
		return -EFAULT;
	return copy(peer, pkey, to, from, bytes);
}

int rpal_write_peer(uint32_t peer, uint32_t pkey, void *to, const void *from,
		    size_t bytes)
{
	if (!in_slot(peer, to, bytes))
		return -EFAULT;
	return copy(peer, pkey, to, from, bytes);
}
