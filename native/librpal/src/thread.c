// SPDX-License-Identifier: MIT
/* librpal: the calling thread as a sender or receiver. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

struct rpal_control rpal_no_sender = { .state = RPAL_STATE_ACTIVE };
struct rpal_control rpal_no_receiver = { .state = RPAL_STATE_RUN };

__thread struct rpal_self rpal_self = RPAL_SELF_UNATTACHED;

#define CHECK_OFFSET(name, type, field)					\
	_Static_assert(name == offsetof(struct type, field),		\
		       "switch.S uses another offset for " #field)

CHECK_OFFSET(CONTROL_STATE, rpal_control, state);
CHECK_OFFSET(CONTROL_ENTRY_IP, rpal_control, entry_ip);
CHECK_OFFSET(CONTROL_SP, rpal_control, sp);
CHECK_OFFSET(CONTROL_FS_BASE, rpal_control, fs_base);
CHECK_OFFSET(CONTROL_CALLER, rpal_control, caller);
CHECK_OFFSET(CONTROL_PARKED, rpal_control, parked);
CHECK_OFFSET(CONTROL_PKRU, rpal_control, pkru);
CHECK_OFFSET(CONTROL_NOTIFY_IP, rpal_control, notify_ip);
CHECK_OFFSET(CONTROL_CALLEE, rpal_control, callee);
CHECK_OFFSET(CONTROL_CALLEE_RETURNING - 4, rpal_control, callee);
CHECK_OFFSET(CONTROL_CALL_SP, rpal_control, call_sp);
CHECK_OFFSET(CONTROL_CALL_SEQ, rpal_control, call_seq);
CHECK_OFFSET(CONTROL_GUARD, rpal_control, guard);
CHECK_OFFSET(CONTROL_RETURN_IP, rpal_control, return_ip);
CHECK_OFFSET(CONTROL_RETURNING, rpal_control, returning);
CHECK_OFFSET(TARGET_CONTROL, rpal_target, control);
CHECK_OFFSET(TARGET_PARKED, rpal_target, parked);
CHECK_OFFSET(TARGET_TID, rpal_target, tid);
CHECK_OFFSET(SELF_SENDER, rpal_self, sender);
CHECK_OFFSET(SELF_RECEIVER, rpal_self, receiver);
CHECK_OFFSET(SELF_LENT, rpal_self, lent);
CHECK_OFFSET(SELF_SERVED, rpal_self, served);
CHECK_OFFSET(SELF_PARKS, rpal_self, parks);
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
	self->control->entry_ip = (uintptr_t)(rpal_own.pkru ?
					      rpal_at_entry_mpk : rpal_at_entry);
	self->control->notify_ip = (uintptr_t)(rpal_own.pkru ?
					       rpal_at_notify_mpk :
					       rpal_at_notify);
	self->control->return_ip = (uintptr_t)(rpal_own.pkru ?
					       rpal_at_return_mpk :
					       rpal_at_return);
	self->control->returning =
		(uint64_t)request.tid << RPAL_STATE_TID_SHIFT |
		RPAL_STATE_RETURNING;
	self->lent = (uint64_t)request.tid << RPAL_STATE_TID_SHIFT |
		     RPAL_STATE_LENT;
	self->roles |= roles;
	if (self->roles & RPAL_ROLE_SENDER)
		self->sender = self->control;
	if (self->roles & RPAL_ROLE_RECEIVER)
		self->receiver = self->control;
	if (!self->call_event.events)
		self->call_event.events = EPOLLIN | EPOLLRPALIN;
	return 0;
}

/* The last role that is given up takes everything with it. */
int rpal_give_up(unsigned int roles)
{
	struct rpal_self *self = &rpal_self;
	int ret;

	if (!self->control)
		return -EINVAL;
	rpal_leave_loan(self);
	ret = rpal_ioctl(RPAL_IOC_UNREGISTER, (void *)(uintptr_t)roles);
	if (ret)
		return ret;
	self->roles &= ~roles;
	if (!(self->roles & RPAL_ROLE_SENDER))
		self->sender = &rpal_no_sender;
	if (!(self->roles & RPAL_ROLE_RECEIVER))
		self->receiver = &rpal_no_receiver;
	if (!self->roles)
		*self = (struct rpal_self)RPAL_SELF_UNATTACHED;
	return 0;
}

int rpal_detach(void)
{
	return rpal_give_up(rpal_self.roles);
}

uint32_t rpal_tid(void)
{
	return rpal_self.control ? rpal_self.control->tid : 0;
}

int rpal_counters(struct rpal_counters *counters)
{
	if (!rpal_self.control)
		return -EPERM;
	*counters = (struct rpal_counters){
		.calls = rpal_self.control->call_seq,
		.handed_back = rpal_self.handed_back,
		.retries = rpal_self.retries,
		.waits = rpal_self.waits,
		.served = rpal_self.served,
		.parks = rpal_self.parks,
	};
	return 0;
}
