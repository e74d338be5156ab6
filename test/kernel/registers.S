/* SPDX-License-Identifier: MIT */
/*
 * Known values in registers, for tests of what a call and a hand-back leave
 * alone. In assembly, because a compiler owns these registers elsewhere.
 */
	.text

/*
 * long call_with_patterns(const struct rpal_target *target,
 *			   struct rpal_message *message, int timeout_ms,
 *			   uint64_t after[7])
 *
 * rpal_call() with 0x1111… in rbx, 0x2222… in rbp, and so on up to r15, and
 * with both control words rounding upwards. What is there afterwards is stored
 * in @after, the control words (x87 above MXCSR) last.
 */
	.globl	call_with_patterns
	.type	call_with_patterns, @function
call_with_patterns:
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rcx
	subq	$16, %rsp
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movl	$0x5f80, 8(%rsp)
	ldmxcsr	8(%rsp)
	movl	$0x0b7f, 12(%rsp)
	fldcw	12(%rsp)
	movabsq	$0x1111111111111111, %rbx
	movabsq	$0x2222222222222222, %rbp
	movabsq	$0x3333333333333333, %r12
	movabsq	$0x4444444444444444, %r13
	movabsq	$0x5555555555555555, %r14
	movabsq	$0x6666666666666666, %r15
	call	rpal_call
	movq	16(%rsp), %rcx
	movq	%rbx, 0(%rcx)
	movq	%rbp, 8(%rcx)
	movq	%r12, 16(%rcx)
	movq	%r13, 24(%rcx)
	movq	%r14, 32(%rcx)
	movq	%r15, 40(%rcx)
	movq	$0, 48(%rcx)
	stmxcsr	48(%rcx)
	fnstcw	52(%rcx)
	ldmxcsr	(%rsp)
	fldcw	4(%rsp)
	addq	$24, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret

/*
 * uint64_t registers_over_nops(const void *image, void *after, uint32_t mask)
 *
 * Loads the extended state @mask from @image (of XSAVE), patterns into all
 * general registers and the carry flag, executes some nops, and looks whether
 * they are all still there; the extended state is saved in @after to be
 * compared. Returns how many general registers and flags are wrong.
 */
	.macro	PATTERN register, number
	movq	$-0x01010101 * \number, %\register
	.endm
	.macro	CHECK register, number
	cmpq	$-0x01010101 * \number, %\register
	je	.Lkept\@
	incl	-4(%rsp)
.Lkept\@:
	.endm

	.globl	registers_over_nops
	.type	registers_over_nops, @function
registers_over_nops:
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	pushq	%rsi
	pushq	%rdx
	movl	%edx, %eax
	xorl	%edx, %edx
	xrstor	(%rdi)
	/* In the red zone: signal handlers leave it alone. */
	movl	$0, -4(%rsp)
	PATTERN	rax, 1
	PATTERN	rbx, 2
	PATTERN	rcx, 3
	PATTERN	rdx, 4
	PATTERN	rsi, 5
	PATTERN	rdi, 6
	PATTERN	rbp, 7
	PATTERN	r8, 8
	PATTERN	r9, 9
	PATTERN	r10, 10
	PATTERN	r11, 11
	PATTERN	r12, 12
	PATTERN	r13, 13
	PATTERN	r14, 14
	PATTERN	r15, 15
	stc
	.rept	16
	nop
	.endr
	jc	.Lcarry
	incl	-4(%rsp)
.Lcarry:
	CHECK	rax, 1
	CHECK	rbx, 2
	CHECK	rcx, 3
	CHECK	rdx, 4
	CHECK	rsi, 5
	CHECK	rdi, 6
	CHECK	rbp, 7
	CHECK	r8, 8
	CHECK	r9, 9
	CHECK	r10, 10
	CHECK	r11, 11
	CHECK	r12, 12
	CHECK	r13, 13
	CHECK	r14, 14
	CHECK	r15, 15
	movl	-4(%rsp), %ecx
	popq	%rax
	xorl	%edx, %edx
	popq	%rdi
	xsave	(%rdi)
	movl	%ecx, %eax
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret

	.section .note.GNU-stack, "", @progbits
