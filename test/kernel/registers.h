/* SPDX-License-Identifier: MIT */
/* What a call leaves alone in its caller, and a hand-back in a handler. */
#ifndef REGISTERS_H
#define REGISTERS_H

#include <cpuid.h>
#include <rpal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

long call_with_patterns(const struct rpal_target *target, struct rpal_message *message,
			int timeout_ms, uint64_t after[7]);
uint64_t registers_over_nops(const void *image, void *after, uint32_t mask);

static inline bool has_pkru(void)
{
	unsigned int eax, ebx, ecx, edx;

	return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && ecx & bit_OSPKE;
}

/* 0 on a machine without. */
static inline uint32_t current_pkru(void)
{
	uint32_t pkru = 0, edx;

	if (has_pkru())
		asm volatile(".byte 0x0f,0x01,0xee" : "=a"(pkru), "=d"(edx) : "c"(0));
	return pkru;
}

static inline uint64_t current_fs_base(void)
{
	uint64_t base;

	asm volatile("rdfsbase %0" : "=r"(base));
	return base;
}

/*
 * rpal_call(), and whether the caller has every register that is its own
 * afterwards: callee-saved ones, control words, PKRU, FS base.
 */
static inline int call_keeping_registers(const struct rpal_target *target,
					 struct rpal_message *message, int timeout_ms, bool *kept)
{
	uint64_t after[7], base = current_fs_base();
	uint32_t pkru = current_pkru();
	int ret = call_with_patterns(target, message, timeout_ms, after);

	*kept = after[6] == 0xb7f00005f80 && current_pkru() == pkru && current_fs_base() == base;
	for (int i = 0; i < 6; i++)
		*kept &= after[i] == 0x1111111111111111ULL * (i + 1);
	return ret;
}

/* An extended state that no other program has. */
struct vector_image {
	uint32_t mask;
	unsigned int avx; /* where the upper halves of ymm registers are */
	uint8_t area[4096] __attribute__((aligned(64)));
	uint8_t after[4096] __attribute__((aligned(64)));
};

enum { XSTATE_X87 = 1, XSTATE_SSE = 2, XSTATE_AVX = 4 };

static inline void vector_image_init(struct vector_image *image)
{
	static const struct {
		uint16_t control_word, status_word, tags;
	} x87 = { .control_word = 0x077f, .tags = 0xff };
	const uint32_t mxcsr = 0x3f80;
	unsigned int eax, ebx = 0, ecx, edx;
	uint64_t header;

	asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	image->mask = eax & (XSTATE_X87 | XSTATE_SSE | XSTATE_AVX);
	header = image->mask;
	memcpy(image->area, &x87, sizeof(x87));
	memcpy(image->area + 24, &mxcsr, sizeof(mxcsr));
	for (int i = 0; i < 8; i++) {
		/* 80 bits of a normal number: the top bit of the mantissa is set. */
		uint8_t number[10] = { 1 + i, 2, 3, 4, 5, 6, 7, 0x88, 0, 0x40 };

		memcpy(image->area + 32 + 16 * i, number, sizeof(number));
	}
	for (int i = 0; i < 256; i++)
		image->area[160 + i] = 3 * i + 1;
	memcpy(image->area + 512, &header, sizeof(header));
	if (image->mask & XSTATE_AVX) {
		__get_cpuid_count(13, 2, &eax, &ebx, &ecx, &edx);
		image->avx = ebx;
		for (int i = 0; i < 256; i++)
			image->area[image->avx + i] = 5 * i + 2;
	}
}

/* A thread's control words as the image has them: both round downwards. */
static inline void use_image_control_words(const struct vector_image *image)
{
	asm volatile("fldcw %0; ldmxcsr %1"
		     :
		     : "m"(image->area[0]), "m"(image->area[24])
		     : "memory");
}

/*
 * In a handler of such a thread: are its control words its own, and are all
 * registers kept over what may happen meanwhile?
 */
static inline bool registers_are_kept(struct vector_image *image)
{
	uint32_t mxcsr, wrong;
	uint16_t word;

	asm volatile("fnstcw %0; stmxcsr %1" : "=m"(word), "=m"(mxcsr));
	wrong = registers_over_nops(image->area, image->after, image->mask);
	/* The x87 stack is empty between functions. */
	asm volatile("emms");
	return !wrong && !memcmp(&word, image->area, sizeof(word)) &&
	       !memcmp(&mxcsr, image->area + 24, sizeof(mxcsr)) &&
	       /* Not compared: what names the last x87 instruction. */
	       !memcmp(image->after, image->area, sizeof(word)) &&
	       !memcmp(image->after + 24, image->area + 24, sizeof(mxcsr)) &&
	       !memcmp(image->after + 32, image->area + 32, 128 + 256) &&
	       (!image->avx || !memcmp(image->after + image->avx, image->area + image->avx, 256));
}

#endif
