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

static void test_bad_requests(const struct child *b)
{
	struct rpal_request request = { .key = b->info.key, .reserved = 1 };

	is(call(RPAL_IOC_REQUEST, &request), -EINVAL, "REQUEST with a reserved word");
	is(request.id | request.pkey | request.flags | request.meta, 0, "tells nothing");
	request = (struct rpal_request){ .key = me.key };
	is(call(RPAL_IOC_REQUEST, &request), -EINVAL, "REQUEST of oneself");
	is(call(RPAL_IOC_REQUEST, (void *)~0UL), -EFAULT, "REQUEST in the kernel");
	is(call(RPAL_IOC_RELEASE, (void *)(unsigned long)b->info.id), -ENOTCONN,
	   "neither asked for anybody");
}

static void test_requests(void)
{
	struct rpal_request *request, copy;
	struct child b = start_peer();
	char c;

	test_bad_requests(&b);

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

static long unregister(unsigned long roles)
{
	return call(RPAL_IOC_UNREGISTER, (void *)roles);
}

/* The thread is what it was before: registered as nothing. */
static void is_refused(long got, long error, const char *what)
{
	bool good = got == error && unregister(RPAL_ROLE_SENDER) == -EPERM &&
		    unregister(RPAL_ROLE_RECEIVER) == -EPERM;

	if (!ok(good, "REGISTER %s", what))
		printf("# got %ld, expected %ld and no role\n", got, error);
}

/* Of each role there is, an address at a place where no code can be. */
static int refused_addresses(uint64_t address)
{
	struct rpal_register registrations[] = {
		{ .resume_ip = address },   { .finish_ip = address }, { .released_ip = address },
		{ .park_ip = address },	    { .copy_ip = address },
	};
	int refused = 0;

	for (int i = 0; i < 5; i++) {
		registrations[i].roles = RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER;
		refused += call(RPAL_IOC_REGISTER, &registrations[i]) == -EINVAL &&
			   unregister(RPAL_ROLE_SENDER) == -EPERM && !registrations[i].tid &&
			   !registrations[i].control;
	}
	return refused;
}

/* Two pages, of which the first one can be used. */
static char *page_before_hole(void)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(page + 4096, 4096);
	return page;
}

static void test_register(void)
{
	static const uint32_t roles[] = { 0, 4, 7, 1u << 31, ~0u };
	static const uint64_t addresses[] = { 1UL << 47, 1UL << 63, ~0UL, 0xffffffff81000000 };
	struct rpal_register request = {};
	char *page = page_before_hole();

	is_refused(call(RPAL_IOC_REGISTER, NULL), -EFAULT, "without a buffer");
	is_refused(call(RPAL_IOC_REGISTER, BAD), -EFAULT, "at a bad pointer");
	is_refused(call(RPAL_IOC_REGISTER, (void *)~0UL), -EFAULT, "in the kernel");
	*(uint32_t *)(page + 4096 - 8) = RPAL_ROLE_SENDER;
	is_refused(call(RPAL_IOC_REGISTER, page + 4096 - 8), -EFAULT, "across the end of a mapping");
	*(struct rpal_register *)page = (struct rpal_register){ .roles = RPAL_ROLE_SENDER };
	mprotect(page, 4096, PROT_READ);
	is_refused(call(RPAL_IOC_REGISTER, page), -EFAULT, "in a buffer that cannot be written");
	for (int i = 0; i < 5; i++) {
		request.roles = roles[i];
		is_refused(call(RPAL_IOC_REGISTER, &request), -EINVAL, "with bad roles");
	}
	ok(!request.tid && !request.control, "tells nothing");
	for (int i = 0; i < 4; i++)
		is(refused_addresses(addresses[i]), 5, "REGISTER with an address that cannot be");
	munmap(page, 4096);
}

static void test_unregister(void)
{
	struct rpal_register request = { .roles = RPAL_ROLE_SENDER };

	is(unregister(RPAL_ROLE_SENDER), -EPERM, "UNREGISTER of who is not registered");
	is(call(RPAL_IOC_REGISTER, &request), 0, "a sender");
	is(unregister(0), -EINVAL, "UNREGISTER of no role");
	is(unregister(4), -EINVAL, "of an unknown one");
	is(unregister(RPAL_ROLE_RECEIVER), -EINVAL, "of one that it has not");
	is(unregister(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER), -EINVAL, "nor half of two");
	is(unregister(1UL << 32 | RPAL_ROLE_SENDER), -EINVAL, "of more than 32 bits");
	is(unregister(~0UL), -EINVAL, "of all bits");
	is(unregister(RPAL_ROLE_SENDER), 0, "it is a sender all the same");
}

/* Refused before anything happens, so it returns here and not at park_ip. */
static void test_park(void)
{
	struct rpal_park park = { .epfd = -1, .timeout_ns = -1 };
	struct rpal_register request = { .roles = RPAL_ROLE_SENDER };
	struct rpal_control *control;
	char *page = page_before_hole();

	is(call(RPAL_IOC_PARK, &park), -EPERM, "PARK of who is not registered");
	is(call(RPAL_IOC_REGISTER, &request), 0, "a sender");
	is(call(RPAL_IOC_PARK, &park), -EPERM, "PARK of a sender");
	request.roles = RPAL_ROLE_RECEIVER;
	is(call(RPAL_IOC_REGISTER, &request), 0, "and receiver");
	control = (void *)request.control;

	is(call(RPAL_IOC_PARK, NULL), -EFAULT, "PARK without a buffer");
	is(call(RPAL_IOC_PARK, BAD), -EFAULT, "at a bad pointer");
	is(call(RPAL_IOC_PARK, (void *)~0UL), -EFAULT, "in the kernel");
	is(call(RPAL_IOC_PARK, page + 4096 - 8), -EFAULT, "across the end of a mapping");
	for (uint32_t flag = 2; flag; flag <<= 1) {
		park.flags = flag;
		if (call(RPAL_IOC_PARK, &park) != -EINVAL)
			break;
	}
	is(park.flags, 1u << 31, "with an unknown flag");
	park.flags = RPAL_PARK_REPLY;
	is(call(RPAL_IOC_PARK, &park), -EFAULT, "with a reply that is nowhere");
	park.message = (uint64_t)page + 4096 - 8;
	is(call(RPAL_IOC_PARK, &park), -EFAULT, "with one across the end of a mapping");
	park.message = ~0UL << 12;
	is(call(RPAL_IOC_PARK, &park), -EFAULT, "with one in the kernel");
	park = (struct rpal_park){ .epfd = 999, .timeout_ns = -1 };
	is(call(RPAL_IOC_PARK, &park), -EBADF, "on a file that is not open");
	park.epfd = -2;
	is(call(RPAL_IOC_PARK, &park), -EBADF, "on file -2");
	park.epfd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	is(call(RPAL_IOC_PARK, &park), -EINVAL, "on one that cannot be polled");
	close(park.epfd);
	is(control->state, RPAL_STATE_RUN, "the thread was never parked");
	is(unregister(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER), 0, "it is what it was");
	munmap(page, 4096);
}

static void test_waits(void)
{
	struct rpal_register request = { .roles = RPAL_ROLE_SENDER };
	struct rpal_wait_reply reply = { .seq = 1, .timeout_ns = -1, .status = 77 };
	struct rpal_wait_parked parked = { .timeout_ns = -1 };
	char *page = page_before_hole();

	is(call(RPAL_IOC_WAIT_REPLY, &reply), -EPERM, "WAIT_REPLY of who is not registered");
	is(call(RPAL_IOC_WAIT_PARKED, &parked), -EPERM, "WAIT_PARKED, too");
	is(call(RPAL_IOC_FINISH, (void *)1), -EPERM, "and FINISH");
	is(call(RPAL_IOC_REGISTER, &request), 0, "a sender");

	is(call(RPAL_IOC_WAIT_REPLY, NULL), -EFAULT, "WAIT_REPLY without a buffer");
	is(call(RPAL_IOC_WAIT_REPLY, BAD), -EFAULT, "at a bad pointer");
	is(call(RPAL_IOC_WAIT_REPLY, (void *)~0UL), -EFAULT, "in the kernel");
	is(call(RPAL_IOC_WAIT_REPLY, page + 4096 - 8), -EFAULT, "across the end of a mapping");
	is(call(RPAL_IOC_WAIT_REPLY, &reply), -ENOENT, "for a call that never was");
	reply.seq = 0;
	is(call(RPAL_IOC_WAIT_REPLY, &reply), -ENOENT, "for call 0");
	reply.seq = ~0UL;
	is(call(RPAL_IOC_WAIT_REPLY, &reply), -ENOENT, "for call -1");
	is(reply.status, 77, "no status is written");

	is(call(RPAL_IOC_WAIT_PARKED, NULL), -EFAULT, "WAIT_PARKED without a buffer");
	is(call(RPAL_IOC_WAIT_PARKED, BAD), -EFAULT, "at a bad pointer");
	is(call(RPAL_IOC_WAIT_PARKED, (void *)~0UL), -EFAULT, "in the kernel");
	is(call(RPAL_IOC_WAIT_PARKED, page + 4096 - 8), -EFAULT, "across the end of a mapping");
	for (uint32_t flag = 2; flag; flag <<= 1) {
		parked.flags = flag;
		if (call(RPAL_IOC_WAIT_PARKED, &parked) != -EINVAL)
			break;
	}
	is(parked.flags, 1u << 31, "with an unknown flag");
	parked.flags = RPAL_WAIT_TURN;
	is(call(RPAL_IOC_WAIT_PARKED, &parked), -ESRCH, "for thread 0");
	parked.tid = request.tid;
	is(call(RPAL_IOC_WAIT_PARKED, &parked), -ESRCH, "for itself");
	parked.tid = ~0u;
	is(call(RPAL_IOC_WAIT_PARKED, &parked), -ESRCH, "for a thread of no service");

	is(call(RPAL_IOC_FINISH, 0), -ESRCH, "FINISH of a call to thread 0");
	is(call(RPAL_IOC_FINISH, (void *)(unsigned long)request.tid), -ESRCH, "to itself");
	is(call(RPAL_IOC_FINISH, (void *)~0UL), -ESRCH, "to a thread of no service");
	is(((struct rpal_control *)request.control)->state, RPAL_STATE_RUN, "its state is kept");
	is(unregister(RPAL_ROLE_SENDER), 0, "it is what it was");
	munmap(page, 4096);
}

static int self_role(int socket)
{
	fd = device();
	me = get_info(fd);
	test_info();
	test_commands();
	test_requests();
	test_register();
	test_unregister();
	test_park();
	test_waits();
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
	/* A thread with an rseq area cannot be registered. */
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	test_in_service("self");
	test_no_service();
	return done();
}
