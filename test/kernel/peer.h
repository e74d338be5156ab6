/* SPDX-License-Identifier: MIT */
/*
 * A service that does what the test tells it, one command at a time, so that
 * the test can play with several services and their memory.
 */
#ifndef PEER_H
#define PEER_H

#include "service.h"

enum command {
	REQUEST, /* key: returns error; then peer_reply has the rest */
	RELEASE, /* id */
	ENABLE,
	DISABLE,
	LOAD,		 /* address, pkey: the value, or the fault in faulted */
	STORE,		 /* address, pkey, value */
	WRITE_FILE,	 /* address, pkey: write(2) it to a pipe; the value */
	READ_FILE,	 /* address, pkey, value: read(2) it from a pipe */
	DIRECT,		 /* address, pkey: GUP of it by vmsplice */
	MAP,		 /* size, flags: a private anonymous mapping */
	MAP_SHARED_FILE, /* size, value: twice the size of a file with value */
	UNMAP,		 /* address, size */
	ADVISE,		 /* address, size, advice */
	PROTECT,	 /* address, size, protection */
	FORK_STORE,	 /* address, value: fork, then store while it lives */
	USE_STACK,	 /* an address deep below the current stack pointer */
	POLL_GONE,	 /* milliseconds: whether /dev/rpal is readable */
	READ_GONE,	 /* the id that is read there, or -errno */
	SET_DUMPABLE,	 /* 0 or 1 */
	SET_UID,
	EXEC_PLAIN, /* execs, then is no service */
	COMMANDS
};

struct order {
	uint64_t command, a, b, c;
};

struct answer {
	int64_t value, more;
	uint32_t fault, pad;
};

static int my_device, my_socket;

#include <sys/prctl.h>
#include <sys/uio.h>

static uint64_t map_file(size_t size, uint64_t value)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	uint64_t address;

	if (fd < 0 || ftruncate(fd, size) || pwrite(fd, &value, sizeof(value), 0) != sizeof(value))
		return 0;
	address = (uint64_t)mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return address;
}

static int64_t pipe_write(uint64_t address)
{
	uint64_t value = 0;
	int pipes[2];
	int64_t ret;

	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	ret = result(write(pipes[1], (void *)address, sizeof(value)));
	if (ret == sizeof(value))
		ret = read(pipes[0], &value, sizeof(value)) == sizeof(value) ? (int64_t)value
									     : -EIO;
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

static int64_t pipe_read(uint64_t address, uint64_t value)
{
	int pipes[2];
	int64_t ret;

	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	if (write(pipes[1], &value, sizeof(value)) != sizeof(value))
		return -EIO;
	ret = result(read(pipes[0], (void *)address, sizeof(value)));
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

static int64_t splice_pages(uint64_t address)
{
	struct iovec pages = { (void *)address, 4096 };
	int pipes[2];
	int64_t ret;

	if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	ret = result(vmsplice(pipes[1], &pages, 1, SPLICE_F_NONBLOCK));
	close(pipes[0]);
	close(pipes[1]);
	return ret;
}

/* The page is shared with a child while it is written: it is copied. */
static int64_t fork_store(uint64_t address, uint64_t value)
{
	int pipes[2];
	pid_t pid;
	char c;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (!pid) {
		close(pipes[1]);
		_exit(read(pipes[0], &c, 1));
	}
	*(volatile uint64_t *)address = value;
	close(pipes[0]);
	close(pipes[1]);
	waitpid(pid, NULL, 0);
	return 0;
}

static struct answer obey(const struct order *order)
{
	struct answer answer = {};
	struct rpal_request asked;
	struct pollfd poll_gone = { .fd = my_device, .events = POLLIN };
	uint64_t meta = 0x4d455441;
	volatile int64_t value = 0;
	volatile uint32_t old;
	uint32_t id;

	switch (order->command) {
	case REQUEST:
		answer.value = request(my_device, order->a, &asked);
		answer.more = asked.flags;
		break;
	case RELEASE:
		answer.value = result(ioctl(my_device, RPAL_IOC_RELEASE, order->a));
		break;
	case ENABLE:
		answer.value = result(ioctl(my_device, RPAL_IOC_ENABLE, &meta));
		break;
	case DISABLE:
		answer.value = result(ioctl(my_device, RPAL_IOC_DISABLE));
		break;
	case LOAD:
		old = open_key(order->b);
		answer.fault = FAULTS(value = *(volatile int64_t *)order->a);
		write_pkru(old);
		answer.value = value;
		break;
	case STORE:
		old = open_key(order->b);
		answer.fault = FAULTS(*(volatile int64_t *)order->a = order->c);
		write_pkru(old);
		break;
	case WRITE_FILE:
		old = open_key(order->b);
		answer.value = pipe_write(order->a);
		write_pkru(old);
		break;
	case READ_FILE:
		old = open_key(order->b);
		answer.value = pipe_read(order->a, order->c);
		write_pkru(old);
		break;
	case DIRECT:
		old = open_key(order->b);
		answer.value = splice_pages(order->a);
		write_pkru(old);
		break;
	case MAP:
		answer.value = result(mmap(NULL, order->a, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | order->b, -1, 0));
		break;
	case MAP_SHARED_FILE:
		answer.value = map_file(order->a, order->b);
		break;
	case UNMAP:
		answer.value = result(munmap((void *)order->a, order->b));
		break;
	case ADVISE:
		answer.value = result(madvise((void *)order->a, order->b, order->c));
		break;
	case PROTECT:
		answer.value = result(mprotect((void *)order->a, order->b, order->c));
		break;
	case FORK_STORE:
		answer.value = fork_store(order->a, order->b);
		break;
	case USE_STACK:
		answer.value = (int64_t)__builtin_frame_address(0) - (1 << 20);
		break;
	case POLL_GONE:
		answer.value = result(poll(&poll_gone, 1, order->a));
		break;
	case READ_GONE:
		answer.value = result(read(my_device, &id, sizeof(id)));
		if (answer.value == sizeof(id))
			answer.value = id;
		break;
	case SET_DUMPABLE:
		answer.value = result(prctl(PR_SET_DUMPABLE, order->a));
		break;
	case SET_UID:
		answer.value = result(setuid(order->a));
		break;
	case EXEC_PLAIN:
		fcntl(my_socket, F_SETFD, FD_CLOEXEC);
		execl("/proc/self/exe", "plain", "wait", "0", NULL);
		answer.value = -errno;
		break;
	}
	return answer;
}

/* The role. */
static int peer_role(int socket)
{
	struct rpal_info info;
	struct order order;
	struct answer answer;

	my_socket = socket;
	my_device = introduce(socket, &info);
	while (read(socket, &order, sizeof(order)) == sizeof(order)) {
		answer = obey(&order);
		if (write(socket, &answer, sizeof(answer)) != sizeof(answer))
			return 1;
	}
	return 0;
}

static inline int wait_role(int socket)
{
	pause();
	return 0;
}

static struct answer last;

static int64_t tell(struct child *peer, enum command command, uint64_t a, uint64_t b, uint64_t c)
{
	struct order order = { command, a, b, c };

	if (write(peer->socket, &order, sizeof(order)) != sizeof(order) ||
	    read(peer->socket, &last, sizeof(last)) != sizeof(last)) {
		memset(&last, 0xff, sizeof(last));
		return -EPIPE;
	}
	return last.value;
}

/* Loads or stores by @peer in memory of @owner; -1000 - si_code if refused. */
static inline int64_t load(struct child *peer, struct child *owner, uint64_t address)
{
	tell(peer, LOAD, address, owner->info.pkey, 0);
	return last.fault ? -1000 - (int64_t)last.fault : last.value;
}

static inline int64_t store(struct child *peer, struct child *owner, uint64_t address,
			    uint64_t value)
{
	tell(peer, STORE, address, owner->info.pkey, value);
	return last.fault ? -1000 - (int64_t)last.fault : 0;
}

#define NO_MEMORY (-1000 - SEGV_MAPERR)
#define NO_ACCESS (-1000 - SEGV_ACCERR)
#define NO_FILE	  (-1100 - BUS_ADRERR)
#define NO_KEY	  (-1000 - SEGV_PKUERR)

static inline struct child start_peer(void)
{
	struct child child = spawn("peer", true);

	meet(&child);
	return child;
}

static inline void link_peers(struct child *a, struct child *b)
{
	if (tell(a, REQUEST, b->info.key, 0, 0) || tell(b, REQUEST, a->info.key, 0, 0) ||
	    !(last.more & RPAL_PEER_LINKED)) {
		errno = -last.value;
		bail_out("two services did not link");
	}
}

#endif
