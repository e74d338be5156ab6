/* SPDX-License-Identifier: MIT */
/*
 * The caches of the slab allocator, for tests that must leave no object behind.
 * Free objects stay in them, and with KASAN for long in its quarantine.
 */
#ifndef SLAB_H
#define SLAB_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Makes every cache give back what is free, also from the quarantine. */
static inline void shrink_slabs(void)
{
	DIR *caches = opendir("/sys/kernel/slab");
	struct dirent *cache;
	char path[300];
	int fd;

	if (!caches) {
		printf("Bail out! /sys/kernel/slab\n");
		exit(99);
	}
	while ((cache = readdir(caches))) {
		/* Links are other names. */
		if (cache->d_type != DT_DIR || cache->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", cache->d_name);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "1", 1) != 1) {
			printf("Bail out! %s\n", path);
			exit(99);
		}
		close(fd);
	}
	closedir(caches);
}

#endif
