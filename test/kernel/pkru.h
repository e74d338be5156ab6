/* SPDX-License-Identifier: MIT */
/* PKRU, for tests that open a peer's key by themselves. */
#ifndef PKRU_H
#define PKRU_H

#include <stdint.h>

static inline uint32_t read_pkru(void)
{
	uint32_t pkru, edx;

	asm volatile(".byte 0x0f,0x01,0xee" : "=a"(pkru), "=d"(edx) : "c"(0));
	return pkru;
}

static inline void write_pkru(uint32_t pkru)
{
	asm volatile(".byte 0x0f,0x01,0xef" : : "a"(pkru), "c"(0), "d"(0) : "memory");
}

/* Opens a key for reading and writing; returns what was before. */
static inline uint32_t open_key(unsigned int pkey)
{
	uint32_t old = read_pkru();

	write_pkru(old & ~(3u << 2 * pkey));
	return old;
}

#endif
