/* SPDX-License-Identifier: MIT */
/*
 * The kernel log, for tests that must leave none: a process that lives is not
 * to be reported, and neither is the death of one that was killed.
 */
#ifndef KERNEL_LOG_H
#define KERNEL_LOG_H

#include "tap.h"
#include <fcntl.h>
#include <unistd.h>

/* Start reading here. */
static inline int kernel_log_from_now(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || lseek(fd, 0, SEEK_END) < 0)
		bail_out("/dev/kmsg");
	return fd;
}

/* What the kernel says when a peer has written over a state word. */
#define FORGED "a peer wrote over a state word"

/*
 * A fact about all that was logged since: no process was reported for a fault,
 * and nothing was said of RPAL, but lines with @expected (or NULL). (What the
 * kernel says of a fault of its own, the runner of the tests looks for.)
 */
static inline bool kernel_log_is_quiet_but(int fd, const char *expected)
{
	char record[8192];
	ssize_t bytes;
	long bad = 0;

	/* EPIPE: some records have been lost. */
	while ((bytes = read(fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		if (bytes < 0) {
			errno = 0;
			continue;
		}
		record[bytes] = 0;
		if (!strstr(record, "segfault") && !strstr(record, "traps: ") &&
		    !strstr(record, "rpal"))
			continue;
		if (expected && strstr(record, expected))
			continue;
		bad++;
		printf("# kernel: %s", record);
	}
	close(fd);
	return ok(!bad, "the kernel reported nothing (%ld lines)", bad);
}

static inline bool kernel_log_is_quiet(int fd)
{
	return kernel_log_is_quiet_but(fd, NULL);
}

#endif
