/* SPDX-License-Identifier: MIT */
/* This program, with the mark in its header that wants it to be a service. */
#ifndef MARKED_PROGRAM_H
#define MARKED_PROGRAM_H

#include "tap.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* A descriptor of a copy in memory. */
static inline int marked_program(void)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to = memfd_create("marked", MFD_CLOEXEC);
	struct stat stat;
	off_t at = 0;

	if (from < 0 || to < 0 || fstat(from, &stat))
		bail_out("a copy in memory");
	while (at < stat.st_size)
		if (sendfile(to, from, &at, stat.st_size - at) <= 0)
			bail_out("sendfile");
	close(from);
	if (pwrite(to, "RPAL", 4, 12) != 4)
		bail_out("pwrite");
	return to;
}

#endif
