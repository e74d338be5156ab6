// SPDX-License-Identifier: MIT
/* librpal: putting words into the queue at the other end of a socket. */
#include <errno.h>
#include <stdlib.h>

#include "queue.h"

/*
 * One for each queue of a peer that this process writes to. Never freed, only
 * used again.
 */
struct rpal_writer {
	pthread_mutex_t lock;
	unsigned int opened;		/* under writers_mutex; 0: free */
	uint32_t peer;
	uint32_t pkey;
	int fd;				/* the peer's */
	int own_fd;			/* whose queue is told that there is room */

	struct rpal_end *end;		/* in the peer's memory */
	uint64_t name;			/* that it had when this was opened */
	uint64_t tail;			/* position of the next word to put */

	uint64_t put;
	uint64_t refused;
	uint64_t called;
	uint64_t handed_back;
	uint64_t woken;
	struct rpal_writer *next;
};

static pthread_mutex_t writers_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rpal_writer *all_writers;

/* What a guarded function of a writer works with. */
struct errand {
	struct rpal_writer *writer;
	struct rpal_directory *directory;
	struct rpal_end *own_end;	/* NULL: do not wait for room */
	const uint64_t *words;
	unsigned int n;
	long sleeper;
	uint32_t receiver;
};

/* Where the reader goes on: the lowest position that may be written. */
static uint64_t find_tail(struct rpal_end *end)
{
	uint64_t lowest = ~0ULL, highest = 0;

	for (unsigned int i = 0; i < RPAL_QUEUE_WORDS; i++) {
		uint64_t stamp = peek(end->cell[i].stamp), position = stamp >> 8;

		if ((stamp & 0xff) == CELL_FREE && position < lowest)
			lowest = position;
		if (position > highest)
			highest = position;
	}
	/* None is free: the queue is full. */
	if (lowest == ~0ULL)
		return highest + 1;
	/* The reader frees in order: those before it, since they were looked at. */
	for (unsigned int i = 0; i < RPAL_QUEUE_WORDS; i++, lowest--)
		if (peek(cell_of(end, lowest - 1)->stamp) !=
		    stamp_of(lowest - 1, CELL_FREE))
			break;
	return lowest;
}

/* May this process claim an end that somebody has claimed already? */
static bool claim_is_ours(uint64_t claim)
{
	uint64_t address = claim & ADDRESS_MASK;

	/* A process that had our slot before us may have left one. */
	return !address || address >> RPAL_SLOT_SHIFT == rpal_own.id;
}

/* Guarded. */
static long find_end(void *argument)
{
	struct errand *errand = argument;
	struct rpal_writer *writer = errand->writer;
	uint64_t claim, claimed;
	struct rpal_end *end;

	if (peek(errand->directory->version) != QUEUE_VERSION)
		return -EPROTO;
	end = (void *)(uintptr_t)peek(errand->directory->end[writer->fd]);
	if (!end)
		return -EAGAIN;
	if (!rpal_of_peer(writer->peer, end, sizeof(*end)))
		return -EPROTO;
	writer->end = end;
	writer->name = peek(end->name);
	if (!writer->name || writer->name >> 32 != (uint32_t)writer->fd)
		return -EAGAIN;

	/* The generation changes with the name, so this claims what was found. */
	claim = peek(end->writer);
	if (!claim_is_ours(claim))
		return -EBUSY;
	claimed = (claim & ~ADDRESS_MASK) | (uintptr_t)errand->own_end;
	if (peek(end->name) != writer->name ||
	    (claim != claimed && !change(&end->writer, claim, claimed)))
		return -EAGAIN;
	writer->tail = find_tail(end);
	return 0;
}

static struct rpal_writer *writer_alloc(void)
{
	struct rpal_writer *writer;

	for (writer = all_writers; writer; writer = writer->next)
		if (!writer->opened)
			return writer;
	writer = calloc(1, sizeof(*writer));
	if (!writer)
		return NULL;
	pthread_mutex_init(&writer->lock, NULL);
	writer->next = all_writers;
	all_writers = writer;
	return writer;
}

/* Guarded: is it still what was opened? */
static long check_name(void *argument)
{
	struct errand *errand = argument;
	struct rpal_end *end = errand->writer->end;
	uint64_t place = peek(end->place);
	struct rpal_set *set = (void *)(uintptr_t)(place & ADDRESS_MASK);

	if (peek(end->name) != errand->writer->name)
		return -ESTALE;
	if (set && rpal_of_peer(errand->writer->peer, set, sizeof(*set)))
		errand->receiver = peek(set->receiver);
	return 0;
}

static long on_errand(struct rpal_writer *writer, long (*function)(void *),
		      struct errand *errand)
{
	long ret;

	errand->writer = writer;
	ret = rpal_with_peer(writer->peer, writer->pkey, function, errand);
	return ret == -EFAULT ? -EOWNERDEAD : ret;
}

/* Under writers_mutex: one that has this end open, or a new one. */
static int writer_find(struct rpal_writer **found, const struct rpal_peer *peer,
		       int peer_fd, struct queue *own)
{
	struct errand errand = {
		.directory = (void *)(uintptr_t)peer->meta,
		.own_end = own->end,
	};
	struct rpal_writer *writer;
	long ret;

	for (writer = all_writers; writer; writer = writer->next) {
		if (!writer->opened || writer->peer != peer->id ||
		    writer->fd != peer_fd)
			continue;
		pthread_mutex_lock(&writer->lock);
		ret = on_errand(writer, check_name, &errand);
		pthread_mutex_unlock(&writer->lock);
		if (ret)
			continue;
		writer->opened++;
		*found = writer;
		return 0;
	}

	writer = writer_alloc();
	if (!writer)
		return -ENOMEM;
	pthread_mutex_lock(&writer->lock);
	writer->peer = peer->id;
	writer->pkey = peer->pkey;
	writer->fd = peer_fd;
	writer->own_fd = own->fd;
	ret = on_errand(writer, find_end, &errand);
	writer->opened = !ret;
	pthread_mutex_unlock(&writer->lock);
	*found = writer;
	return ret;
}

int rpal_writer_open(struct rpal_writer **writer, const struct rpal_peer *peer,
		     int fd)
{
	struct rpal_peer_fd other = { .fd = fd, .id = peer->id };
	struct queue *own;
	int ret;

	if (!rpal_self.control)
		return -EPERM;
	ret = rpal_ioctl(RPAL_IOC_PEER_FD, &other);
	if (ret)
		return ret;
	if (other.peer_fd >= QUEUE_FDS)
		return -ERANGE;
	if (!rpal_of_peer(peer->id, (void *)(uintptr_t)peer->meta,
			  sizeof(struct rpal_directory)))
		return -EPROTO;

	/* Our own end is where the peer tells us that there is room. */
	pthread_mutex_lock(&rpal_queue_mutex);
	ret = rpal_queue_open(fd, &own);
	pthread_mutex_unlock(&rpal_queue_mutex);
	if (ret)
		return ret;

	pthread_mutex_lock(&writers_mutex);
	ret = writer_find(writer, peer, other.peer_fd, own);
	pthread_mutex_unlock(&writers_mutex);
	return ret;
}

void rpal_writer_close(struct rpal_writer *writer)
{
	pthread_mutex_lock(&writers_mutex);
	writer->opened--;
	pthread_mutex_unlock(&writers_mutex);
}

int rpal_writer_info(struct rpal_writer *writer, struct rpal_writer_info *info)
{
	struct errand errand = { 0 };
	long ret;

	pthread_mutex_lock(&writer->lock);
	ret = on_errand(writer, check_name, &errand);
	*info = (struct rpal_writer_info){
		.peer = writer->peer,
		.fd = writer->fd,
		.name = writer->name,
		.receiver = errand.receiver,
	};
	pthread_mutex_unlock(&writer->lock);
	return ret;
}

/*
 * Guarded. Says that we wait until all positions below this one can be written,
 * and where to tell us: our descriptor may have another queue by now.
 */
static void want_room(struct rpal_end *end, struct rpal_end *own_end,
		      uint64_t position)
{
	uint64_t claim = peek(end->writer);
	uint64_t claimed = (claim & ~ADDRESS_MASK) | (uintptr_t)own_end;

	if (claim != claimed && claim_is_ours(claim))
		change(&end->writer, claim, claimed);
	/* That there was room once is no news any more. */
	poke(own_end->room, 0);
	swap(end->want, position);
}

static bool writable(struct rpal_cell cell, uint64_t position)
{
	return cell.stamp == stamp_of(position, CELL_FREE) ||
	       cell.stamp == stamp_of(position, CELL_REST);
}

/* Guarded. From the last word to the first: see queue_memory.h. */
static long put_words(void *argument)
{
	struct errand *errand = argument;
	struct rpal_writer *writer = errand->writer;
	struct rpal_end *end = writer->end;

	if (peek(end->name) != writer->name)
		return -ESTALE;
	for (unsigned int i = errand->n; i-- > 0;) {
		uint64_t position = writer->tail + i;
		struct rpal_cell *cell = cell_of(end, position);
		struct rpal_cell from = { peek(cell->stamp), peek(cell->word) };
		struct rpal_cell to = {
			stamp_of(position, i ? CELL_REST : errand->n),
			errand->words[i]
		};

		if (writable(from, position) && cell_change(cell, from, to))
			continue;
		if (peek(end->name) != writer->name)
			return -ESTALE;
		/* The reader frees in order: it is the last that is not free. */
		if (i != errand->n - 1)
			return -EPROTO;
		if (!errand->own_end)
			return -EAGAIN;
		/* Full barrier, then another look: see room_for(). */
		want_room(end, errand->own_end, position + 1);
		errand->own_end = NULL;
		i++;
	}
	writer->tail += errand->n;
	errand->sleeper = rpal_raise_news(writer->peer, end);
	return 0;
}

static void count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* The receiver of a peer that has words now. Not under any lock. */
static int call_sleeper(struct rpal_writer *writer, uint32_t peer, uint32_t pkey,
			uint32_t tid)
{
	struct rpal_target target;

	if (rpal_target_init(&target, tid, pkey) || target.service != peer)
		return 0;
	switch (rpal_notify(&target)) {
	case -EOWNERDEAD:
		return -EOWNERDEAD;
	case -ESRCH:
		/* The thread has gone. Who waits next will find the words. */
		return 0;
	case -EBUSY:
		count(&writer->woken);
		return 0;
	case -EINPROGRESS:
		count(&writer->handed_back);
		break;
	}
	count(&writer->called);
	return 0;
}

/*
 * Our end, to be told of room: whether somebody wants to know of that may be
 * decided when there was none. It may change at any time.
 */
static struct rpal_end *room_watcher(const struct rpal_writer *writer)
{
	struct queue *own = rpal_queue_of(writer->own_fd);

	return own ? own->end : NULL;
}

int rpal_queue_put(struct rpal_writer *writer, const uint64_t *words,
		   unsigned int n)
{
	struct errand errand = { .words = words, .n = n };
	uint32_t peer, pkey;
	long ret;

	if (n < 1 || n > RPAL_PUT_WORDS)
		return -EINVAL;
	if (!(rpal_self.roles & RPAL_ROLE_SENDER))
		return -EPERM;

	pthread_mutex_lock(&writer->lock);
	errand.own_end = room_watcher(writer);
	ret = on_errand(writer, put_words, &errand);
	writer->put += ret ? 0 : n;
	writer->refused += ret == -EAGAIN;
	peer = writer->peer;
	pkey = writer->pkey;
	pthread_mutex_unlock(&writer->lock);

	if (!ret && errand.sleeper > 0)
		ret = call_sleeper(writer, peer, pkey, errand.sleeper);
	return ret ? ret : (int)n;
}

void rpal_queue_counters(struct rpal_queue_counters *counters)
{
	*counters = (struct rpal_queue_counters){ 0 };
	pthread_mutex_lock(&rpal_queue_mutex);
	rpal_queue_count(counters);
	rpal_set_count(counters);
	pthread_mutex_unlock(&rpal_queue_mutex);
	pthread_mutex_lock(&writers_mutex);
	for (struct rpal_writer *w = all_writers; w; w = w->next) {
		counters->put += w->put;
		counters->refused += w->refused;
		counters->called += w->called;
		counters->handed_back += w->handed_back;
		counters->woken += w->woken;
	}
	pthread_mutex_unlock(&writers_mutex);
}
