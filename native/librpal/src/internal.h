/* SPDX-License-Identifier: MIT */
/* librpal: what its files share. */
#ifndef RPAL_INTERNAL_H
#define RPAL_INTERNAL_H

#include <stdbool.h>
#include <rpal.h>
#include "control_offsets.h"

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

/* The open /dev/rpal, or -1. Read by switch.S. */
extern int rpal_device __attribute__((visibility("hidden")));
/* This service, valid while rpal_device is. */
extern struct rpal_info rpal_own __attribute__((visibility("hidden")));

/* ioctl(2) on the device; a negative errno on failure, errno untouched. */
long rpal_ioctl(unsigned long command, const void *arg)
	__attribute__((visibility("hidden")));

enum call_progress {
	NO_CALL,
	CALL_ARRIVED,	/* reported, not taken */
	CALL_TAKEN,	/* no answer yet */
	CALL_ANSWERED,
};

/* The calling thread. All zero if it is not attached. */
struct rpal_self {
	struct rpal_control *control;
	unsigned int roles;
	uint64_t lent;			/* state word of a receiver we claim */
	uint64_t fs_base;		/* of the thread: fork leaves it behind */
	struct rpal_counters counters;

	/* Receiver. */
	struct rpal_message message;	/* the call, then its answer */
	int status;
	enum call_progress progress;
	struct epoll_event call_event;
	/* When the kernel wakes the parked task, CLOCK_MONOTONIC ns. */
	int64_t armed;
};

extern __thread struct rpal_self rpal_self
	__attribute__((visibility("hidden"), tls_model("initial-exec")));

static inline uint64_t rpal_state(const struct rpal_self *self)
{
	return __atomic_load_n(&self->control->state, __ATOMIC_RELAXED);
}

/* Is this context on loan, that is, running on a caller's task? */
static inline bool rpal_on_loan(const struct rpal_self *self)
{
	return (rpal_state(self) & 0xff) == RPAL_STATE_ACTIVE;
}

/* Get back to the own task, if on loan: what follows needs the kernel. */
static inline void rpal_leave_loan(const struct rpal_self *self)
{
	if (unlikely(rpal_on_loan(self)))
		rpal_ioctl(RPAL_IOC_DETACH, NULL);
}

int64_t rpal_now(void) __attribute__((visibility("hidden")));

/*
 * switch.S. A switch comes back with the registers of another context. The
 * compiler is told that all are lost but rsp and rbp, so that each is saved
 * once, by the function that has to keep it. It is not told that something is
 * pushed: librpal is compiled without a red zone.
 */
#define LOST_IN_SWITCH							\
	"rbx", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc",	\
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",	\
	"xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static inline long rpal_switch_call(struct rpal_control *self,
				    struct rpal_control *peer,
				    struct rpal_message *message,
				    uint64_t peer_tid, uint64_t lent,
				    uint64_t parked)
{
	register uint64_t r8 asm("r8") = lent;
	register uint64_t r9 asm("r9") = parked;
	long ret;

	asm volatile("call rpal_switch_call"
		     : "=a"(ret), "+D"(self), "+S"(peer), "+d"(message),
		       "+c"(peer_tid), "+r"(r8), "+r"(r9)
		     :
		     : LOST_IN_SWITCH);
	return ret;
}

static inline long rpal_switch_park(struct rpal_control *self,
				    struct rpal_message *message,
				    uint64_t status, struct rpal_park *park)
{
	long ret;

	asm volatile("call rpal_switch_park"
		     : "=a"(ret), "+D"(self), "+S"(message), "+d"(status),
		       "+c"(park)
		     :
		     : "r8", "r9", LOST_IN_SWITCH);
	return ret;
}

int rpal_switch_copy(void *to, const void *from, size_t bytes,
		     uint32_t open_pkru, uint32_t own_pkru,
		     struct rpal_control *self, uint32_t peer);
/* Not functions: where the kernel resumes, and where senders enter. */
extern const char rpal_at_resume[], rpal_at_finish[], rpal_at_released[];
extern const char rpal_at_park[], rpal_at_copy[], rpal_at_entry[];
extern const char rpal_at_return[];

#endif /* RPAL_INTERNAL_H */
