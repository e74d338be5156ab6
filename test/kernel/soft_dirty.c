/* guest: debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Soft dirty bits: /proc/PID/clear_refs makes pages read-only so that the next
 * write is seen, those of the control area, too, which is shared and has no
 * file. Then its first write can come from either side.
 */
#include "kernel_log.h"
#include "two_services.h"
#include <fcntl.h>

#define ROUNDS 20
#define CALLS  20

static int handle(struct rpal_message *m)
{
	m->word[0]++;
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static bool clear_soft_dirty(pid_t pid)
{
	char path[64];
	bool done;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	done = fd >= 0 && write(fd, "4", 1) == 1;
	close(fd);
	return done;
}

static long wrong_calls(struct side *side)
{
	long wrong = 0;

	for (uint64_t i = 0; i < CALLS; i++) {
		struct rpal_message m = { { i } };

		wrong += rpal_call(&side->target, &m, -1) || m.word[0] != i + 1;
	}
	return wrong;
}

static int client(struct side *side, int argc, char **argv)
{
	int log = kernel_log_from_now();
	long wrong = 0;

	if (!clear_soft_dirty(getpid()))
		skip_all("there are no soft dirty bits");
	for (int i = 0; i < ROUNDS; i++) {
		if (i % 3 != 1 && !clear_soft_dirty(side->other))
			die("clear_refs", errno);
		if (i % 3 != 2)
			clear_soft_dirty(getpid());
		wrong += wrong_calls(side);
	}
	ok(!wrong, "%d calls after pages of either side were made read-only, %ld wrong",
	   ROUNDS * CALLS, wrong);
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
