/* SPDX-License-Identifier: MIT */
/* What the kernel says of the calling process's own pages. */
#ifndef PAGE_STATE_H
#define PAGE_STATE_H

#include "tap.h"
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

/* The entry in /proc/self/pagemap. */
static inline uint64_t page_entry(uint64_t address)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd < 0 || pread(fd, &entry, sizeof(entry), address / 4096 * 8) != sizeof(entry))
		bail_out("/proc/self/pagemap");
	close(fd);
	return entry;
}

static inline bool page_is_present(uint64_t address)
{
	return page_entry(address) >> 63;
}

static inline bool page_is_swapped(uint64_t address)
{
	return page_entry(address) >> 62 & 1;
}

/* A number that /proc/self/smaps has for the mapping of an address; -1: none. */
static inline long mapping_has(uint64_t address, const char *what)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool inside = false;
	char line[512];
	long value = -1;

	if (!file)
		bail_out("/proc/self/smaps");
	while (value < 0 && fgets(line, sizeof(line), file)) {
		size_t length = strlen(what);

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= address && address < end;
		else if (inside && !strncmp(line, what, length) && line[length] == ':')
			value = atol(line + length + 1);
	}
	fclose(file);
	return value;
}

static inline bool is_mapped(uint64_t address)
{
	return mapping_has(address, "Size") >= 0;
}

#endif
