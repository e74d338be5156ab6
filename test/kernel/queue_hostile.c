/* guest: cpus=1,2 debug timeout=180 */
// SPDX-License-Identifier: MIT
/*
 * Nonsense in the memory of queues, written by the one who reads the queue and by
 * the one who writes to it: no fault, no hang, nothing written where it does not
 * belong, and the next queue is as good as ever.
 */
#include "queue_pair.h"
#include "kernel_log.h"
#include "../../native/librpal/src/queue_memory.h"
#include <sys/mman.h>

enum {
	OPEN,	   /* opens the queue of the socket anew; answers: its end, its set */
	TAKE,	   /* up to word[1] words; answers: how many */
	SCRIBBLE,  /* word[2] at word[1], in the server's own memory */
	CANARY,	   /* answers: a page that nobody writes to; whether it is as it was */
	PEER,	   /* receives a descriptor, and becomes the peer of who has its other end */
};

#define CANARY_BYTES 4096

static unsigned char *canary;

static void make_canary(void)
{
	canary = mmap(NULL, CANARY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	memset(canary, 0x5c, CANARY_BYTES);
}

static bool canary_lives(void)
{
	for (int i = 0; i < CANARY_BYTES; i++)
		if (canary[i] != 0x5c)
			return false;
	return true;
}

static struct rpal_end *end_of(int fd)
{
	const struct rpal_directory *directory = (void *)rpal_queue_directory();

	return (void *)directory->end[fd];
}

static struct rpal_set *set_of(const struct rpal_end *end)
{
	return (void *)(end->place & ADDRESS_MASK);
}

static void server(struct side *side, int argc, char **argv)
{
	struct epoll_event call = { .events = EPOLLIN, .data.fd = -1 };
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	make_canary();
	MUST(rpal_call_event(&call));
	for (;;) {
		uint64_t words[RPAL_QUEUE_WORDS];
		struct epoll_event events[4];
		struct rpal_message m;
		int n = rpal_epoll_wait(epfd, events, 4, -1);

		if (n < 0)
			die("rpal_epoll_wait", errno);
		/* Words stay where they are until the client says so. */
		if (rpal_take(&m, NULL) != 1)
			continue;
		switch (m.word[0]) {
		case OPEN:
			watch(epfd, EPOLL_CTL_DEL, side->socket, 0);
			m.word[0] = watch(epfd, EPOLL_CTL_ADD, side->socket,
					  EPOLLRPALIN | EPOLLET);
			m.word[1] = (uintptr_t)end_of(side->socket);
			m.word[2] = (uintptr_t)set_of(end_of(side->socket));
			break;
		case TAKE:
			m.word[0] = rpal_queue_take(side->socket, words, m.word[1]);
			break;
		case SCRIBBLE:
			*(volatile uint64_t *)m.word[1] = m.word[2];
			break;
		case CANARY:
			m.word[0] = (uintptr_t)canary;
			m.word[1] = canary_lives();
			break;
		case PEER:
			become_peers(receive_fd(side->socket));
			break;
		}
		rpal_reply(0, &m);
	}
}

static struct rpal_message told;

static long ask(struct side *side, uint64_t what, uint64_t a, uint64_t b)
{
	told = (struct rpal_message){ { what, a, b } };
	MUST(rpal_call(&side->target, &told, 20000));
	return told.word[0];
}

static unsigned int seed = 99;

static uint64_t random_word(void)
{
	return (uint64_t)rand_r(&seed) << 42 ^ (uint64_t)rand_r(&seed) << 21 ^ rand_r(&seed);
}

/*
 * What somebody could write who wants to do harm, or has gone wrong, where
 * @before was. (A claim of our own end names our own memory: not that.)
 */
static uint64_t nonsense(struct side *side, struct side *third, uint64_t before, bool claim)
{
	const uint64_t theirs = (uint64_t)side->peer.id << RPAL_SLOT_SHIFT;
	const uint64_t own = rpal_service()->slot_start;

	switch (rand_r(&seed) % 16) {
	case 0:
		return 0;
	case 1:
		return ~0ULL;
	case 2:
		return before + 1;
	case 3:
		return before - 1;
	case 4:
		return before ^ 1ULL << rand_r(&seed) % 64;
	case 5: /* The end of a slot, and unaligned. */
		return theirs + (1ULL << RPAL_SLOT_SHIFT) - 64;
	case 6:
		return theirs + (random_word() & ((1ULL << RPAL_SLOT_SHIFT) - 1));
	case 7: /* In the control area. */
		return theirs + RPAL_CONTROL_OFFSET;
	case 8:
		return own + RPAL_CONTROL_OFFSET;
	case 9:
		return claim ? 9 : (uintptr_t)canary;
	case 10: /* As a place. */
		return (before & ~ADDRESS_MASK) | (claim ? 10 : (uintptr_t)canary);
	case 11:
		return (before & ~ADDRESS_MASK) | (uint64_t)ask(third, CANARY, 0, 0);
	case 12:
		return (uint64_t)rand_r(&seed) << ADDRESS_BITS | (before & ADDRESS_MASK);
	case 13:
		return rpal_tid();
	case 14:
		return third->target.tid;
	default:
		return random_word();
	}
}

/* A word of a queue's memory, at random, those that steer more often. */
static uint64_t pick_word(uint64_t end, uint64_t set)
{
	switch (rand_r(&seed) % 4) {
	case 0:
		return end + 8 * (rand_r(&seed) % (sizeof(struct rpal_end) / 8));
	case 1:
		return set + 8 * (rand_r(&seed) % (sizeof(struct rpal_set) / 8));
	default:
		return (rand_r(&seed) % 3 ? end : set) + 8 * (rand_r(&seed) % 5);
	}
}

static struct rpal_writer *fresh_queue(struct side *side, uint64_t *end, uint64_t *set)
{
	struct rpal_writer *writer;

	MUST(ask(side, OPEN, 0, 0));
	*end = told.word[1];
	*set = told.word[2];
	MUST(rpal_writer_open(&writer, &side->peer, side->socket));
	return writer;
}

/* Something both sides would do, with results that are allowed. */
static bool use_queue(struct side *side, struct rpal_writer *writer, struct rpal_writer **opened)
{
	struct rpal_writer_info info;
	uint64_t words[RPAL_PUT_WORDS] = { 1, 2, 3 };
	int n = 1 + rand_r(&seed) % RPAL_PUT_WORDS, ret;

	switch (rand_r(&seed) % 8) {
	case 0:
		ret = rpal_writer_info(writer, &info);
		break;
	case 1:
		if (*opened)
			rpal_writer_close(*opened);
		ret = rpal_writer_open(opened, &side->peer, side->socket);
		if (ret)
			*opened = NULL;
		break;
	case 2:
	case 3:
		ret = ask(side, TAKE, 1 + rand_r(&seed) % RPAL_QUEUE_WORDS, 0);
		return ret >= 0 && ret <= RPAL_QUEUE_WORDS;
	default:
		ret = rpal_queue_put(writer, words, n);
		if (ret == n)
			return true;
	}
	return ret == 0 || ret == -EAGAIN || ret == -ESTALE || ret == -EPROTO || ret == -EBUSY ||
	       ret == -EOWNERDEAD;
}

static bool lives(struct side *side)
{
	ask(side, CANARY, 0, 0);
	return told.word[1];
}

/* Nonsense by the server in its own memory, or by us in the server's. */
static void test(struct side *side, struct side *third, bool by_reader, int rounds)
{
	long wrong = 0, words = 0, good = 0;

	for (int round = 0; round < rounds; round++) {
		struct rpal_writer *writer, *opened = NULL;
		uint64_t end, set, at, before, word[3] = { 1, 2, round };

		writer = fresh_queue(side, &end, &set);
		for (int i = 0; i < 6; i++) {
			at = pick_word(end, set);
			MUST(rpal_read_peer(side->peer.id, side->peer.pkey, &before, (void *)at, 8));
			before = nonsense(side, third, before,
					  at == end + offsetof(struct rpal_end, writer));
			if (by_reader)
				ask(side, SCRIBBLE, at, before);
			else
				MUST(rpal_write_peer(side->peer.id, side->peer.pkey, (void *)at,
						     &before, 8));
			wrong += !use_queue(side, writer, &opened);
			words++;
		}
		rpal_writer_close(writer);
		if (opened)
			rpal_writer_close(opened);
		/* The server's may die: it is its own memory that is spoilt. */
		if (!canary_lives() || !lives(third)) {
			wrong++;
			printf("# round %d: %s canary is dead\n", round,
			       canary_lives() ? "the third's" : "our");
			break;
		}
		/* What is wrong with a set can delay others; a new queue is good. */
		writer = fresh_queue(side, &end, &set);
		good += rpal_queue_put(writer, word, 3) == 3 && ask(side, TAKE, 64, 0) == 3;
		rpal_writer_close(writer);
	}
	ok(!wrong, "%ld words of nonsense by the %s, %ld wrong", words,
	   by_reader ? "reader" : "writer", wrong);
	is(good, rounds, "after it a new queue works");
}

/*
 * A claim on a queue says where its writer wants to be told of room. Here it
 * says that of another peer, in whose memory it would be written.
 */
static void test_false_claim(struct side *side, struct side *third)
{
	uint64_t end, set, claim, want = 1, words[RPAL_PUT_WORDS] = {};
	struct rpal_writer *writer = fresh_queue(side, &end, &set);
	struct rpal_end *their = (void *)end;

	is(rpal_queue_put(writer, words, 2), 2, "two words");
	MUST(rpal_read_peer(side->peer.id, side->peer.pkey, &claim, &their->writer, 8));
	claim = (claim & ~ADDRESS_MASK) | (uint64_t)ask(third, CANARY, 0, 0);
	MUST(rpal_write_peer(side->peer.id, side->peer.pkey, &their->writer, &claim, 8));
	MUST(rpal_write_peer(side->peer.id, side->peer.pkey, &their->want, &want, 8));
	is(ask(side, TAKE, 2, 0), 2, "they are taken, and somebody else would be told");
	ok(lives(third), "that does not happen");
	rpal_writer_close(writer);
}

static int client(struct side *side, int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 300, log = kernel_log_from_now();
	struct side third;
	pid_t pid;

	make_canary();
	/* Or the third would have our end of the socket, too. */
	fcntl(side->socket, F_SETFD, FD_CLOEXEC);
	/* The third and the server are peers, too: they could write to each other. */
	third = start_third("--third", side, 0, &pid);
	MUST(ask(side, PEER, 0, 0));
	meet_receiver(&third);
	test(side, &third, true, rounds);
	test(side, &third, false, rounds);
	test_false_claim(side, &third);
	kill(pid, SIGKILL);
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	if (argc > 2)
		enable_queues();
	if (argc > 3 && !strcmp(argv[1], "--third")) {
		struct side side = become_peers(atoi(argv[2]));

		become_peers(atoi(argv[3]));
		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		server(&side, argc, argv);
	}
	return two_services(argc, argv, server, client);
}
