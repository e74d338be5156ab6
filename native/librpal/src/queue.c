// SPDX-License-Identifier: MIT
/* librpal: the queues of this process's descriptors, and taking words. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "queue.h"

pthread_mutex_t rpal_queue_mutex = PTHREAD_MUTEX_INITIALIZER;
struct queue_tables *rpal_queue_tables;

/* Under rpal_queue_mutex. */
static struct rpal_directory *directory;
static struct queue *all_queues, *free_queues;

/* Memory that is zero, and costs nothing where it is not touched. */
void *rpal_queue_memory(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int rpal_queue_tables_make(void)
{
	struct queue_tables *tables;

	if (!directory) {
		directory = rpal_queue_memory(sizeof(*directory));
		if (!directory)
			return -ENOMEM;
		poke(directory->version, QUEUE_VERSION);
	}
	if (!rpal_queue_tables) {
		tables = rpal_queue_memory(sizeof(*tables));
		if (!tables)
			return -ENOMEM;
		poke(rpal_queue_tables, tables);
	}
	return 0;
}

uint64_t rpal_queue_directory(void)
{
	uint64_t address;

	pthread_mutex_lock(&rpal_queue_mutex);
	rpal_queue_tables_make();
	address = (uintptr_t)directory;
	pthread_mutex_unlock(&rpal_queue_mutex);
	return address;
}

/* The queue that a descriptor had a moment ago, or NULL. */
struct queue *rpal_queue_of(int fd)
{
	struct queue_tables *tables = peek(rpal_queue_tables);

	if (!tables || fd < 0 || fd >= QUEUE_FDS)
		return NULL;
	return peek(tables->queue[fd]);
}

/* Ends of one size class, many at a time: they are more than a page. */
static struct rpal_end *end_alloc(void)
{
	static struct rpal_end *chunk;
	static unsigned int left;

	if (!left) {
		chunk = rpal_queue_memory(64 * sizeof(*chunk));
		if (!chunk)
			return NULL;
		left = 64;
	}
	return &chunk[--left];
}

static struct queue *queue_alloc(void)
{
	struct queue *queue = free_queues;

	if (queue) {
		free_queues = queue->next_free;
		return queue;
	}
	queue = calloc(1, sizeof(*queue));
	if (!queue)
		return NULL;
	queue->end = end_alloc();
	if (!queue->end) {
		free(queue);
		return NULL;
	}
	pthread_mutex_init(&queue->lock, NULL);
	queue->fd = -1;
	queue->next = all_queues;
	all_queues = queue;
	return queue;
}

/*
 * Makes the cells those of positions that were never used: whatever a late
 * writer is about to do, it expects others.
 */
static void clear_cells(struct queue *queue)
{
	uint64_t first = (queue->head / RPAL_QUEUE_WORDS + 2) * RPAL_QUEUE_WORDS;

	for (unsigned int i = 0; i < RPAL_QUEUE_WORDS; i++)
		poke(queue->end->cell[i].stamp, stamp_of(first + i, CELL_FREE));
	queue->head = first;
	queue->there = 0;
}

static uint64_t name_next(int fd)
{
	static uint32_t last;

	/*
	 * Odd, so that all 2^32 come, and not one more than the last: a name
	 * that somebody has spoilt should not be the next.
	 */
	last += 0x9e3779b1;
	/* No name is 0. */
	return (uint64_t)fd << 32 | (last ? last : last - 1);
}

static uint64_t writer_generation(uint64_t writer)
{
	return writer & ~ADDRESS_MASK;
}

/*
 * The queue of an open descriptor, made if it has none. The descriptor may have
 * been closed and opened again meanwhile: then what is there is another's.
 * Under rpal_queue_mutex.
 */
int rpal_queue_open(int fd, struct queue **found)
{
	struct queue *queue;
	struct stat file;
	int ret, saved = errno;

	if (fd >= QUEUE_FDS)
		return -ERANGE;
	if (fstat(fd, &file) < 0) {
		ret = -errno;
		errno = saved;
		return ret;
	}
	ret = rpal_queue_tables_make();
	if (ret)
		return ret;

	queue = rpal_queue_tables->queue[fd];
	if (queue) {
		if (queue->device == file.st_dev && queue->inode == file.st_ino) {
			*found = queue;
			return 0;
		}
		rpal_queue_close(queue);
	}
	queue = queue_alloc();
	if (!queue)
		return -ENOMEM;
	pthread_mutex_lock(&queue->lock);
	queue->fd = fd;
	queue->device = file.st_dev;
	queue->inode = file.st_ino;
	queue->verified = 0;
	queue->event.events = 0;
	clear_cells(queue);
	poke(queue->end->room, 0);
	poke(queue->end->want, 0);
	poke(queue->end->name, name_next(fd));
	pthread_mutex_unlock(&queue->lock);
	poke(rpal_queue_tables->queue[fd], queue);
	poke(directory->end[fd], (uintptr_t)queue->end);
	*found = queue;
	return 0;
}

/* Under rpal_queue_mutex. */
void rpal_queue_close(struct queue *queue)
{
	struct rpal_end *end = queue->end;
	uint64_t writer, waiting;

	rpal_set_leave(queue);
	pthread_mutex_lock(&queue->lock);
	poke(directory->end[queue->fd], 0);
	poke(rpal_queue_tables->queue[queue->fd], NULL);
	/* In this order: a writer that finds no room then finds no name. */
	poke(end->name, 0);
	clear_cells(queue);
	writer = swap(end->writer, writer_generation(peek(end->writer)) +
				   (1ULL << ADDRESS_BITS));
	waiting = swap(end->want, 0);
	/* It sees that the queue is closed when it tries again. */
	if (waiting)
		rpal_tell_room(queue, writer);
	queue->fd = -1;
	pthread_mutex_unlock(&queue->lock);
	queue->next_free = free_queues;
	free_queues = queue;
}

/*
 * Counts the words of the next put, if it is there as a whole. Under the lock
 * of the queue.
 */
static unsigned int look_at_put(struct queue *queue)
{
	uint64_t stamp = peek(cell_of(queue->end, queue->head)->stamp);
	unsigned int words = stamp & 0xff;

	if (stamp >> 8 != queue->head || words < 1 || words > RPAL_PUT_WORDS)
		return 0;
	for (unsigned int i = 1; i < words; i++)
		if (peek(cell_of(queue->end, queue->head + i)->stamp) !=
		    stamp_of(queue->head + i, CELL_REST))
			return 0;
	return words;
}

/* Under the lock of the queue. */
bool rpal_queue_has_words(struct queue *queue)
{
	if (!queue->there)
		queue->there = look_at_put(queue);
	return queue->there;
}

/*
 * Is a writer waiting, and is there what it waits for? Its claim, or 0. Under
 * the lock of the queue, after cells became free.
 */
static uint64_t room_for(struct queue *queue)
{
	struct rpal_end *end = queue->end;
	uint64_t want;

	/* The cells are free before the look: pairs with "want" in put(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	want = peek(end->want);
	if (likely(!want) || want > queue->head + RPAL_QUEUE_WORDS)
		return 0;
	return swap(end->want, 0) ? peek(end->writer) : 0;
}

int rpal_queue_take(int fd, uint64_t *words, unsigned int n)
{
	struct queue *queue = rpal_queue_of(fd);
	unsigned int taken = 0;
	uint64_t writer = 0;

	if (!queue)
		return -EBADF;
	pthread_mutex_lock(&queue->lock);
	if (queue->fd != fd) {
		pthread_mutex_unlock(&queue->lock);
		return -EBADF;
	}
	while (taken < n && rpal_queue_has_words(queue)) {
		struct rpal_cell *cell = cell_of(queue->end, queue->head);

		words[taken++] = peek(cell->word);
		poke(cell->stamp, stamp_of(queue->head + RPAL_QUEUE_WORDS,
					   CELL_FREE));
		queue->head++;
		queue->there--;
	}
	queue->taken += taken;
	if (taken)
		writer = room_for(queue);
	if (unlikely(writer))
		rpal_tell_room(queue, writer);
	pthread_mutex_unlock(&queue->lock);
	return taken;
}

/* Under rpal_queue_mutex. */
void rpal_queue_count(struct rpal_queue_counters *counters)
{
	for (struct queue *queue = all_queues; queue; queue = queue->next)
		counters->taken += queue->taken;
}

/* The peer has gone: nobody writes to the queues that it wrote to. */
void rpal_queue_forget_peer(uint32_t peer)
{
	struct queue *queue;
	uint64_t writer;

	pthread_mutex_lock(&rpal_queue_mutex);
	for (queue = all_queues; queue; queue = queue->next) {
		writer = peek(queue->end->writer);
		if ((writer & ADDRESS_MASK) >> RPAL_SLOT_SHIFT == peer)
			change(&queue->end->writer, writer,
			       writer_generation(writer));
	}
	pthread_mutex_unlock(&rpal_queue_mutex);
}

/* In the child of a fork, which is no service. Its memory is its own now. */
void rpal_queue_forget_all(void)
{
	pthread_mutex_init(&rpal_queue_mutex, NULL);
	rpal_queue_tables = NULL;
	directory = NULL;
	all_queues = NULL;
	free_queues = NULL;
}
