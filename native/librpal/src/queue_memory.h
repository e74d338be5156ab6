/* SPDX-License-Identifier: MIT */
/*
 * Queues of words: the memory that two peers use, and who may do what in it.
 *
 * A descriptor that takes part has an *end* in the memory of its process. When
 * the descriptor is one end of a Unix socket and a peer has the other, words go
 * from the peer, the writer, into the end's queue, and from there to the
 * process itself, the reader, which owns the memory. For the other direction
 * they change roles: the peer has an end for its descriptor as well. Ends whose
 * descriptors are watched through the same epoll file are members of one *set*.
 *
 * The owner uses its memory like any other. The writer reaches it with the
 * owner's key open and a guard around (guard.h). Where something has to be found
 * it begins at the directory, whose address peers tell each other.
 *
 * Three rules make all of this safe against a peer that is late, stopped, dead
 * or wrong, at any instruction:
 *
 * - There is no lock in here. Inside of a process its own mutexes keep order
 *   between threads; nobody waits for another process.
 * - This memory is never unmapped and never used for anything else. What a late
 *   peer still does, it does to words of this kind.
 * - No word is believed. Each side keeps what it knows (head, tail) for itself
 *   and checks every word it reads. A word that makes no sense is the same as
 *   nothing to read, or no room: it hurts the two ends of one conversation.
 *   (Who writes over the words of a set can delay its other members, too, until
 *   their receiver looks for another reason.)
 *
 * Cells
 *
 * Words have positions that only grow, also when an end is given to another
 * descriptor. The word of position p is in cell[p % RPAL_QUEUE_WORDS]. Its stamp
 * is p << 8 and one of
 *
 *	FREE		p may be written
 *	1 to 32		first of so many words that were put together
 *	REST		another of them: it is there if their first is
 *
 * FREE(p), REST(p) -> REST(p), first(p)
 *		writer, cmpxchg16b of stamp and word together, for the words of
 *		a put from the last to the first. So the last step of a put
 *		makes all of it visible, and one that is never finished never
 *		is: the next writer writes over the REST that it has left.
 * first(p), REST(p) -> FREE(p + RPAL_QUEUE_WORDS)
 *		reader, store, after it has read the word
 * any -> FREE of a position that was never used
 *		reader, when it closes the end: what a late writer expects is
 *		not there any more
 *
 * The other words
 *
 * end.name	reader: what this end is now, 0 if nothing. A writer that finds
 *		another name than the one that it opened is late.
 * end.writer	generation << 48 | address of the writer's own end. The writer
 *		claims it, cmpxchg from address 0. The reader takes it back when
 *		the peer has gone, and changes the generation when it closes.
 * end.place	reader: member << 48 | address of the set, while somebody wants to
 *		know of news; else 0
 * end.want	writer: it waits until all positions below this one can be
 *		written; 0: it does not wait. Reader: xchg with 0, when that is so
 * end.room	set to 1 by the *peer of the writer whose end this is*: a put
 *		that found no room can be tried again. Owner: xchg with 0
 * set.member, set.group
 *		whoever has news for a member sets its bit, and then that of
 *		its group of 64. The owner takes them in the reverse order:
 *		the group's, then the members'
 * set.sleeper	the receiver that waits for news of this set, or is about to; 0:
 *		it is awake and will look before it sleeps
 * set.receiver	the receiver that has waited last
 *
 * Nobody misses anything, because both sides write and then look, with a full
 * barrier between:
 *
 *	writer: cells, bits	reader: sleeper
 *	looks at: sleeper	looks at: bits
 *
 *	writer: want		reader: cells
 *	looks at: cells		looks at: want
 *
 *	writer: cells		reader: place
 *	looks at: place		looks at: cells
 *
 * Who has found a sleeper calls it: by a user-mode call if it is parked, else
 * with RPAL_IOC_WAKE, which ends its next park, too.
 */
#ifndef RPAL_QUEUE_MEMORY_H
#define RPAL_QUEUE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "rpal_queue.h"

#define QUEUE_VERSION	1		/* of all this */
#define QUEUE_FDS	65536		/* descriptors below this can take part */
#define SET_MEMBERS	4096

#define CELL_FREE	0
#define CELL_REST	0xff

struct rpal_cell {
	uint64_t stamp;
	uint64_t word;
} __attribute__((aligned(16)));

struct rpal_end {
	uint64_t name;
	uint64_t writer;
	uint64_t place;
	uint64_t want;
	uint64_t room;
	uint64_t reserved[3];
	struct rpal_cell cell[RPAL_QUEUE_WORDS];
} __attribute__((aligned(64)));

struct rpal_set {
	uint32_t sleeper;
	uint32_t receiver;
	uint64_t group;
	uint64_t reserved[6];
	uint64_t member[SET_MEMBERS / 64];
} __attribute__((aligned(64)));

struct rpal_directory {
	uint64_t version;
	uint64_t end[QUEUE_FDS];	/* addresses, 0: there is none */
};

#define ADDRESS_BITS	48
#define ADDRESS_MASK	((1ULL << ADDRESS_BITS) - 1)

static inline uint64_t stamp_of(uint64_t position, unsigned int kind)
{
	return position << 8 | kind;
}

static inline struct rpal_cell *cell_of(struct rpal_end *end, uint64_t position)
{
	return &end->cell[position % RPAL_QUEUE_WORDS];
}

/* A word that the other process may change at any time. */
#define peek(word)		__atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define poke(word, value)	__atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
/* Full barriers, too. */
#define swap(word, value)	__atomic_exchange_n(&(word), (value), __ATOMIC_SEQ_CST)
#define set_bits(word, bits)	__atomic_fetch_or(&(word), (bits), __ATOMIC_SEQ_CST)

static inline bool change(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Stamp and word at once. Full barrier. */
static inline bool cell_change(struct rpal_cell *cell, struct rpal_cell from,
			       struct rpal_cell to)
{
	bool done;

	asm volatile("lock cmpxchg16b %1"
		     : "=@ccz"(done), "+m"(*cell), "+a"(from.stamp),
		       "+d"(from.word)
		     : "b"(to.stamp), "c"(to.word)
		     : "memory");
	return done;
}

#endif /* RPAL_QUEUE_MEMORY_H */
