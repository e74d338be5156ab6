/* SPDX-License-Identifier: MIT */
/* librpal: what the files behind rpal_compat.h share. */
#ifndef RPAL_COMPAT_INTERNAL_H
#define RPAL_COMPAT_INTERNAL_H

#include <errno.h>
#include <pthread.h>

#include "queue.h"
#include "rpal_compat.h"

/* Requests, releases, maps. Recursive: see rpal_clean_service_start(). */
extern pthread_mutex_t rpal_compat_mutex HIDDEN;

/* rpal_init() was called, and rpal_exit() was not. */
bool rpal_compat_ready(void) HIDDEN;

/* A requested peer, or NULL. Stays valid, but may become another's. */
const struct rpal_peer *rpal_compat_peer(unsigned int id) HIDDEN;

/* Gives up what was mapped of a peer. Under rpal_compat_mutex. */
void rpal_compat_unmap(unsigned int id) HIDDEN;

/* Opens once more what rpal_copy_prepare() had opened: calls close it. */
void rpal_compat_reopen(void) HIDDEN;

static inline int compat_fail(int error)
{
	errno = error;
	return -1;
}

#endif /* RPAL_COMPAT_INTERNAL_H */
