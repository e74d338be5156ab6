// SPDX-License-Identifier: MIT
/* guest: cpus=1,2 debug timeout=60 */
/* The children of a service are none, but work; so does what they execute. */
#include "peer.h"
#include <pthread.h>
#include <spawn.h>

static struct rpal_info me;
static int service_fd;
static volatile int signals;

static void handler(int signal)
{
	signals++;
}

static void *thread(void *arg)
{
	return malloc(100000);
}

/* In a child: 0 if all that a program does works. */
static int live(void)
{
	struct sigaction action = { .sa_handler = handler };
	pthread_t id;
	char *memory;
	void *got;
	int step = 1;

	memory = malloc(10 << 20);
	memset(memory, 1, 10 << 20);
	free(memory);
	step++;
	memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return step;
	memset(memory, 2, 1 << 20);
	step++;
	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	if (signals != 1)
		return step;
	step++;
	if (pthread_create(&id, NULL, thread, NULL) || pthread_join(id, &got) || !got)
		return step;
	memset(got, 3, 100000);
	step++;
	if (sbrk(1 << 20) == (void *)-1)
		return step;
	memset((char *)sbrk(0) - 1000, 4, 1000);
	step++;
	if (me.pkey && syscall(SYS_pkey_alloc, 0, 0) != -1)
		return step;
	return 0;
}

static int wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return 999;
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_fork(void)
{
	struct rpal_info info = { .size = sizeof(info) };
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(live());
	is(wait_for(pid), 0, "a child works");

	pid = fork();
	if (!pid) {
		pid = fork();
		if (!pid)
			_exit(live());
		_exit(wait_for(pid));
	}
	is(wait_for(pid), 0, "so does its child");

	pid = fork();
	if (!pid)
		_exit(ioctl(service_fd, RPAL_IOC_INFO, &info) != -1 || errno != EPERM);
	is(wait_for(pid), 0, "it may not use the service's file");
	pid = fork();
	if (!pid)
		_exit(get_info(device()).caps & RPAL_CAP_SERVICE);
	is(wait_for(pid), 0, "and is no service");
	pid = fork();
	if (!pid)
		_exit(mmap((void *)0x10000000, 4096, PROT_READ,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)0x10000000);
	is(wait_for(pid), 0, "nor confined");
	pid = vfork();
	if (!pid)
		_exit(ioctl(service_fd, RPAL_IOC_INFO, &info) != -1 || errno != EPERM);
	is(wait_for(pid), 0, "a vfork child may not use it either");
	is(result(ioctl(service_fd, RPAL_IOC_INFO, &info)), 0, "the service may");
}

static void test_exec(void)
{
	char *argv[] = { "plain", "plain", "0", NULL };
	struct child child = spawn("plain", false);
	pid_t pid;

	is(outcome(&child), 0, "fork and exec");
	if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ))
		pid = -1;
	is(wait_for(pid), 0, "posix_spawn");
	child = spawn("peer", true);
	meet(&child);
	ok(child.info.id != me.id, "a child that execs as a service is one");
	end(&child);

	ioctl(service_fd, RPAL_IOC_NEXT_EXEC, 1);
	pid = fork();
	if (!pid) {
		execv("/proc/self/exe", argv);
		_exit(99);
	}
	is(wait_for(pid), 0, "a child does not inherit the wish for its exec");
	ioctl(service_fd, RPAL_IOC_NEXT_EXEC, 0);

	pid = fork();
	if (!pid) {
		if (ioctl(device(), RPAL_IOC_NEXT_EXEC, 1) ||
		    execl("/no/such/file", "x", NULL) != -1 ||
		    ioctl(device(), RPAL_IOC_NEXT_EXEC, 0))
			_exit(98);
		execv("/proc/self/exe", argv);
		_exit(99);
	}
	is(wait_for(pid), 0, "it can be taken back");
	pid = fork();
	if (!pid) {
		if (ioctl(device(), RPAL_IOC_NEXT_EXEC, 1) ||
		    execl("/no/such/file", "x", NULL) != -1)
			_exit(98);
		execv("/proc/self/exe", argv);
		_exit(99);
	}
	is(wait_for(pid), 50, "and survives an exec that fails");
}

/* The peers of a service are not its children's. */
static void test_peers(void)
{
	struct rpal_request asked;
	struct child b = start_peer();
	uint64_t page = tell(&b, MAP, 4096, 0, 0);
	uint64_t meta = 0;
	volatile uint64_t value = 0;
	pid_t pid;

	store(&b, &b, page, 42);
	ioctl(service_fd, RPAL_IOC_ENABLE, &meta);
	if (request(service_fd, b.info.key, &asked) || tell(&b, REQUEST, me.key, 0, 0))
		bail_out("link");
	open_key(b.info.pkey);
	value = *(volatile uint64_t *)page;
	is(value, 42, "a service sees its peer");
	pid = fork();
	if (!pid) {
		open_key(b.info.pkey);
		_exit(FAULTS(value = *(volatile uint64_t *)page));
	}
	is(wait_for(pid), SEGV_MAPERR, "its child does not");
	pid = fork();
	if (!pid) {
		open_key(b.info.pkey);
		_exit(mmap((void *)page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			   -1, 0) == MAP_FAILED ||
		      *(volatile uint64_t *)page);
	}
	is(wait_for(pid), 0, "the child may use the addresses");
	open_key(b.info.pkey);
	value = *(volatile uint64_t *)page;
	is(value, 42, "which the service does not notice");
	write_pkru(me.pkru);
	end(&b);
}

static int self_role(int socket)
{
	service_fd = device();
	me = get_info(service_fd);
	test_fork();
	test_exec();
	test_peers();
	return tell_counts(socket);
}

static int plain_role(int socket)
{
	if (get_info(device()).caps & RPAL_CAP_SERVICE)
		return 50;
	if (mmap((void *)0x10000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		return 51;
	return live();
}

const struct role roles[] = {
	{ "self", self_role }, { "plain", plain_role }, { "peer", peer_role }, {}
};

int main(int argc, char **argv)
{
	RUN_ROLE(argc, argv);
	close(device());
	test_in_service("self");
	return done();
}
