/* SPDX-License-Identifier: MIT */
/* Memory of the whole guest, for tests that must leave none behind. */
#ifndef MEMORY_H
#define MEMORY_H

#include "kasan.h"
#include "slab.h"
#include "tap.h"
#include <string.h>
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
 * KiB of KASAN's shadow of stacks and other vmalloc areas that have been freed:
 * it stays until their addresses are, and the kernel collects 64 MiB of those
 * (on two CPUs) before it frees them. A stack of 8 pages and its guard page
 * have 2 pages of shadow.
 */
static inline long shadow_of_freed_areas(void)
{
	long kib = 0, size, page = getpagesize();
	char line[256];
	FILE *file;

	if (!has_kasan())
		return 0;
	file = fopen("/proc/vmallocinfo", "r");
	if (!file)
		bail_out("/proc/vmallocinfo");
	while (fgets(line, sizeof(line), file))
		if (strstr(line, "unpurged vm_area") && sscanf(line, "%*s %ld", &size) == 1)
			kib += (size / 8 + page - 1) / page * (page / 1024);
	fclose(file);
	return kib;
}

/*
 * KiB of the same shadow that are left when those addresses have been freed: of
 * an area that shares a page of it with its neighbours that page stays, until
 * the addresses are used again (kasan_release_vmalloc_node() takes each area by
 * itself). It is not counted anywhere. 4,800 processes of no service, eight at a
 * time, left up to 3 MiB.
 */
static inline long shadow_of_neighbours(void)
{
	return has_kasan() ? 3072 : 0;
}

/* What uses memory: the lines of /proc/meminfo and the caches of the slab allocator, in KiB. */
struct memory_use {
	int count;
	struct {
		char name[48];
		long kib;
	} use[512];
};

static inline void add_use(struct memory_use *all, const char *name, long kib)
{
	if (all->count == sizeof(all->use) / sizeof(all->use[0]))
		return;
	snprintf(all->use[all->count].name, sizeof(all->use[0].name), "%s", name);
	all->use[all->count++].kib = kib;
}

static inline void memory_use(struct memory_use *all)
{
	FILE *meminfo = fopen("/proc/meminfo", "r"), *slabs = fopen("/proc/slabinfo", "r");
	char line[256], name[48];
	long a, b, size;

	if (!meminfo || !slabs)
		bail_out("/proc/meminfo, /proc/slabinfo");
	all->count = 0;
	while (fgets(line, sizeof(line), meminfo))
		if (sscanf(line, "%47[^:]: %ld kB", name, &a) == 2)
			add_use(all, name, a);
	while (fgets(line, sizeof(line), slabs))
		if (sscanf(line, "%47s %ld %ld %ld", name, &a, &b, &size) == 4)
			add_use(all, name, b * size / 1024);
	fclose(meminfo);
	fclose(slabs);
}

static struct memory_use memory_used_before;

/*
 * KiB that are free, or would be if they were needed. What the kernel keeps in
 * caches it gives back before.
 */
static inline long free_now(void)
{
	long free, kib;
	char line[128];
	FILE *file;

	write_sysctl("/proc/sys/vm/drop_caches", "3");
	shrink_slabs();
	free = free_memory_of_cpus() + shadow_of_freed_areas();
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

/* For memory_is_back(), after everything that happens only once. */
static inline long free_memory(void)
{
	long free = free_now();

	memory_use(&memory_used_before);
	return free;
}

/* For whoever has to find out where it went. */
static inline void print_memory_use(void)
{
	static struct memory_use now;

	memory_use(&now);
	for (int i = 0; i < now.count; i++) {
		for (int j = 0; j < memory_used_before.count; j++) {
			long more = now.use[i].kib - memory_used_before.use[j].kib;

			if (!strcmp(now.use[i].name, memory_used_before.use[j].name) &&
			    (more >= 128 || more <= -128))
				printf("# %s: %+ld KiB\n", now.use[i].name, more);
		}
	}
}

/* Of @count things there is nothing left but @allowed KiB of noise. */
static inline bool memory_is_back_but(long allowed, long before, int count, const char *what)
{
	long lost = 0;

	allowed += shadow_of_neighbours();
	/* Some of it is freed after a grace period, and by workers. */
	for (int i = 0; i < 10; i++) {
		lost = before - free_now();
		if (lost < allowed / 2)
			break;
		sleep(1);
	}
	ok(lost < allowed, "%d %s leave nothing", count, what);
	printf("# %ld KiB, of which %ld may be noise\n", lost, allowed);
	if (lost >= allowed)
		print_memory_use();
	return lost < allowed;
}

/* Of @count things there is nothing left, compared with an earlier free_memory(). */
static inline bool memory_is_back(long before, int count, const char *what)
{
	return memory_is_back_but(2048, before, count, what);
}

#endif
