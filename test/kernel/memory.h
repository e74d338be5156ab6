/* SPDX-License-Identifier: MIT */
/* Memory of the whole guest, for tests that must leave none behind. */
#ifndef MEMORY_H
#define MEMORY_H

#include "tap.h"
#include <unistd.h>

/* KiB that are free, or would be if they were needed. */
static inline long free_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	long free = 0, kib;
	char line[128];

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

/* Of @count things there is nothing left, compared with an earlier free_memory(). */
static inline bool memory_is_back(long before, int count, const char *what)
{
	long lost = 0;

	/* Some of it is freed after a grace period, and by workers. */
	for (int i = 0; i < 10; i++) {
		lost = before - free_memory();
		if (lost < 1024)
			break;
		sleep(1);
	}
	if (!ok(lost < 2048, "%d %s leave nothing", count, what))
		printf("# %ld KiB\n", lost);
	return lost < 2048;
}

#endif
