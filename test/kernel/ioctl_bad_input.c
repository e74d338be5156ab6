// SPDX-License-Identifier: MIT
/* guest: cpus=1 debug timeout=60 */
/* Whatever one says to /dev/rpal: a clear error, and nothing has happened. */
#include "peer.h"

static void *const volatile bad_pointer = (void *)8;
#define BAD bad_pointer

static struct rpal_info me;
static int fd;

static long call(unsigned long command, const void *argument)
{
	return result(ioctl(fd, command, argument));
}

static void test_info(void)
{
	struct {
		struct rpal_info info;
		uint64_t after;
	} big = {};
	char *edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(edge + 4096, 4096);
	is(call(RPAL_IOC_INFO, NULL), -EFAULT, "INFO without a buffer");
	is(call(RPAL_IOC_INFO, BAD), -EFAULT, "INFO to a bad pointer");
	is(call(RPAL_IOC_INFO, (void *)~0UL), -EFAULT, "INFO to the kernel");
	is(call(RPAL_IOC_INFO, edge + 4096 - 4), -EINVAL, "INFO of size 0 at the end of a page");
	*(uint32_t *)(edge + 4096 - 16) = sizeof(struct rpal_info);
	is(call(RPAL_IOC_INFO, edge + 4096 - 16), -EFAULT, "INFO across the end of a mapping");
	*(uint32_t *)(edge + 4096 - 16) = 16;
	is(call(RPAL_IOC_INFO, edge + 4096 - 16), 0, "a short INFO fits there");
	is(*(uint32_t *)(edge + 4096 - 16), sizeof(struct rpal_info),
	   "and says how long it could be");
	big.info.size = 15;
	is(call(RPAL_IOC_INFO, &big), -EINVAL, "INFO that is too short");
	is(big.info.abi, 0, "writes nothing");
	memset(&big, 0x55, sizeof(big));
	big.info.size = sizeof(big);
	is(call(RPAL_IOC_INFO, &big), 0, "INFO from a newer header");
	ok(big.after == 0x5555555555555555 && big.info.size == sizeof(me),
	   "writes only what is known");
	is(big.info.abi, RPAL_ABI_VERSION, "version");
}

static void test_commands(void)
{
	int bad = 0;

	for (unsigned int nr = 0; nr < 256; nr++) {
		if (nr >= 0x40 && nr <= 0x4e)
			continue;
		bad += call(_IO(RPAL_IOC_MAGIC, nr), 0) != -ENOTTY;
		bad += call(_IOWR(RPAL_IOC_MAGIC, nr, struct rpal_info), &me) != -ENOTTY;
	}
	is(bad, 0, "unknown commands");
	is(call(_IOR(RPAL_IOC_MAGIC, 0x40, struct rpal_info), &me), -ENOTTY,
	   "a known one in another direction");
	is(call(_IOWR(RPAL_IOC_MAGIC, 0x40, char), &me), -ENOTTY, "or of another size");
	is(call(_IOWR('x', 0x40, struct rpal_info), &me), -ENOTTY, "or of another driver");
	is(call(RPAL_IOC_NEXT_EXEC, (void *)2), -EINVAL, "NEXT_EXEC of 2");
	is(call(RPAL_IOC_NEXT_EXEC, (void *)~0UL), -EINVAL, "of -1");
}

static void test_requests(void)
{
	struct rpal_request *request, copy;
	struct child b = start_peer();
	char c;

	request = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	is(call(RPAL_IOC_ENABLE, NULL), -EFAULT, "ENABLE without meta");
	is(call(RPAL_IOC_ENABLE, BAD), -EFAULT, "ENABLE with a bad pointer");
	is(call(RPAL_IOC_DISABLE, 0), -EINVAL, "neither enabled it");
	is(call(RPAL_IOC_REQUEST, NULL), -EFAULT, "REQUEST without a buffer");
	is(call(RPAL_IOC_REQUEST, BAD), -EFAULT, "REQUEST at a bad pointer");
	request->key = b.info.key;
	mprotect(request, 4096, PROT_READ);
	is(call(RPAL_IOC_REQUEST, request), -EFAULT, "REQUEST in a buffer that cannot be written");
	is(call(RPAL_IOC_RELEASE, (void *)(unsigned long)b.info.id), -ENOTCONN, "asked for nobody");
	mprotect(request, 4096, PROT_READ | PROT_WRITE);
	copy = *request;
	copy.key ^= 1;
	is(call(RPAL_IOC_REQUEST, &copy), -ENOENT, "REQUEST of a wrong key");
	is(copy.pkey | copy.flags | copy.meta, 0, "tells nothing");
	is(call(RPAL_IOC_REQUEST, request), 0, "a right one");
	ok(request->id == b.info.id && request->meta == 0x4d455441 && request->pkey == b.info.pkey,
	   "tells who it is");

	is(call(RPAL_IOC_RELEASE, 0), -EINVAL, "RELEASE of 0");
	is(call(RPAL_IOC_RELEASE, (void *)255), -EINVAL, "of 255");
	is(call(RPAL_IOC_RELEASE, (void *)256), -EINVAL, "of 256");
	is(call(RPAL_IOC_RELEASE, (void *)~0UL), -EINVAL, "of -1");
	is(call(RPAL_IOC_RELEASE, (void *)254), -ENOTCONN, "of nobody");
	is(call(RPAL_IOC_RELEASE, (void *)(unsigned long)me.id), -ENOTCONN, "of itself");
	is(call(RPAL_IOC_RELEASE, (void *)(unsigned long)b.info.id), 0, "of the one it asked for");

	is(result(read(fd, &c, 1)), -EINVAL, "a read that is too short");
	is(result(read(fd, BAD, 100)), -EAGAIN, "a read of nothing");
	is(result(write(fd, &c, 1)), -EINVAL, "a write");
	is(result(lseek(fd, 0, SEEK_SET)), -ESPIPE, "a seek");
	is(result((long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0)), -ENODEV, "a mapping");
	end(&b);
}

static int self_role(int socket)
{
	fd = device();
	me = get_info(fd);
	test_info();
	test_commands();
	test_requests();
	return tell_counts(socket);
}

static void test_no_service(void)
{
	struct rpal_request request = { .key = 1 };
	struct rpal_info info;
	struct pollfd poll_fd;
	uint64_t meta = 0;

	fd = device();
	info = get_info(fd);
	is(info.abi, RPAL_ABI_VERSION, "one that is no service has an ABI");
	ok(!(info.caps & (RPAL_CAP_SERVICE | RPAL_CAP_RECEIVE)) && !info.id && !info.key &&
		   !info.slot_end,
	   "but no id, key or slot");
	is(call(RPAL_IOC_ENABLE, &meta), -ESRCH, "ENABLE");
	is(call(RPAL_IOC_DISABLE, 0), -ESRCH, "DISABLE");
	is(call(RPAL_IOC_REQUEST, &request), -ESRCH, "REQUEST");
	is(call(RPAL_IOC_RELEASE, (void *)1), -ESRCH, "RELEASE");
	is(result(read(fd, &meta, 8)), -EPERM, "read");
	poll_fd = (struct pollfd){ .fd = fd, .events = POLLIN };
	is(poll(&poll_fd, 1, 0) == 1 && poll_fd.revents == POLLERR, 1, "poll");
}

const struct role roles[] = { { "self", self_role }, { "peer", peer_role }, {} };

int main(int argc, char **argv)
{
	RUN_ROLE(argc, argv);
	close(device());
	test_in_service("self");
	test_no_service();
	return done();
}
