/* SPDX-License-Identifier: MIT */
/* The program that kernel_paths.c executes: it ends with 42. */
#include <asm/unistd.h>

	.text
	.globl	_start
_start:
	movl	$42, %edi
	movl	$__NR_exit_group, %eax
	syscall

	.section .note.GNU-stack, "", @progbits
