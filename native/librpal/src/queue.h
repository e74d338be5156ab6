/* SPDX-License-Identifier: MIT */
/*
 * librpal: what the files of the queues share; all of it private to the process.
 * queue_memory.h has what peers see.
 *
 * Lock order: rpal_queue_mutex, the lock of a set, the lock of a queue. The lock
 * of a writer is taken with none of them held. None is held in a call.
 *
 * Queues, sets and writers are never freed, only used again: whoever finds one
 * locks it and then looks what it is.
 */
#ifndef RPAL_QUEUES_H
#define RPAL_QUEUES_H

#include <pthread.h>
#include <sys/types.h>

#include "guard.h"
#include "queue_memory.h"

#define HIDDEN	__attribute__((visibility("hidden")))

/* Changes of who has which queue, and of membership in sets. */
extern pthread_mutex_t rpal_queue_mutex HIDDEN;

/* A descriptor of this process and its end. */
struct queue {
	pthread_mutex_t lock;		/* of all that is not constant */
	struct rpal_end *end;		/* constant */
	int fd;				/* -1: free */
	dev_t device;			/* of the file, to know it again */
	ino_t inode;

	uint64_t head;			/* position of the next word to take */
	unsigned int there;		/* words known to be there from head on */
	uint64_t verified;		/* end.writer, found to be the other end */

	/* Membership: changed under the set's lock as well. */
	struct queue_set *set;		/* NULL: in none */
	unsigned int member;
	struct epoll_event event;	/* as given to rpal_queue_ctl() */
	bool armed;			/* somebody wants to know: see arm() */

	uint64_t taken;
	struct queue *next;		/* of all queues */
	struct queue *next_free;
};

/* An epoll file through which queues are watched. */
struct queue_set {
	pthread_mutex_t lock;
	struct rpal_set *shared;	/* constant */
	int epfd;
	/*
	 * An eventfd that the epoll file watches. It wakes the own receiver for
	 * news that this process itself makes, and tells whether epfd is still
	 * the same file.
	 */
	int doorbell;

	/* Members that have to be looked at, taken from *shared or left over. */
	uint64_t group;
	uint64_t pending[SET_MEMBERS / 64];
	unsigned int next_member;	/* where the next report begins */
	bool queues_first;		/* whose turn it is when there is no room */
	bool starved;			/* a call took the room */
	unsigned int first_free;	/* no free member below this */
	struct queue *member[SET_MEMBERS];

	uint64_t reported;
	uint64_t notified;
	struct queue_set *next;		/* of all sets */
};

/* What this process knows by descriptor; allocated with the first queue. */
struct queue_tables {
	struct queue *queue[QUEUE_FDS];
	struct queue_set *set[QUEUE_FDS];
};

extern struct queue_tables *rpal_queue_tables HIDDEN;

/* queue.c */
struct queue *rpal_queue_of(int fd) HIDDEN;
int rpal_queue_open(int fd, struct queue **queue) HIDDEN;
void rpal_queue_close(struct queue *queue) HIDDEN;
bool rpal_queue_has_words(struct queue *queue) HIDDEN;
int rpal_queue_tables_make(void) HIDDEN;
void *rpal_queue_memory(size_t bytes) HIDDEN;
void rpal_queue_count(struct rpal_queue_counters *counters) HIDDEN;
void rpal_queue_forget_peer(uint32_t peer) HIDDEN;
void rpal_queue_forget_all(void) HIDDEN;

/* queue_set.c */
int rpal_set_collect(struct queue_set *set, struct epoll_event *events,
		     int maxevents) HIDDEN;
bool rpal_set_has_news(const struct queue_set *set) HIDDEN;
void rpal_set_mark(struct queue_set *set, unsigned int member) HIDDEN;
void rpal_set_leave(struct queue *queue) HIDDEN;
void rpal_set_count(struct rpal_queue_counters *counters) HIDDEN;
int rpal_set_silence(struct queue_set *set, struct epoll_event *events,
		     int n) HIDDEN;

/* queue_wait.c */
int rpal_queue_wait(struct queue_set *set, struct epoll_event *events,
		    int maxevents, int64_t deadline, bool at_once) HIDDEN;

/* queue_news.c */
long rpal_raise_news(uint32_t peer, struct rpal_end *end) HIDDEN;
bool rpal_of_peer(uint32_t peer, const void *address, size_t bytes) HIDDEN;
void rpal_tell_room(struct queue *queue, uint64_t writer) HIDDEN;

/* The set that is watched through an epoll file, or NULL. */
static inline struct queue_set *rpal_set_of(int epfd)
{
	struct queue_tables *tables = peek(rpal_queue_tables);

	if (likely(!tables) || (unsigned int)epfd >= QUEUE_FDS)
		return NULL;
	return peek(tables->set[epfd]);
}

#endif /* RPAL_QUEUES_H */
