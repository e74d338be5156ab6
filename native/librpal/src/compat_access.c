// SPDX-License-Identifier: MIT
/* rpal_compat.h: using a peer's memory in place. */
#include <errno.h>

#include "compat.h"
#include "guard.h"

/* The peer whose key is open, by choice of this thread; 0: none. */
static __thread struct {
	uint32_t peer;
	uint32_t pkey;
} prepared;

void rpal_compat_reopen(void)
{
	if (prepared.peer)
		rpal_write_pkru(rpal_open_key(rpal_own.pkru, prepared.pkey));
}

status_t rpal_copy_prepare(int service_id)
{
	const struct rpal_peer *peer = rpal_compat_peer(service_id);

	if (!peer)
		return (status_t)compat_fail(ESRCH);
	prepared.peer = peer->id;
	prepared.pkey = peer->pkey;
	rpal_compat_reopen();
	return RPAL_SUCCESS;
}

status_t rpal_copy_finish(void)
{
	if (!prepared.peer)
		return (status_t)compat_fail(EINVAL);
	prepared.peer = 0;
	rpal_write_pkru(rpal_own.pkru);
	return RPAL_SUCCESS;
}

struct access {
	int (*function)(va_list args);
	va_list args;
	int ret;
};

/* Guarded. */
static long run(void *argument)
{
	struct access *access = argument;

	access->ret = access->function(access->args);
	return 0;
}

status_t rpal_read_access_safety(int (*function)(va_list args), int *ret, ...)
{
	struct access access = { .function = function };
	long failed;

	if (rpal_sender_init(NULL))
		return RPAL_FAILURE;
	va_start(access.args, ret);
	if (prepared.peer)
		failed = rpal_run_guarded(prepared.peer, run, &access);
	else
		failed = run(&access);
	va_end(access.args);
	if (failed)
		return (status_t)compat_fail(EFAULT);
	*ret = access.ret;
	return RPAL_SUCCESS;
}
