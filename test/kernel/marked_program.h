/* SPDX-License-Identifier: MIT */
/* Copies of this program, and the mark in a header that wants a program to be a service. */
#ifndef MARKED_PROGRAM_H
#define MARKED_PROGRAM_H

#include "tap.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static inline void copy_program(int to)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat stat;
	off_t at = 0;

	if (from < 0 || to < 0 || fstat(from, &stat))
		bail_out("a copy of this program");
	while (at < stat.st_size)
		if (sendfile(to, from, &at, stat.st_size - at) <= 0)
			bail_out("sendfile");
	close(from);
}

/* Whoever executes it is a service. */
static inline void mark_program(int program)
{
	if (pwrite(program, "RPAL", 4, 12) != 4)
		bail_out("the mark");
}

/* A descriptor of a copy in memory. */
static inline int marked_program(void)
{
	int to = memfd_create("marked", MFD_CLOEXEC);

	copy_program(to);
	mark_program(to);
	return to;
}

#endif
