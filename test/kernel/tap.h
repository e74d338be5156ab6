/* SPDX-License-Identifier: MIT */
/* TAP output: one ok() a fact, done() at the end. */
#ifndef TAP_H
#define TAP_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_count, tap_failed;

__attribute__((format(printf, 2, 3), unused)) static bool ok(bool good, const char *format, ...)
{
	va_list args;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	tap_failed += !good;
	return good;
}

/* A call whose result is known: a value, or -errno. */
__attribute__((unused)) static bool is(long got, long expected, const char *what)
{
	bool good = got == expected;

	ok(good, "%s", what);
	if (!good)
		printf("# got %ld (%#lx), expected %ld (%#lx)\n", got, got, expected, expected);
	fflush(stdout);
	return good;
}

/* What a system call wrapper of libc returned, as the kernel did. */
#define result(call)                        \
	({                                  \
		long ret_ = (long)(call);   \
		ret_ == -1 ? -errno : ret_; \
	})

__attribute__((unused)) static int done(void)
{
	printf("1..%d\n", tap_count);
	fflush(stdout);
	return tap_failed > 0;
}

__attribute__((noreturn, unused)) static void bail_out(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	fflush(stdout);
	exit(1);
}

__attribute__((noreturn, unused)) static void skip_all(const char *why)
{
	printf("1..0 # SKIP %s\n", why);
	fflush(stdout);
	exit(77);
}

#endif
