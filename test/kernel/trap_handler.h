/* SPDX-License-Identifier: MIT */
/* A handler for the signals of what a program itself does wrong. */
#ifndef TRAP_HANDLER_H
#define TRAP_HANDLER_H

#include <signal.h>
#include <stddef.h>

/* It has a stack of its own: the stack pointer may be what is wrong. */
static inline void handle_traps(void (*handler)(int signal, siginfo_t *info, void *context))
{
	static char stack[65536];
	const int signals[] = { SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGBUS };
	stack_t alternative = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = {
		.sa_sigaction = handler,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};

	sigaltstack(&alternative, NULL);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

#endif
