/* SPDX-License-Identifier: MIT */
/* A kernel with KASAN keeps what is free for long, and is several times as slow. */
#ifndef KASAN_H
#define KASAN_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static inline bool has_kasan(void)
{
	static bool found, looked;
	char line[256];
	FILE *symbols;

	if (looked)
		return found;
	looked = true;
	symbols = fopen("/proc/kallsyms", "r");
	while (symbols && !found && fgets(line, sizeof(line), symbols))
		found = strstr(line, " kasan_report\n");
	if (symbols)
		fclose(symbols);
	return found;
}

/* What is repeated to find out how often it fails: there it is for what KASAN finds. */
static inline int rounds_here(int rounds)
{
	return has_kasan() ? rounds / 4 : rounds;
}

#endif
