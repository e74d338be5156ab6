/* guest: cpus=1,2 isolation=mpk,none debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * A program at fixed addresses lies outside of its slot, where peers do not see
 * it: it can call, but not be called. The client is this program, linked so.
 */
#include "two_services.h"
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGE_SIZE 4096UL

enum {
	ADD,  /* words 1 and 2 */
	SLOW, /* the same, as itself */
};

static int handle(struct rpal_message *m)
{
	if (m->word[0] == SLOW)
		getppid();
	m->word[0] = m->word[1] + m->word[2];
	return 0;
}

static int server(int socket)
{
	struct side side = become_peers(socket);

	introduce_receiver(&side, RPAL_ROLE_RECEIVER);
	serve_calls(handle);
	return 0;
}

static bool calls_work(struct side *side)
{
	for (uint64_t i = 0; i < 10000; i++) {
		struct rpal_message m = { { i % 64 ? ADD : SLOW, i, 2 * i } };

		if (rpal_call(&side->target, &m, -1) || m.word[0] != 3 * i)
			return false;
	}
	return true;
}

static void test_receiving(struct side *side)
{
	struct rpal_register request = { .roles = RPAL_ROLE_RECEIVER };
	int fd = rpal_open();

	is(result(ioctl(fd, RPAL_IOC_REGISTER, &request)), -EOPNOTSUPP, "it cannot be a receiver");
	request.roles = RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER;
	is(result(ioctl(fd, RPAL_IOC_REGISTER, &request)), -EOPNOTSUPP, "nor both");
	ok(!request.tid && !request.control, "it is told nothing");
	is(result(ioctl(fd, RPAL_IOC_UNREGISTER, RPAL_ROLE_RECEIVER)), -EINVAL,
	   "and has not become one");
	is(rpal_attach(RPAL_ROLE_RECEIVER), -EOPNOTSUPP, "librpal says the same");
}

static char in_image[2 * PAGE_SIZE];

static int moves_into_image(void)
{
	char *page = (char *)(((uintptr_t)in_image + PAGE_SIZE) & -PAGE_SIZE);
	void *old = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *new;

	*page = 1;
	new = mremap(old, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, page);
	/* It crashes if the page is gone. */
	return new == MAP_FAILED && *page == 1 ? -errno : 0;
}

static int client(int socket)
{
	struct side side = become_peers(socket);
	const struct rpal_info *info = rpal_service();
	uint64_t stack = (uint64_t)__builtin_frame_address(0);

	ok((uint64_t)client >> RPAL_SLOT_SHIFT == 0, "the client's code is at fixed addresses");
	is(stack >> RPAL_SLOT_SHIFT, info->id, "its stack is in its slot");
	is(moves_into_image(), -ENOMEM, "nothing is mapped over its image, nor taken from it");
	ok(info->caps & RPAL_CAP_SERVICE && !(info->caps & RPAL_CAP_RECEIVE),
	   "it is told that it is a service that cannot receive");
	meet_receiver(&side);
	ok(calls_work(&side), "it can call, and calls are handed back");
	test_receiving(&side);
	ok(calls_work(&side), "it still can call");
	return done();
}

static pid_t start(char *program, char *role, int socket)
{
	char number[16], *args[] = { program, role, number, NULL };
	pid_t pid = vfork();

	if (pid)
		return pid;
	snprintf(number, sizeof(number), "%d", dup(socket));
	MUST(rpal_exec_service());
	execv(program, args);
	die(program, errno);
	return 0;
}

int main(int argc, char **argv)
{
	char fixed[PATH_MAX] = "";
	int sockets[2], status;
	pid_t pids[2];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3)
		return strcmp(argv[1], "--server") ? client(atoi(argv[2])) : server(atoi(argv[2]));

	if (readlink("/proc/self/exe", fixed, sizeof(fixed) - sizeof(".fixed")) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	strcat(fixed, ".fixed");
	pids[0] = start("/proc/self/exe", "--server", sockets[0]);
	pids[1] = start(fixed, "--client", sockets[1]);
	close(sockets[0]);
	close(sockets[1]);
	waitpid(pids[1], &status, 0);
	kill(pids[0], SIGKILL);
	waitpid(pids[0], NULL, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}
