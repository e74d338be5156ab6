/* SPDX-License-Identifier: MIT */
/* Memory of the whole guest, for tests that must leave none behind. */
#ifndef MEMORY_H
#define MEMORY_H

#include "tap.h"
#include <unistd.h>

static inline void write_sysctl(const char *name, const char *value)
{
	FILE *file = fopen(name, "w");

	if (file)
		fputs(value, file);
	if (!file || fclose(file))
		bail_out(name);
}

/*
 * KiB in the lists of free pages that each CPU keeps for itself: some MiB, more
 * or less of it from second to second, which MemFree does not count.
 */
static inline long free_memory_of_cpus(void)
{
	FILE *file = fopen("/proc/zoneinfo", "r");
	long free = 0, pages;
	char line[128];

	if (!file)
		bail_out("/proc/zoneinfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, " count: %ld", &pages) == 1)
			free += pages * (getpagesize() / 1024);
	fclose(file);
	return free;
}

/*
 * KiB that are free, or would be if they were needed. What the kernel keeps in
 * caches it gives back before.
 */
static inline long free_memory(void)
{
	long free, kib;
	char line[128];
	FILE *file;

	write_sysctl("/proc/sys/vm/drop_caches", "3");
	write_sysctl("/proc/sys/vm/compact_memory", "1");
	free = free_memory_of_cpus();
	file = fopen("/proc/meminfo", "r");
	if (!file)
		bail_out("/proc/meminfo");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemFree: %ld", &kib) == 1 ||
		    sscanf(line, "Buffers: %ld", &kib) == 1 ||
		    sscanf(line, "Cached: %ld", &kib) == 1 ||
		    sscanf(line, "SReclaimable: %ld", &kib) == 1)
			free += kib;
	fclose(file);
	return free;
}

/* Of @count things there is nothing left but @allowed KiB of noise. */
static inline bool memory_is_back_but(long allowed, long before, int count, const char *what)
{
	long lost = 0;

	/* Some of it is freed after a grace period, and by workers. */
	for (int i = 0; i < 10; i++) {
		lost = before - free_memory();
		if (lost < allowed / 2)
			break;
		sleep(1);
	}
	if (!ok(lost < allowed, "%d %s leave nothing", count, what))
		printf("# %ld KiB\n", lost);
	return lost < allowed;
}

/* Of @count things there is nothing left, compared with an earlier free_memory(). */
static inline bool memory_is_back(long before, int count, const char *what)
{
	return memory_is_back_but(2048, before, count, what);
}

#endif
