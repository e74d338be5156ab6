/* SPDX-License-Identifier: MIT */
/*
 * librpal: access to a peer's memory that may go at any moment.
 *
 * While "guard" in the control block of a thread names a peer, a bad access of
 * the thread to the peer's slot does not raise a signal. The kernel lets the
 * thread go on in switch.S, which ends the guarded copy or function. So that
 * one can be inside of the other, each puts back what it found.
 */
#ifndef RPAL_GUARD_H
#define RPAL_GUARD_H

#include "internal.h"

/* Where a guarded function of this thread is left; 0: there is none. */
extern __thread uint64_t rpal_guard_sp
	__attribute__((visibility("hidden"), tls_model("initial-exec")));

struct guard_state {
	uint64_t sp;
	uint32_t peer;
};

static inline struct guard_state guard_save(const struct rpal_self *self)
{
	return (struct guard_state){ rpal_guard_sp, self->control->guard };
}

static inline void guard_restore(const struct rpal_self *self,
				 struct guard_state state)
{
	rpal_guard_sp = state.sp;
	/* Last: from here on a bad access is the outer function's. */
	__atomic_store_n(&self->control->guard, state.peer, __ATOMIC_RELEASE);
}

/* PKRU has two bits a key: no access, no write. 0 stands for "no MPK". */
static inline uint32_t rpal_open_key(uint32_t pkru, uint32_t pkey)
{
	return pkru & ~(3u << 2 * (pkey & 15));
}

static inline uint32_t rpal_read_pkru(void)
{
	uint32_t eax, edx;

	if (!rpal_own.pkru)
		return 0;
	asm volatile("rdpkru" : "=a"(eax), "=d"(edx) : "c"(0));
	return eax;
}

static inline void rpal_write_pkru(uint32_t pkru)
{
	if (pkru)
		asm volatile("wrpkru" :: "a"(pkru), "c"(0), "d"(0) : "memory");
}

/* As rpal_with_peer(), with PKRU as it is. The thread is attached. */
long rpal_run_guarded(uint32_t peer, long (*function)(void *), void *argument)
	__attribute__((visibility("hidden")));

#endif /* RPAL_GUARD_H */
