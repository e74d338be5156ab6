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
 * - The six words of a message and the status travel in r8-r13 and rbx. On the
 *   way back they stay there, untouched, until they are stored and
 *   RPAL_CALLEE_RETURNING says so.
 *
 * x86 keeps stores in order, so plain stores publish. Control blocks are under
 * key 0 and can be reached with either PKRU. A PKRU of 0 stands for "no MPK":
 * the instruction may not exist then.
 *
 * Both kinds of frame, from sp upwards:
 *	0 status	 8 peer's control block (sender only)	16 message
 *	24 MXCSR, x87 CW	32 rbp
 *
 * rpal_switch_call() and rpal_switch_park() keep no other register: those that
 * a C function has to keep are saved by the compiler, once (internal.h).
 */
#include <asm/errno.h>
#include <asm/unistd.h>
#include "control_offsets.h"

	.text

	.macro ENTRY name
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.balign	16
\name:
	.endm

	.macro SAVE_CONTEXT
	pushq	%rbp
	subq	$32, %rsp
	stmxcsr	24(%rsp)
	fnstcw	28(%rsp)
	.endm

	/* rax: the result. */
	.macro RESTORE_CONTEXT
	ldmxcsr	24(%rsp)
	fldcw	28(%rsp)
	addq	$32, %rsp
	popq	%rbp
	ret
	.endm

	.macro LOAD_WORDS from
	movq	0(\from), %r8
	movq	8(\from), %r9
	movq	16(\from), %r10
	movq	24(\from), %r11
	movq	32(\from), %r12
	movq	40(\from), %r13
	.endm

	.macro STORE_WORDS to
	movq	%r8, 0(\to)
	movq	%r9, 8(\to)
	movq	%r10, 16(\to)
	movq	%r11, 24(\to)
	movq	%r12, 32(\to)
	movq	%r13, 40(\to)
	.endm

	/* eax: the value. Clobbers rcx, rdx. */
	.macro ADOPT_PKRU
	testl	%eax, %eax
	jz	.Lno_mpk\@
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	wrpkru
.Lno_mpk\@:
	.endm

/*
 * long rpal_switch_call(struct rpal_control *self, struct rpal_control *peer,
 *			 struct rpal_message *message, uint64_t peer_tid,
 *			 uint64_t lent, uint64_t parked)
 *
 * Returns the receiver's status as an unsigned 32-bit value, or, negative in
 * 64 bits: -EBUSY the state was not "parked", or what the kernel says
 * (-EAGAIN, -EINPROGRESS, -EOWNERDEAD).
 */
ENTRY rpal_switch_call
	SAVE_CONTEXT
	movq	%rsi, 8(%rsp)
	movq	%rdx, 16(%rsp)
	movq	%rsp, CONTROL_CALL_SP(%rdi)
	movq	%rcx, CONTROL_CALLEE(%rdi)
	movq	%r9, %rax
	lock cmpxchgq %r8, CONTROL_STATE(%rsi)
	jne	.Lbusy
	/* Claimed. The receiver finds its way back in its own block. */
	movq	%rdi, CONTROL_CALLER(%rsi)
	LOAD_WORDS %rdx
	jmpq	*CONTROL_ENTRY_IP(%rsi)

.Lbusy:
	movq	$0, CONTROL_CALLEE(%rdi)
	movq	$-EBUSY, %rax
	RESTORE_CONTEXT

/* From the receiver's stub: rdi is our control block. Still RETURNING. */
ENTRY rpal_at_return
	endbr64
	movq	CONTROL_FS_BASE(%rdi), %rax
	wrfsbase %rax
	movq	CONTROL_CALL_SP(%rdi), %rsp
	movl	CONTROL_PKRU(%rdi), %eax
	ADOPT_PKRU
	movq	16(%rsp), %rdx
	STORE_WORDS %rdx
	movq	%rbx, 0(%rsp)
	movq	8(%rsp), %rsi
	movb	$1, CONTROL_CALLEE_RETURNING(%rdi)
	movq	CONTROL_RETURNING(%rdi), %rax
	movq	CONTROL_PARKED(%rsi), %rcx
	lock cmpxchgq %rcx, CONTROL_STATE(%rsi)
	jne	.Lflagged
	movq	$0, CONTROL_CALLEE(%rdi)
	movq	%rbx, %rax
	RESTORE_CONTEXT

	/*
	 * A flag is set: the kernel releases the receiver. (Or it has done so
	 * already, for a signal of ours: then it finds nothing to do.)
	 */
.Lflagged:
	movq	%rdi, %rbp
	movl	CONTROL_CALLEE(%rdi), %edx
	movl	rpal_device(%rip), %edi
	movl	$RPAL_IOC_FINISH, %esi
	movl	$__NR_ioctl, %eax
	syscall
	movq	$0, CONTROL_CALLEE(%rbp)
	movq	%rbx, %rax
	RESTORE_CONTEXT

/* The kernel ended the call: sp = call_sp, callee = 0, rax says how. */
ENTRY rpal_at_resume
	RESTORE_CONTEXT

/* The kernel released the receiver; the reply is in registers. */
ENTRY rpal_at_finish
	movq	16(%rsp), %rdx
	STORE_WORDS %rdx
	movq	%rbx, %rax
	RESTORE_CONTEXT

/* The kernel released the receiver; the reply is stored. */
ENTRY rpal_at_released
	movq	0(%rsp), %rax
	RESTORE_CONTEXT

/*
 * long rpal_switch_park(struct rpal_control *self,
 *			 struct rpal_message *message, uint32_t status,
 *			 struct rpal_park *park)
 *
 * Ends the call that the context is on loan for, with the message and status,
 * or enters the kernel if it is not (then the answer is in *park, for a call
 * that was handed back). Returns RPAL_SWITCH_CALLED with the next call in
 * *message, or the result of RPAL_IOC_PARK. Without a park: it returns
 * RPAL_SWITCH_OWN if the context is not on loan, and nothing was done.
 */
ENTRY rpal_switch_park
	SAVE_CONTEXT
	movq	%rsi, 16(%rsp)
	movl	%edx, %ebx
	LOAD_WORDS %rsi
	movq	%rsp, CONTROL_SP(%rdi)
.Lend_loan:
	movq	CONTROL_STATE(%rdi), %rax
	cmpb	$RPAL_STATE_ACTIVE, %al
	jne	.Lpark
	leaq	RPAL_STATE_RETURNING - RPAL_STATE_ACTIVE(%rax), %rdx
	lock cmpxchgq %rdx, CONTROL_STATE(%rdi)
	jne	.Lend_loan
	movq	CONTROL_CALLER(%rdi), %rdi
	jmpq	*CONTROL_RETURN_IP(%rdi)

.Lpark:
	movl	$RPAL_SWITCH_OWN, %eax
	testq	%rcx, %rcx
	jz	.Lrefused
	movl	rpal_device(%rip), %edi
	movl	$RPAL_IOC_PARK, %esi
	movq	%rcx, %rdx
	movl	$__NR_ioctl, %eax
	syscall
.Lrefused:
	/* A refused park goes on here, an ended one at rpal_at_park. */
ENTRY rpal_at_park
	RESTORE_CONTEXT

/* A sender has claimed us: rsi is our control block, r8-r13 the message. */
ENTRY rpal_at_entry
	endbr64
	movq	CONTROL_FS_BASE(%rsi), %rax
	wrfsbase %rax
	movq	CONTROL_SP(%rsi), %rsp
	movl	CONTROL_PKRU(%rsi), %eax
	ADOPT_PKRU
	movb	$RPAL_STATE_ACTIVE, CONTROL_STATE(%rsi)
	movq	16(%rsp), %rdx
	STORE_WORDS %rdx
	movl	$RPAL_SWITCH_CALLED, %eax
	RESTORE_CONTEXT

/*
 * int rpal_switch_copy(void *to, const void *from, size_t bytes,
 *			uint32_t open_pkru, uint32_t own_pkru,
 *			struct rpal_control *self, uint32_t peer)
 *
 * Copies with the peer's key open. While "guard" names the peer, a bad access
 * to its slot goes on at rpal_at_copy instead of raising a signal. No stack
 * between the stores to guard.
 */
ENTRY rpal_switch_copy
	movl	8(%rsp), %eax
	movl	%eax, CONTROL_GUARD(%r9)
	movq	%rdx, %r10
	movl	%ecx, %eax
	ADOPT_PKRU
	movq	%r10, %rcx
	shrq	$3, %rcx
	rep movsq
	movl	%r10d, %ecx
	andl	$7, %ecx
	rep movsb
	xorl	%r10d, %r10d
.Lclose:
	movl	%r8d, %eax
	ADOPT_PKRU
	movl	$0, CONTROL_GUARD(%r9)
	movl	%r10d, %eax
	ret

ENTRY rpal_at_copy
	movl	$-EFAULT, %r10d
	jmp	.Lclose

	.section .note.GNU-stack, "", @progbits
