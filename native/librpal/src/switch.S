/* SPDX-License-Identifier: MIT */
/*
 * The switch: everything that happens between two contexts of two processes.
 *
 * The state word of the receiver's control block decides whose context a task
 * runs (linux/rpal.h states the protocol). The rules that this file keeps:
 *
 * - The sender saves itself, publishes call_sp and only then callee. From then
 *   to "callee = 0" the kernel can bring it back to call_sp at any instruction,
 *   at one of the rpal_at_* labels.
 * - FS base, stack pointer and PKRU of a process are adopted by its own text:
 *   the other's may be gone. They come from its own control block; all that
 *   is carried across is the address of that block, in rsi to the receiver
 *   and in rdi back to the sender.
 * - Between the claim and ACTIVE nothing is popped from the receiver's stack,
 *   and after RETURNING nothing is used but registers and control blocks:
 *   both can be undone or finished by the kernel without knowing any address.
 * - The six words of a message travel in xmm0-xmm2 and the status in ebx. On
 *   the way back they stay there, untouched, until the words are stored and
 *   RPAL_CALLEE_RETURNING says so; the status until callee is 0.
 *
 * x86 keeps stores in order, so plain stores publish. Control blocks are under
 * key 0 and can be reached with either PKRU.
 *
 * A call is the same few instructions every time, and the six registers that a
 * C function has to keep are saved once: so rpal_call() and rpal_serve_one()
 * are here as a whole, for the case in which no kernel is needed, and C has
 * what remains of them (call.c, receive.c).
 */
#include <asm/errno.h>
#include <asm/unistd.h>
#include "control_offsets.h"

	.text

	.macro ENTRY name
	.globl	\name
	.type	\name, @function
	.balign	16
\name:
	.endm

	.macro HIDDEN_ENTRY name
	.hidden	\name
	ENTRY	\name
	.endm

	.macro PUSH_KEPT
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	.endm

	.macro POP_KEPT
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	.endm
#define KEPT			48

	.macro LOAD_WORDS from
	movups	0(\from), %xmm0
	movups	16(\from), %xmm1
	movups	32(\from), %xmm2
	.endm

	.macro STORE_WORDS to
	movups	%xmm0, 0(\to)
	movups	%xmm1, 16(\to)
	movups	%xmm2, 32(\to)
	.endm

	/* eax: the value. Clobbers rcx, rdx. Only on a machine with MPK. */
	.macro ADOPT_PKRU
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	wrpkru
	.endm

/*
 * A sender's frame, from sp upwards: mode, x87 CW, timeout, MXCSR, message,
 * target, the kept registers. The mode says what becomes of a call that did
 * not end with an answer.
 */
#define FRAME_MODE		0
#define FRAME_CW		4
#define FRAME_TIMEOUT		8
#define FRAME_MXCSR		12
#define FRAME_MESSAGE		16
#define FRAME_TARGET		24
#define FRAME			32

	.macro RESTORE_SENDER
	ldmxcsr	FRAME_MXCSR(%rsp)
	fldcw	FRAME_CW(%rsp)
	addq	$FRAME, %rsp
	POP_KEPT
	.endm

	/*
	 * rdi: target, rsi: message, edx: timeout, r8: own control block, r9:
	 * where rpal_self is; the flags in rcx, if given, are in PARKED and stay
	 * in LENT. \entry: where in the receiver's block is the place to enter.
	 */
	.macro SWITCH_TO_RECEIVER mode, entry, flags
	PUSH_KEPT
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	$\mode
	stmxcsr	FRAME_MXCSR(%rsp)
	fnstcw	FRAME_CW(%rsp)
	movq	%rsp, CONTROL_CALL_SP(%r8)
	LOAD_WORDS %rsi
	movl	TARGET_TID(%rdi), %edx
	movq	%rdx, CONTROL_CALLEE(%r8)
	movq	TARGET_PARKED(%rdi), %rax
	movq	%fs:SELF_LENT(%r9), %rdx
	.ifnb \flags
	orq	\flags, %rax
	orq	\flags, %rdx
	.endif
	movq	TARGET_CONTROL(%rdi), %rsi
	lock cmpxchgq %rdx, CONTROL_STATE(%rsi)
	jne	.Lbusy
	/* Claimed. The receiver finds its way back in its own block. */
	movq	%r8, CONTROL_CALLER(%rsi)
	jmpq	*\entry(%rsi)
	.endm

	/*
	 * The block of a thread that is no sender says that it is on loan, so
	 * that one comparison finds both (internal.h).
	 */
	.macro CALL mode
	movq	rpal_self@gottpoff(%rip), %r9
	movq	%fs:SELF_SENDER(%r9), %r8
	cmpb	$RPAL_STATE_ACTIVE, CONTROL_STATE(%r8)
	je	.Lunready\@
	incq	CONTROL_CALL_SEQ(%r8)
	SWITCH_TO_RECEIVER \mode, CONTROL_ENTRY_IP
.Lunready\@:
	movl	$\mode, %ecx
	jmp	rpal_call_unready
	.endm

	/* rdx: the flags. */
	.macro ATTEMPT entry
	movq	%rdx, %rcx
	movq	rpal_self@gottpoff(%rip), %r9
	movq	%fs:SELF_SENDER(%r9), %r8
	SWITCH_TO_RECEIVER RPAL_MODE_ONCE, \entry, %rcx
	.endm

/* int rpal_call(target, message, timeout_ms): rpal.h */
ENTRY rpal_call
	CALL RPAL_MODE_CALL

/* int rpal_post(target, message, timeout_ms): rpal.h */
ENTRY rpal_post
	CALL RPAL_MODE_POST

/*
 * long rpal_switch_call(const struct rpal_target *target,
 *			 struct rpal_message *message, uint64_t flags)
 *
 * One more attempt, at a receiver that has these flags. Returns the receiver's
 * status as an unsigned 32-bit value, or, negative in 64 bits: -EBUSY it is not
 * parked with these flags, or what the kernel says (-EAGAIN, -EINPROGRESS,
 * -EOWNERDEAD).
 */
HIDDEN_ENTRY rpal_switch_call
	ATTEMPT	CONTROL_ENTRY_IP

/* The same for a call that says nothing: the message is not taken there. */
HIDDEN_ENTRY rpal_switch_notify
	ATTEMPT	CONTROL_NOTIFY_IP

.Lbusy:
	movq	$0, CONTROL_CALLEE(%r8)
	movq	$-EBUSY, %rax
	/* Goes on as if the kernel had said so. */

/* The kernel ended the call: sp = call_sp, callee = 0, rax says how. */
HIDDEN_ENTRY rpal_at_resume
	movl	FRAME_MODE(%rsp), %r8d
	movl	FRAME_TIMEOUT(%rsp), %edx
	movq	FRAME_MESSAGE(%rsp), %rsi
	movq	FRAME_TARGET(%rsp), %rdi
	movq	%rax, %rcx
	RESTORE_SENDER
	cmpl	$RPAL_MODE_ONCE, %r8d
	jne	rpal_call_slowly
	ret

	/* From the receiver's stub: rdi is our control block. Still RETURNING. */
	.macro RETURN_STUB mpk
	endbr64
	movq	CONTROL_FS_BASE(%rdi), %rax
	wrfsbase %rax
	movq	CONTROL_CALL_SP(%rdi), %rsp
	.if \mpk
	movl	CONTROL_PKRU(%rdi), %eax
	ADOPT_PKRU
	.endif
	movq	FRAME_MESSAGE(%rsp), %rdx
	STORE_WORDS %rdx
	movb	$1, CONTROL_CALLEE_RETURNING(%rdi)
	movq	FRAME_TARGET(%rsp), %rdx
	movq	TARGET_CONTROL(%rdx), %rsi
	movq	TARGET_PARKED(%rdx), %rcx
	movq	CONTROL_RETURNING(%rdi), %rax
	lock cmpxchgq %rcx, CONTROL_STATE(%rsi)
	jne	.Lflagged
	movq	$0, CONTROL_CALLEE(%rdi)
	movl	%ebx, %eax
	RESTORE_SENDER
	ret
	.endm

HIDDEN_ENTRY rpal_at_return
	RETURN_STUB 0
HIDDEN_ENTRY rpal_at_return_mpk
	RETURN_STUB 1

	/*
	 * A flag is set: the kernel releases the receiver. (Or it has done so
	 * already, for a signal of ours: then it finds nothing to do.)
	 */
.Lflagged:
	movq	%rdi, %rbp
	movl	TARGET_TID(%rdx), %edx
	movl	rpal_device(%rip), %edi
	movl	$RPAL_IOC_FINISH, %esi
	movl	$__NR_ioctl, %eax
	syscall
	movq	$0, CONTROL_CALLEE(%rbp)
	/* Goes on as if the kernel had done it unasked. */

/* The kernel released the receiver; the reply is stored, its status in ebx. */
HIDDEN_ENTRY rpal_at_released
	movl	%ebx, %eax
	RESTORE_SENDER
	ret

/* The kernel released the receiver; the reply is in registers. */
HIDDEN_ENTRY rpal_at_finish
	movq	FRAME_MESSAGE(%rsp), %rdx
	STORE_WORDS %rdx
	movl	%ebx, %eax
	RESTORE_SENDER
	ret

/*
 * A receiver's frame, from sp upwards: what to return when a call has come,
 * x87 CW, message, MXCSR with 4 bytes to spare, the kept registers.
 */
#define PARKED_RESULT		0
#define PARKED_CW		4
#define PARKED_MESSAGE		8
#define PARKED_MXCSR		16
#define PARKED_FRAME		24

	/* Leaves rax, the result, and what a function need not keep. */
	.macro RESTORE_RECEIVER
	ldmxcsr	PARKED_MXCSR(%rsp)
	fldcw	PARKED_CW(%rsp)
	addq	$PARKED_FRAME, %rsp
	POP_KEPT
	.endm

	/* \message, edx: the answer, r8: own control block. */
	.macro SAVE_RECEIVER message, result
	PUSH_KEPT
	pushq	%rax
	pushq	\message
	pushq	$\result
	stmxcsr	PARKED_MXCSR(%rsp)
	fnstcw	PARKED_CW(%rsp)
	movl	%edx, %ebx
	LOAD_WORDS \message
	movq	%rsp, CONTROL_SP(%r8)
	.endm

	/*
	 * rax: a state word of r8 that says ACTIVE. Goes to \failed if it has
	 * changed meanwhile, with rax and r9 clobbered.
	 */
	.macro END_LOAN failed
	leaq	RPAL_STATE_RETURNING - RPAL_STATE_ACTIVE(%rax), %r9
	lock cmpxchgq %r9, CONTROL_STATE(%r8)
	jne	\failed
	movq	CONTROL_CALLER(%r8), %rdi
	jmpq	*CONTROL_RETURN_IP(%rdi)
	.endm

/*
 * int rpal_serve_one(message, answer, status): rpal.h
 *
 * A thread that is no receiver has a block that says it is not on loan.
 */
ENTRY rpal_serve_one
.Lserve:
	movq	rpal_self@gottpoff(%rip), %rcx
	movq	%fs:SELF_RECEIVER(%rcx), %r8
	movq	CONTROL_STATE(%r8), %rax
	cmpb	$RPAL_STATE_ACTIVE, %al
	jne	rpal_serve_from_kernel
	SAVE_RECEIVER %rdi, 0
	incq	%fs:SELF_SERVED(%rcx)
	END_LOAN .Lserve_again
	/* A flag was set, or the loan is over. Nothing has been changed but: */
.Lserve_again:
	decq	%fs:SELF_SERVED(%rcx)
	addq	$PARKED_FRAME, %rsp
	POP_KEPT
	jmp	.Lserve

/*
 * long rpal_switch_park(struct rpal_control *self,
 *			 struct rpal_message *message, uint32_t status,
 *			 struct rpal_park *park)
 *
 * Ends the call that the context is on loan for, with the message and status,
 * or enters the kernel if it is not (then the answer is in *park, for a call
 * that was handed back). Returns RPAL_SWITCH_CALLED with the next call in
 * *message, or the result of RPAL_IOC_PARK.
 */
HIDDEN_ENTRY rpal_switch_park
	movq	%rdi, %r8
	SAVE_RECEIVER %rsi, RPAL_SWITCH_CALLED
.Lend_loan:
	movq	CONTROL_STATE(%r8), %rax
	cmpb	$RPAL_STATE_ACTIVE, %al
	jne	.Lpark
	END_LOAN .Lend_loan
.Lpark:
	movq	rpal_self@gottpoff(%rip), %rax
	incq	%fs:SELF_PARKS(%rax)
	movl	rpal_device(%rip), %edi
	movl	$RPAL_IOC_PARK, %esi
	movq	%rcx, %rdx
	movl	$__NR_ioctl, %eax
	syscall
	/* A refused park goes on here, an ended one at rpal_at_park. */
HIDDEN_ENTRY rpal_at_park
	cmpl	$0, PARKED_RESULT(%rsp)
	je	.Lserve_ended
	RESTORE_RECEIVER
	ret
	/* The frame of an rpal_serve_one() that has answered since the park began. */
.Lserve_ended:
	movq	PARKED_MESSAGE(%rsp), %rdi
	movq	%rax, %rsi
	RESTORE_RECEIVER
	jmp	rpal_serve_ended

	/* A sender has claimed us: rsi is our control block. */
	.macro ADOPT_RECEIVER mpk
	endbr64
	movq	CONTROL_FS_BASE(%rsi), %rax
	wrfsbase %rax
	movq	CONTROL_SP(%rsi), %rsp
	.if \mpk
	movl	CONTROL_PKRU(%rsi), %eax
	ADOPT_PKRU
	.endif
	movb	$RPAL_STATE_ACTIVE, CONTROL_STATE(%rsi)
	.endm

	.macro ENTRY_STUB mpk
	ADOPT_RECEIVER \mpk
	movl	PARKED_RESULT(%rsp), %eax
	movq	PARKED_MESSAGE(%rsp), %rdx
	STORE_WORDS %rdx
	RESTORE_RECEIVER
	ret
	.endm

	/* The same by rpal_switch_notify(): our message stays as it is. */
	.macro NOTIFY_STUB mpk
	ADOPT_RECEIVER \mpk
	movl	PARKED_RESULT(%rsp), %ecx
	movq	PARKED_MESSAGE(%rsp), %rdi
	movl	$RPAL_SWITCH_NOTIFIED, %eax
	RESTORE_RECEIVER
	testl	%ecx, %ecx
	jz	rpal_serve_notified
	ret
	.endm

HIDDEN_ENTRY rpal_at_entry
	ENTRY_STUB 0
HIDDEN_ENTRY rpal_at_entry_mpk
	ENTRY_STUB 1
HIDDEN_ENTRY rpal_at_notify
	NOTIFY_STUB 0
HIDDEN_ENTRY rpal_at_notify_mpk
	NOTIFY_STUB 1

/*
 * int rpal_switch_copy(void *to, const void *from, size_t bytes,
 *			uint32_t open_pkru, uint32_t own_pkru,
 *			struct rpal_control *self, uint32_t peer)
 *
 * Copies with the peer's key open. While "guard" names the peer, a bad access
 * to its slot goes on at rpal_at_copy instead of raising a signal. No stack
 * between the stores to guard. A PKRU of 0 stands for "no MPK".
 */
HIDDEN_ENTRY rpal_switch_copy
	movl	8(%rsp), %eax
	movl	%eax, CONTROL_GUARD(%r9)
	movq	%rdx, %r10
	movl	%ecx, %eax
	testl	%eax, %eax
	jz	.Lcopy
	ADOPT_PKRU
.Lcopy:
	movq	%r10, %rcx
	shrq	$3, %rcx
	rep movsq
	movl	%r10d, %ecx
	andl	$7, %ecx
	rep movsb
	xorl	%r10d, %r10d
.Lclose:
	movl	%r8d, %eax
	testl	%eax, %eax
	jz	.Lclosed
	ADOPT_PKRU
.Lclosed:
	movl	$0, CONTROL_GUARD(%r9)
	movl	%r10d, %eax
	ret

/*
 * long rpal_switch_guarded(long (*function)(void *), void *argument,
 *			    struct rpal_control *self, uint32_t peer)
 *
 * The same around a function: a bad access to the peer's slot ends it, however
 * deep, with -EFAULT. What a function has to keep for its caller is on the
 * stack, and rpal_guard_sp, of the thread, says where. The caller sets
 * rpal_guard_sp back.
 */
HIDDEN_ENTRY rpal_switch_guarded
	PUSH_KEPT
	pushq	%rdx
	pushq	%rax
	stmxcsr	0(%rsp)
	fnstcw	4(%rsp)
	subq	$8, %rsp
	movq	rpal_guard_sp@gottpoff(%rip), %rax
	movq	%rsp, %fs:(%rax)
	movl	%ecx, CONTROL_GUARD(%rdx)
	movq	%rdi, %rax
	movq	%rsi, %rdi
	callq	*%rax
.Lunguard:
	movq	16(%rsp), %rdx
	movl	$0, CONTROL_GUARD(%rdx)
	addq	$24, %rsp
	POP_KEPT
	ret

/* A bad access while "guard" named its slot: in a copy, or in a function. */
HIDDEN_ENTRY rpal_at_copy
	movq	rpal_guard_sp@gottpoff(%rip), %rax
	movq	%fs:(%rax), %rcx
	testq	%rcx, %rcx
	jnz	.Lfunction
	movl	$-EFAULT, %r10d
	jmp	.Lclose
.Lfunction:
	movq	%rcx, %rsp
	cld
	ldmxcsr	8(%rsp)
	fldcw	12(%rsp)
	movq	$-EFAULT, %rax
	jmp	.Lunguard

	.section .note.GNU-stack, "", @progbits
