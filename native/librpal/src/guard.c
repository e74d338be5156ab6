// SPDX-License-Identifier: MIT
/* librpal: running a function that may find a peer's memory gone. */
#include <errno.h>

#include "guard.h"

__thread uint64_t rpal_guard_sp;

long rpal_run_guarded(uint32_t peer, long (*function)(void *), void *argument)
{
	struct rpal_self *self = &rpal_self;
	struct guard_state outer = guard_save(self);
	long ret;

	ret = rpal_switch_guarded(function, argument, self->control, peer);
	guard_restore(self, outer);
	return ret;
}

long rpal_with_peer(uint32_t peer, uint32_t pkey, long (*function)(void *),
		    void *argument)
{
	uint32_t pkru;
	long ret;

	if (!rpal_self.control)
		return -EPERM;
	if (peer < RPAL_ID_MIN || peer > RPAL_ID_MAX || peer == rpal_own.id)
		return -EINVAL;
	pkru = rpal_read_pkru();
	rpal_write_pkru(rpal_open_key(pkru, pkey));
	ret = rpal_run_guarded(peer, function, argument);
	rpal_write_pkru(pkru);
	return ret;
}
