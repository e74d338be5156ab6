/* SPDX-License-Identifier: MIT */
/* Memory that the processes of a test share, by a descriptor that they inherit. */
#ifndef SHARED_MEMORY_H
#define SHARED_MEMORY_H

#include "two_services.h"
#include <sys/mman.h>

static inline int shared_memory(size_t bytes)
{
	int fd = memfd_create("shared", 0);

	if (fd < 0 || ftruncate(fd, bytes))
		die("memfd_create", errno);
	return fd;
}

static inline void *map_shared(int fd, size_t bytes)
{
	void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (address == MAP_FAILED)
		die("mmap", errno);
	return address;
}

#endif
