// SPDX-License-Identifier: MIT
/* rpal_compat.h: the process as a service, its threads and its peers. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "compat.h"

pthread_mutex_t rpal_compat_mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

/* All under rpal_compat_mutex. */
static int receivers_allowed, receivers_now;
/*
 * What rpal_init() returns: an epoll file, readable while the device has ids of
 * peers that have gone, or left_fd says that some which were read from there
 * were not released.
 */
static int management_fd = -1, left_fd = -1;

static struct {
	uint64_t key;
	struct rpal_peer peer;
	bool requested;
	bool gone;
} peers[RPAL_ID_MAX + 1];

static __thread int receiver_fd = -1;

/* Makes a thread that ends give up what it has of rpal_receiver_init(). */
static pthread_key_t receiver_key;

bool rpal_compat_ready(void)
{
	return __atomic_load_n(&management_fd, __ATOMIC_ACQUIRE) >= 0;
}

const struct rpal_peer *rpal_compat_peer(unsigned int id)
{
	return id <= RPAL_ID_MAX && peers[id].requested ? &peers[id].peer : NULL;
}

static rpal_error_code_t open_error(int ret)
{
	switch (ret) {
	case -EPROTO:
		return RPAL_KERNEL_API_NOTSUPPORT;
	case -EPERM:
		return RPAL_ERR_RPAL_DISABLED;
	default:
		return RPAL_ERR_RPALFILE_OPS;
	}
}

static int watch_for_gone(int device)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd = epoll_create1(EPOLL_CLOEXEC);

	left_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd >= 0 && left_fd >= 0 &&
	    !epoll_ctl(fd, EPOLL_CTL_ADD, device, &event) &&
	    !epoll_ctl(fd, EPOLL_CTL_ADD, left_fd, &event))
		return fd;
	close(fd);
	close(left_fd);
	return -1;
}

static int count_receiver(int difference)
{
	int ret = 0;

	pthread_mutex_lock(&rpal_compat_mutex);
	if (receivers_now + difference > receivers_allowed)
		ret = -EUSERS;
	else
		receivers_now += difference;
	pthread_mutex_unlock(&rpal_compat_mutex);
	return ret;
}

static void leave(void *unused)
{
	close(receiver_fd);
	receiver_fd = -1;
	count_receiver(-1);
}

static rpal_error_code_t start(int receivers)
{
	static bool has_key;
	uint64_t directory;
	int device, fd;

	if (receivers <= 0)
		return RPAL_INVALID_ARG;
	if (rpal_compat_ready())
		return RPAL_ERR_NONE;
	if (!has_key && pthread_key_create(&receiver_key, leave))
		return RPAL_ERR_NOMEM;
	has_key = true;
	device = rpal_open();
	if (device < 0)
		return open_error(device);
	directory = rpal_queue_directory();
	if (!directory)
		return RPAL_ERR_NOMEM;
	if (rpal_enable(directory))
		return RPAL_ERR_ENABLE_SERVICE;
	fd = watch_for_gone(device);
	if (fd < 0) {
		rpal_disable();
		return RPAL_ERR_NOMEM;
	}
	receivers_allowed = receivers;
	__atomic_store_n(&management_fd, fd, __ATOMIC_RELEASE);
	return RPAL_ERR_NONE;
}

int rpal_init(int receivers, int flags, rpal_error_code_t *error)
{
	rpal_error_code_t code;

	pthread_mutex_lock(&rpal_compat_mutex);
	code = start(receivers);
	pthread_mutex_unlock(&rpal_compat_mutex);
	if (error)
		*error = code;
	return code ? compat_fail(EINVAL) : management_fd;
}

void rpal_exit(void)
{
	pthread_mutex_lock(&rpal_compat_mutex);
	if (rpal_compat_ready()) {
		rpal_receiver_exit();
		rpal_detach();
		rpal_disable();
		for (unsigned int id = RPAL_ID_MIN; id <= RPAL_ID_MAX; id++)
			if (peers[id].requested)
				rpal_release_service(peers[id].key);
		close(management_fd);
		close(left_fd);
		__atomic_store_n(&management_fd, -1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&rpal_compat_mutex);
}

int rpal_receiver_init(void)
{
	int ret, fd;

	if (!rpal_compat_ready())
		return compat_fail(EPERM);
	if (receiver_fd >= 0)
		return receiver_fd;
	ret = count_receiver(1);
	if (ret)
		return compat_fail(-ret);
	ret = rpal_attach(RPAL_ROLE_RECEIVER);
	fd = ret ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!ret && fd < 0) {
		ret = -errno;
		rpal_give_up(RPAL_ROLE_RECEIVER);
	}
	if (ret) {
		count_receiver(-1);
		return compat_fail(-ret);
	}
	receiver_fd = fd;
	pthread_setspecific(receiver_key, &receiver_fd);
	return fd;
}

int rpal_receiver_exit(void)
{
	if (receiver_fd < 0)
		return compat_fail(EINVAL);
	pthread_setspecific(receiver_key, NULL);
	leave(NULL);
	rpal_give_up(RPAL_ROLE_RECEIVER);
	return 0;
}

status_t rpal_sender_init(rpal_error_code_t *error)
{
	rpal_error_code_t code = RPAL_ERR_NONE;
	int ret = 0;

	if (!rpal_compat_ready()) {
		code = RPAL_DONT_INITED;
		ret = -EPERM;
	} else if (!(rpal_self.roles & RPAL_ROLE_SENDER)) {
		ret = rpal_attach(RPAL_ROLE_SENDER);
		if (ret)
			code = ret == -EUSERS ? RPAL_ERR_REACH_LIMIT :
						RPAL_ERR_SENDER_REG;
	}
	if (error)
		*error = code;
	return ret ? (status_t)compat_fail(-ret) : RPAL_SUCCESS;
}

status_t rpal_sender_exit(void)
{
	int ret = rpal_give_up(RPAL_ROLE_SENDER);

	return ret ? (status_t)compat_fail(-ret) : RPAL_SUCCESS;
}

int rpal_get_service_id(void)
{
	return rpal_compat_ready() ? (int)rpal_own.id : compat_fail(EPERM);
}

status_t rpal_get_service_key(uint64_t *service_key)
{
	if (!rpal_compat_ready())
		return (status_t)compat_fail(EPERM);
	*service_key = rpal_own.key;
	return RPAL_SUCCESS;
}

static int request_error(int ret)
{
	switch (ret) {
	case -ENOENT:
		return RPAL_ERR_NO_SERVICE;
	case -ECONNREFUSED:
		return RPAL_ERR_BAD_SERVICE_STATUS;
	case -EINVAL:
		return RPAL_ERR_BAD_ARG;
	case -ENOMEM:
		return RPAL_ERR_NOMEM;
	default:
		return -ret;
	}
}

/*
 * Reads who has gone, and keeps the management descriptor readable as long as
 * one of them was not released.
 */
static void look_for_gone(void)
{
	uint64_t count = 1;
	bool left = false;
	uint32_t id;

	while (read(rpal_device, &id, sizeof(id)) == sizeof(id))
		if (id <= RPAL_ID_MAX)
			peers[id].gone = true;
	for (id = RPAL_ID_MIN; id <= RPAL_ID_MAX; id++)
		left |= peers[id].requested && peers[id].gone;
	if (left)
		count = write(left_fd, &count, sizeof(count));
	else
		count = read(left_fd, &count, sizeof(count));
}

/* After rpal_queue_forget_peer(): what this file and its maps know of it. */
static void forget_peer(unsigned int id)
{
	rpal_compat_unmap(id);
	look_for_gone();
	peers[id].requested = false;
	peers[id].gone = false;
	look_for_gone();
}

int rpal_request_service(uint64_t key)
{
	struct rpal_peer peer;
	int ret;

	if (!rpal_compat_ready())
		return RPAL_DONT_INITED;
	pthread_mutex_lock(&rpal_compat_mutex);
	ret = rpal_peer_request(key, &peer);
	if (!ret && peer.id <= RPAL_ID_MAX) {
		/* The one that had the id before is gone; the request is not its. */
		if (peers[peer.id].requested && peers[peer.id].key != key) {
			rpal_queue_forget_peer(peer.id);
			forget_peer(peer.id);
		}
		peers[peer.id].key = key;
		peers[peer.id].peer = peer;
		peers[peer.id].requested = true;
	}
	pthread_mutex_unlock(&rpal_compat_mutex);
	return request_error(ret);
}

static unsigned int find_requested(uint64_t key)
{
	for (unsigned int id = RPAL_ID_MIN; id <= RPAL_ID_MAX; id++)
		if (peers[id].requested && peers[id].key == key)
			return id;
	return 0;
}

int rpal_release_service(uint64_t key)
{
	unsigned int id;

	if (!rpal_compat_ready())
		return RPAL_DONT_INITED;
	pthread_mutex_lock(&rpal_compat_mutex);
	id = find_requested(key);
	if (id) {
		/* And its queues. -ENOTCONN: it has gone, or has released us. */
		rpal_peer_release(id);
		forget_peer(id);
	}
	pthread_mutex_unlock(&rpal_compat_mutex);
	return id ? RPAL_ERR_NONE : RPAL_ERR_NO_SERVICE;
}

int rpal_get_request_service_id(uint64_t key)
{
	unsigned int id;

	pthread_mutex_lock(&rpal_compat_mutex);
	id = find_requested(key);
	pthread_mutex_unlock(&rpal_compat_mutex);
	return id ? (int)id : compat_fail(ESRCH);
}

void rpal_clean_service_start(int64_t *token)
{
	static int64_t starts;

	pthread_mutex_lock(&rpal_compat_mutex);
	*token = ++starts;
}

void rpal_clean_service_end(int64_t *token)
{
	if (!*token)
		return;
	*token = 0;
	pthread_mutex_unlock(&rpal_compat_mutex);
}
