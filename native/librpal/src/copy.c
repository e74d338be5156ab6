// SPDX-License-Identifier: MIT
/* librpal: copying from and to a peer's memory. */
#include <errno.h>

#include "guard.h"

static int copy(uint32_t peer, uint32_t pkey, void *to, const void *from,
		size_t bytes)
{
	struct rpal_self *self = &rpal_self;
	uint32_t pkru = rpal_own.pkru;
	struct guard_state outer;
	int ret;

	if (!self->control)
		return -EPERM;
	outer = guard_save(self);
	/* Inside of a guarded function, another key is open. */
	if (unlikely(outer.sp))
		pkru = rpal_read_pkru();
	rpal_guard_sp = 0;
	ret = rpal_switch_copy(to, from, bytes, rpal_open_key(pkru, pkey), pkru,
			       self->control, peer);
	guard_restore(self, outer);
	return ret;
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
