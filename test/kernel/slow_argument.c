/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * A thread registers, and the answer goes into memory that takes its time: a
 * fault there is handled in user space. Other threads of the service come and go
 * meanwhile, and when the answer cannot be given at all, nothing has happened.
 */
#include "two_services.h"
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define PAGE 4096

static int device, uffd;
static struct rpal_register *slow; /* can be read; a write waits */

static void protect(bool on)
{
	struct uffdio_writeprotect range = {
		.range = { (uint64_t)slow, PAGE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	if (ioctl(uffd, UFFDIO_WRITEPROTECT, &range))
		die("UFFDIO_WRITEPROTECT", errno);
}

static void make_slow_memory(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_WP };

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		skip_all("no userfaultfd");
	slow = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*slow = (struct rpal_register){ .roles = RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER };
	range.range.start = (uint64_t)slow;
	range.range.len = PAGE;
	if (ioctl(uffd, UFFDIO_REGISTER, &range))
		die("UFFDIO_REGISTER", errno);
	protect(true);
}

static int registered = -1;

static void *register_slowly(void *arg)
{
	registered = ioctl(device, RPAL_IOC_REGISTER, slow) ? -errno : 0;
	return NULL;
}

static void *come_and_go(void *arg)
{
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	MUST(rpal_detach());
	return NULL;
}

static void test_slow(void)
{
	struct pollfd fault = { .fd = uffd, .events = POLLIN };
	pthread_t slow_thread, other_thread;
	struct timespec limit;
	bool gone;

	pthread_create(&slow_thread, NULL, register_slowly, NULL);
	ok(poll(&fault, 1, 20000) == 1, "the answer to REGISTER waits for its page");
	pthread_create(&other_thread, NULL, come_and_go, NULL);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	gone = !pthread_timedjoin_np(other_thread, NULL, &limit);
	ok(gone, "another thread comes and goes meanwhile");
	protect(false);
	pthread_join(slow_thread, NULL);
	if (!gone)
		pthread_join(other_thread, NULL);
	is(registered, 0, "then there is an answer");
	is(RPAL_TID_SERVICE(slow->tid), rpal_service()->id, "with an id");
}

static void test_read_only(void)
{
	struct rpal_register *request = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	request->roles = RPAL_ROLE_SENDER;
	mprotect(request, PAGE, PROT_READ);
	is(result(ioctl(device, RPAL_IOC_REGISTER, request)), -EFAULT,
	   "REGISTER with an answer that cannot be written");
	is(result(ioctl(device, RPAL_IOC_UNREGISTER, RPAL_ROLE_SENDER)), -EPERM,
	   "has not registered the thread");

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	mprotect(request, PAGE, PROT_READ | PROT_WRITE);
	request->roles = RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER;
	mprotect(request, PAGE, PROT_READ);
	is(result(ioctl(device, RPAL_IOC_REGISTER, request)), -EFAULT, "the same for one more role");
	is(result(ioctl(device, RPAL_IOC_UNREGISTER, RPAL_ROLE_RECEIVER)), -EINVAL,
	   "has not added it");
	is(rpal_detach(), 0, "and has not taken the other");
}

/* --self SOCKET */
static int self(int socket)
{
	device = MUST(rpal_open());
	make_slow_memory();
	test_slow();
	test_read_only();
	return done();
}

int main(int argc, char **argv)
{
	int sockets[2], status;

	if (argc == 3 && !strcmp(argv[1], "--self"))
		return self(atoi(argv[2]));
	/* A thread with an rseq area cannot be registered. */
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	waitpid(start_service("--self", sockets[0], 0, NULL), &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
