// SPDX-License-Identifier: MIT
/* librpal: telling a peer that one of its queues has news. */
#include <errno.h>
#include <stddef.h>

#include "queue.h"

/* Is all of this in the peer's slot, and aligned as our structures are? */
bool rpal_of_peer(uint32_t peer, const void *address, size_t bytes)
{
	uintptr_t first = (uintptr_t)address;

	return first >> RPAL_SLOT_SHIFT == peer &&
	       (first + bytes - 1) >> RPAL_SLOT_SHIFT == peer &&
	       first % 64 == 0;
}

/*
 * In a guarded function: sets the bits of an end in the set that it is a member
 * of. Returns the receiver that has to be called, or 0: it will look by itself,
 * there is none, or the words make no sense.
 */
long rpal_raise_news(uint32_t peer, struct rpal_end *end)
{
	uint64_t place = peek(end->place);
	struct rpal_set *set = (void *)(uintptr_t)(place & ADDRESS_MASK);
	unsigned int member = place >> ADDRESS_BITS;
	uint32_t sleeper;

	if (!set || member >= SET_MEMBERS ||
	    !rpal_of_peer(peer, set, sizeof(*set)))
		return 0;
	set_bits(set->member[member / 64], 1ULL << member % 64);
	/* Full barrier, then the look: pairs with the one before a sleep. */
	set_bits(set->group, 1ULL << member / 64);
	sleeper = peek(set->sleeper);
	return RPAL_TID_SERVICE(sleeper) == peer ? sleeper : 0;
}

struct room {
	uint32_t peer;
	struct rpal_end *end;
};

/* Guarded. */
static long raise_room(void *argument)
{
	struct room *room = argument;

	poke(room->end->room, 1);
	return rpal_raise_news(room->peer, room->end);
}

/*
 * Whoever claims to write to a queue says where it wants to be told something.
 * Any peer could say that of another: ask the kernel, once for each claim, who
 * has the other end of the socket.
 */
static bool has_other_end(struct queue *queue, uint64_t writer, uint32_t peer)
{
	struct rpal_peer_fd other = { .fd = queue->fd, .id = peer };

	if (queue->verified == writer)
		return true;
	if (rpal_ioctl(RPAL_IOC_PEER_FD, &other))
		return false;
	queue->verified = writer;
	return true;
}

/*
 * The writer that waits for room can try again. Never waits: the writer's
 * receiver is not called but woken. Under the lock of the queue.
 */
void rpal_tell_room(struct queue *queue, uint64_t writer)
{
	struct room room = { .end = (void *)(uintptr_t)(writer & ADDRESS_MASK) };
	long sleeper;

	room.peer = (writer & ADDRESS_MASK) >> RPAL_SLOT_SHIFT;
	if (!rpal_of_peer(room.peer, room.end, sizeof(*room.end)) ||
	    !has_other_end(queue, writer, room.peer))
		return;
	if (!rpal_self.control && rpal_attach(RPAL_ROLE_SENDER))
		return;
	sleeper = rpal_with_peer(room.peer, rpal_known_pkey(room.peer),
				 raise_room, &room);
	if (sleeper > 0)
		rpal_ioctl(RPAL_IOC_WAKE, (void *)sleeper);
}
