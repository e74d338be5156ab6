/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * A receiver whose event loop has always something else to do is called all the
 * same, and goes on with what else it has to do.
 */
#include "two_services.h"
#include <sys/eventfd.h>

enum kind {
	IDLE,
	SPIN,  /* never waits, as an event loop with work of its own */
	FLOOD, /* a descriptor is always readable */
};

enum {
	CALLS = 200,
	TURNS = 50,
	PATIENCE_MS = 20000,
};

static void server(struct side *side, int argc, char **argv)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int flood = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 };
	struct epoll_event other = { .events = EPOLLIN, .data.u64 = 2 };
	uint64_t turns = 0, floods = 0;
	enum kind kind = IDLE;
	eventfd_t value;

	MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, flood, &other));
	MUST(rpal_call_event(&call));
	for (;;) {
		struct epoll_event events[8];
		struct rpal_message m;
		int n = rpal_epoll_wait(epfd, events, 8, kind == SPIN ? 0 : -1);

		turns += n == 0;
		for (int i = 0; i < n; i++) {
			if (events[i].data.u64 == 2) {
				floods++;
				continue;
			}
			if (rpal_take(&m, NULL) != 1)
				die("rpal_take", EPROTO);
			if (kind != m.word[0]) {
				kind = m.word[0];
				if (kind == FLOOD)
					MUST(eventfd_write(flood, 1));
				else
					eventfd_read(flood, &value);
			}
			m = (struct rpal_message){ { turns, floods } };
			rpal_reply(0, &m);
		}
	}
}

/* Calls until @kind of other work has been done and enough calls were answered. */
static void call_while_busy(struct side *side, enum kind kind, int word, const char *what)
{
	struct rpal_counters before, after;
	struct rpal_message m;
	uint64_t start = 0, done = 0;
	long calls, failed = 0;

	rpal_counters(&before);
	for (calls = 0; (calls < CALLS || done < TURNS) && !failed; calls++) {
		m = (struct rpal_message){ { kind } };
		failed = rpal_call(&side->target, &m, PATIENCE_MS);
		if (!calls)
			start = m.word[word];
		done = m.word[word] - start;
	}
	rpal_counters(&after);
	ok(!failed, "%s is called (%ld calls, last result %ld)", what, calls, failed);
	printf("# %ld calls, %lu turns of other work, handed back %lu, waits %lu\n", calls, done,
	       after.handed_back - before.handed_back, after.waits - before.waits);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_message m = { { IDLE } };

	call_while_busy(side, SPIN, 0, "a loop that never waits");
	call_while_busy(side, FLOOD, 1, "a loop that always finds a descriptor ready");
	ok(rpal_call(&side->target, &m, PATIENCE_MS) == 0, "it becomes idle again");
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
