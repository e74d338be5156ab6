// SPDX-License-Identifier: MIT
/* librpal: the calling thread as a sender or receiver. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

__thread struct rpal_self rpal_self;

#define CHECK_OFFSET(name, field)					\
	_Static_assert(name == offsetof(struct rpal_control, field),	\
		       "switch.S uses another offset for " #field)

CHECK_OFFSET(CONTROL_STATE, state);
CHECK_OFFSET(CONTROL_ENTRY_IP, entry_ip);
CHECK_OFFSET(CONTROL_SP, sp);
CHECK_OFFSET(CONTROL_FS_BASE, fs_base);
CHECK_OFFSET(CONTROL_CALLER, caller);
CHECK_OFFSET(CONTROL_PARKED, parked);
CHECK_OFFSET(CONTROL_PKRU, pkru);
CHECK_OFFSET(CONTROL_CALLEE, callee);
CHECK_OFFSET(CONTROL_CALLEE_RETURNING - 4, callee);
CHECK_OFFSET(CONTROL_CALL_SP, call_sp);
CHECK_OFFSET(CONTROL_TID, tid);
CHECK_OFFSET(CONTROL_GUARD, guard);
CHECK_OFFSET(CONTROL_RETURN_IP, return_ip);
CHECK_OFFSET(CONTROL_RETURNING, returning);
_Static_assert(RPAL_CALLEE_RETURNING == 1ULL << 32, "switch.S sets a byte");
_Static_assert(RPAL_IOC_PARK == 0x4020b848 && RPAL_IOC_FINISH == 0xb84b,
	       "switch.S has its own copy of these");

/*
 * glibc registers an rseq area for every thread. The kernel cannot keep it
 * right while our context runs on another task, so it has to go; glibc then
 * does without.
 */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

#define RSEQ_SIGNATURE		0x53053053
#define RSEQ_UNREGISTER		1

static void rseq_unregister(void)
{
	static const unsigned int sizes[] = { 32, 64, 20, 28 };
	int saved = errno;
	char *area;

	if (!&__rseq_offset || !&__rseq_size || !__rseq_size)
		return;
	area = (char *)__builtin_thread_pointer() + __rseq_offset;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (!syscall(SYS_rseq, area, sizes[i], RSEQ_UNREGISTER,
			     RSEQ_SIGNATURE))
			break;
	errno = saved;
}

int rpal_attach(unsigned int roles)
{
	struct rpal_self *self = &rpal_self;
	struct rpal_register request = {
		.roles = roles,
		.resume_ip = (uintptr_t)rpal_at_resume,
		.finish_ip = (uintptr_t)rpal_at_finish,
		.released_ip = (uintptr_t)rpal_at_released,
		.park_ip = (uintptr_t)rpal_at_park,
		.copy_ip = (uintptr_t)rpal_at_copy,
	};
	int ret;

	if (rpal_device < 0)
		return -EPERM;
	if (self->control)
		rpal_leave_loan(self);
	rseq_unregister();
	ret = rpal_ioctl(RPAL_IOC_REGISTER, &request);
	if (ret < 0)
		return ret;

	self->control = (struct rpal_control *)(uintptr_t)request.control;
	self->control->entry_ip = (uintptr_t)rpal_at_entry;
	self->control->return_ip = (uintptr_t)rpal_at_return;
	self->control->returning =
		(uint64_t)request.tid << RPAL_STATE_TID_SHIFT |
		RPAL_STATE_RETURNING;
	self->lent = (uint64_t)request.tid << RPAL_STATE_TID_SHIFT |
		     RPAL_STATE_LENT;
	self->roles |= roles;
	if (!self->call_event.events)
		self->call_event.events = EPOLLIN | EPOLLRPALIN;
	return 0;
}

int rpal_detach(void)
{
	struct rpal_self *self = &rpal_self;
	int ret;

	if (!self->control)
		return -EINVAL;
	rpal_leave_loan(self);
	ret = rpal_ioctl(RPAL_IOC_UNREGISTER, (void *)(uintptr_t)self->roles);
	if (!ret)
		memset(self, 0, sizeof(*self));
	return ret;
}

uint32_t rpal_tid(void)
{
	return rpal_self.control ? rpal_self.control->tid : 0;
}

int rpal_counters(struct rpal_counters *counters)
{
	if (!rpal_self.control)
		return -EPERM;
	*counters = rpal_self.counters;
	counters->calls = rpal_self.control->call_seq;
	return 0;
}
