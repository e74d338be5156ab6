// SPDX-License-Identifier: MIT
/* librpal: the process as a service, and its peers. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "queue.h"

#define DEVICE	"/dev/rpal"

int rpal_device = -1;
struct rpal_info rpal_own;
bool rpal_smp;
/* By service id, of those that were requested. */
static uint8_t known_pkeys[RPAL_ID_MAX + 1];

static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;

long rpal_ioctl(unsigned long command, const void *arg)
{
	int saved = errno;
	long ret = syscall(SYS_ioctl, rpal_device, command, arg);

	if (ret < 0) {
		ret = -errno;
		errno = saved;
	}
	return ret;
}

int64_t rpal_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int device_open(struct rpal_info *info)
{
	int saved = errno, ret, fd;

	fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		ret = -errno;
		goto out;
	}
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	if (ioctl(fd, RPAL_IOC_INFO, info) < 0)
		ret = errno == ENOTTY ? -EPROTO : -errno;
	else if (info->abi != RPAL_ABI_VERSION)
		ret = -EPROTO;
	else
		ret = fd;
	if (ret < 0)
		close(fd);
out:
	errno = saved;
	return ret;
}

int rpal_probe(struct rpal_info *info)
{
	int fd = device_open(info);

	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int rpal_exec_service(void)
{
	struct rpal_info info;
	int fd = device_open(&info);
	int ret = 0, saved = errno;

	if (fd < 0)
		return fd;
	if (ioctl(fd, RPAL_IOC_NEXT_EXEC, 1) < 0)
		ret = -errno;
	close(fd);
	errno = saved;
	return ret;
}

/* The child of a fork is no service and its threads are not attached. */
static void forget_after_fork(void)
{
	if (rpal_device >= 0)
		close(rpal_device);
	rpal_device = -1;
	memset(&rpal_own, 0, sizeof(rpal_own));
	rpal_self = (struct rpal_self)RPAL_SELF_UNATTACHED;
	rpal_queue_forget_all();
}

int rpal_open(void)
{
	static bool forks_watched;
	int ret = rpal_device;

	if (likely(ret >= 0))
		return ret;

	pthread_mutex_lock(&open_mutex);
	ret = rpal_device;
	if (ret >= 0)
		goto unlock;
	ret = device_open(&rpal_own);
	if (ret < 0)
		goto unlock;
	if (!(rpal_own.caps & RPAL_CAP_SERVICE)) {
		close(ret);
		ret = -EPERM;
		goto unlock;
	}
	if (!forks_watched)
		pthread_atfork(NULL, NULL, forget_after_fork);
	forks_watched = true;
	rpal_smp = get_nprocs() > 1;
	rpal_device = ret;
unlock:
	pthread_mutex_unlock(&open_mutex);
	return ret;
}

const struct rpal_info *rpal_service(void)
{
	return rpal_device >= 0 ? &rpal_own : NULL;
}

int rpal_enable(uint64_t meta)
{
	return rpal_device < 0 ? -EPERM : rpal_ioctl(RPAL_IOC_ENABLE, &meta);
}

int rpal_disable(void)
{
	return rpal_device < 0 ? -EPERM : rpal_ioctl(RPAL_IOC_DISABLE, NULL);
}

int rpal_peer_request(uint64_t key, struct rpal_peer *peer)
{
	struct rpal_request request = { .key = key };
	int ret;

	if (rpal_device < 0)
		return -EPERM;
	ret = rpal_ioctl(RPAL_IOC_REQUEST, &request);
	if (ret < 0)
		return ret;
	if (request.id <= RPAL_ID_MAX)
		__atomic_store_n(&known_pkeys[request.id], request.pkey,
				 __ATOMIC_RELAXED);
	peer->id = request.id;
	peer->pkey = request.pkey;
	peer->meta = request.meta;
	peer->linked = !!(request.flags & RPAL_PEER_LINKED);
	return 0;
}

int rpal_peer_release(uint32_t id)
{
	int ret;

	if (rpal_device < 0)
		return -EPERM;
	ret = rpal_ioctl(RPAL_IOC_RELEASE, (void *)(uintptr_t)id);
	/* Also if it has gone by itself. */
	if (!ret || ret == -ENOTCONN)
		rpal_queue_forget_peer(id);
	return ret;
}

uint32_t rpal_known_pkey(uint32_t id)
{
	return id <= RPAL_ID_MAX ?
		       __atomic_load_n(&known_pkeys[id], __ATOMIC_RELAXED) :
		       0;
}
