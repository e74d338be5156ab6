/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Queues of words: what goes in comes out, in order and as a whole; the events
 * of both sides; no room; closed queues; many queues; both directions at once.
 *
 * The server does what the client tells it in calls, and takes words as it was
 * told.
 */
#include "loan_limit.h"
#include "queue_pair.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/eventfd.h>

enum {
	WATCH,	 /* word[1]: op, word[2]: events, word[3]: descriptor */
	TAKE_BY, /* word[1] words an event, 0: none */
	TAKE,	 /* word[1] words at once; answers: how many, and what */
	STATE,	 /* answers: events, words, wrong words, last events, sum of words */
	BUSY,	 /* says so on the control socket, and waits there to be told to go on */
	ACCEPT,	 /* receives a descriptor on the control socket; answers: descriptor */
	ECHO,	 /* word[1]: words are sent back */
	RESET,	 /* the next word is 0 */
	PUT_EVENTS, /* answers: rpal_queue_events(), its first event and descriptor */
	AT_MOST, /* word[1] events a wait */
	THREAD,	 /* another thread stops watching, and watches again when told */
	PEER,	 /* receives a descriptor, and becomes the peer of who has its other end */
};

static struct server {
	struct side *side;
	int epfd;
	unsigned int take_by;
	int at_most;
	uint64_t events, words, wrong, next, last_events, sum;
	bool tell_taken; /* once, on the control socket */
	struct rpal_writer *echo;
} server_state = { .take_by = RPAL_PUT_WORDS, .at_most = 8 };

static void take_some(struct server *s, int fd)
{
	uint64_t words[RPAL_QUEUE_WORDS];
	int n = s->take_by ? MUST(rpal_queue_take(fd, words, s->take_by)) : 0;

	for (int i = 0; i < n; i++) {
		s->wrong += words[i] != s->next;
		s->next = words[i] + 1;
		s->sum += words[i];
	}
	s->words += n;
	if (s->tell_taken)
		tell(s->side->socket, "t", 1);
	s->tell_taken = false;
	if (s->echo && n)
		MUST(rpal_queue_put(s->echo, words, n));
}

static void *watch_again(void *arg)
{
	struct server *s = arg;
	char byte;

	MUST(watch(s->epfd, EPOLL_CTL_MOD, s->side->socket, 0));
	tell(s->side->socket, "m", 1);
	hear(s->side->socket, &byte, 1);
	s->tell_taken = true;
	MUST(watch(s->epfd, EPOLL_CTL_MOD, s->side->socket, EPOLLRPALIN));
	return NULL;
}

static void obey(struct server *s, struct rpal_message *m)
{
	struct epoll_event events[8];
	uint64_t words[RPAL_QUEUE_WORDS];
	pthread_t thread;
	int ret = 0;
	char byte;

	switch (m->word[0]) {
	case WATCH:
		ret = watch(s->epfd, m->word[1], m->word[3] ? (int)m->word[3] : s->side->socket,
			    m->word[2]);
		break;
	case TAKE_BY:
		s->take_by = m->word[1];
		break;
	case TAKE:
		ret = rpal_queue_take(s->side->socket, words, m->word[1]);
		for (int i = 0; i < 4 && i < ret; i++)
			m->word[1 + i] = words[i];
		break;
	case STATE:
		*m = (struct rpal_message){
			{ 0, s->events, s->words, s->wrong, s->last_events, s->sum }
		};
		break;
	case BUSY:
		tell(s->side->socket, "b", 1);
		hear(s->side->socket, &byte, 1);
		break;
	case ACCEPT:
		ret = receive_fd(s->side->socket);
		break;
	case ECHO:
		MUST(rpal_attach(RPAL_ROLE_SENDER));
		s->echo = m->word[1] ? open_writer(&s->side->peer, s->side->socket) : NULL;
		break;
	case RESET:
		s->next = 0;
		s->events = 0;
		s->words = 0;
		s->wrong = 0;
		s->sum = 0;
		break;
	case PUT_EVENTS:
		ret = rpal_queue_events(s->epfd, events, 8);
		if (ret > 0) {
			m->word[1] = events[0].events;
			m->word[2] = events[0].data.fd;
		}
		break;
	case AT_MOST:
		s->at_most = m->word[1];
		break;
	case THREAD:
		pthread_create(&thread, NULL, watch_again, s);
		pthread_detach(thread);
		break;
	case PEER:
		become_peers(receive_fd(s->side->socket));
		break;
	}
	m->word[0] = ret;
}

static void serve(struct side *side)
{
	struct epoll_event call = { .events = EPOLLIN, .data.fd = -1 };
	struct server *s = &server_state;

	s->side = side;
	s->epfd = epoll_create1(EPOLL_CLOEXEC);
	MUST(rpal_call_event(&call));
	for (;;) {
		struct epoll_event events[8];
		struct rpal_message m;
		int n = rpal_epoll_wait(s->epfd, events, s->at_most, -1);

		if (n < 0 && errno != EINTR)
			die("rpal_epoll_wait", errno);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == -1) {
				if (rpal_take(&m, NULL) != 1)
					die("rpal_take", EPROTO);
				obey(s, &m);
				rpal_reply(0, &m);
				continue;
			}
			s->events++;
			s->last_events = events[i].events;
			if (events[i].events & EPOLLRPALIN)
				take_some(s, events[i].data.fd);
		}
	}
}

static struct rpal_message told;

static long ask(struct side *side, uint64_t what, uint64_t a, uint64_t b, uint64_t c)
{
	int ret;

	told = (struct rpal_message){ { what, a, b, c } };
	ret = rpal_call(&side->target, &told, 20000);
	return ret ? ret : (int)told.word[0];
}

static uint64_t state(struct side *side, int word)
{
	ask(side, STATE, 0, 0, 0);
	return told.word[word];
}

/* What it comes to: a call may be served before the words that came first. */
static bool state_becomes(struct side *side, int word, uint64_t expected)
{
	for (int i = 0; i < 1000; i++)
		if (state(side, word) == expected)
			return true;
	printf("# %lu instead of %lu\n", (unsigned long)told.word[word], expected);
	return false;
}

#define EVENTS_SO_FAR 1
#define WORDS_SO_FAR  2
#define WRONG_SO_FAR  3
#define LAST_EVENTS   4
#define SUM_SO_FAR    5

/* The next @n words of a sequence, or an error. */
static int put(struct rpal_writer *writer, uint64_t *next, unsigned int n)
{
	uint64_t words[RPAL_PUT_WORDS];
	int ret;

	for (unsigned int i = 0; i < n; i++)
		words[i] = *next + i;
	ret = rpal_queue_put(writer, words, n);
	if (ret > 0)
		*next += ret;
	return ret;
}

static int server_watch(struct side *side, int op, uint32_t events)
{
	return ask(side, WATCH, op, events, 0);
}

static void test_open(struct side *side)
{
	struct rpal_peer wrong = side->peer;
	struct rpal_writer *writer;
	int pair[2];

	is(rpal_writer_open(&writer, &side->peer, side->socket), -EAGAIN,
	   "the peer has no queue yet");
	is(server_watch(side, EPOLL_CTL_ADD, EPOLLRPALIN), 0, "it opens one");
	is(server_watch(side, EPOLL_CTL_ADD, EPOLLRPALIN), -EEXIST, "but not twice");
	is(rpal_writer_open(&writer, &side->peer, -1), -EBADF, "no descriptor of ours");
	is(rpal_writer_open(&writer, &side->peer, rpal_open()), -ENOTSOCK, "no socket");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair", errno);
	is(rpal_writer_open(&writer, &side->peer, pair[0]), -ENOENT, "not the peer's socket");
	close(pair[0]);
	close(pair[1]);
	wrong.id = 254;
	is(rpal_writer_open(&writer, &wrong, side->socket), -ESRCH, "nobody's");
	wrong = side->peer;
	wrong.meta = 0;
	is(rpal_writer_open(&writer, &wrong, side->socket), -EPROTO, "no directory");
	wrong.meta = (uintptr_t)&wrong;
	is(rpal_writer_open(&writer, &wrong, side->socket), -EPROTO, "one that is not the peer's");
	wrong.meta = ((uint64_t)side->peer.id << RPAL_SLOT_SHIFT) + RPAL_CONTROL_OFFSET;
	is(rpal_writer_open(&writer, &wrong, side->socket), -EPROTO, "nor is that");
	wrong.meta = ((uint64_t)side->peer.id << RPAL_SLOT_SHIFT) + (1UL << 38);
	is(rpal_writer_open(&writer, &wrong, side->socket), -EOWNERDEAD, "there is no memory");
}

static void test_words(struct side *side, struct rpal_writer *writer)
{
	struct rpal_queue_counters before, after;
	struct rpal_writer_info info;
	long wrong = 0;
	unsigned int seed = 1;
	uint64_t next = 0, words = 0;

	is(rpal_queue_put(writer, &next, 0), -EINVAL, "no words");
	is(rpal_queue_put(writer, &next, RPAL_PUT_WORDS + 1), -EINVAL, "too many words");
	is(rpal_writer_info(writer, &info), 0, "a writer tells what it is");
	ok(info.peer == side->peer.id && info.receiver == side->target.tid, "peer, receiver");

	limit_loans(LONGEST_LOAN_LIMIT);
	do {
		rpal_queue_counters(&before);
		wrong += put(writer, &next, 1) != 1;
		rpal_queue_counters(&after);
		wrong += after.called - before.called != 1;
	} while (after.handed_back != before.handed_back);
	is(wrong, 0, "for one word its receiver is called, in user mode");
	limit_loans(DEFAULT_LOAN_LIMIT);
	is(state(side, WORDS_SO_FAR), next, "and has taken it");
	is(state(side, LAST_EVENTS), EPOLLRPALIN, "after EPOLLRPALIN");

	is(put(writer, &next, RPAL_PUT_WORDS), RPAL_PUT_WORDS, "the most words");
	is(state(side, WORDS_SO_FAR), next, "all of them were taken");

	for (int i = 0; i < 20000; i++) {
		unsigned int n = 1 + rand_r(&seed) % RPAL_PUT_WORDS;

		if (i % 64 == 0)
			ask(side, TAKE_BY, 1 + rand_r(&seed) % RPAL_PUT_WORDS, 0, 0);
		/* After a hand-back the peer can be slower than we are. */
		while (put(writer, &next, n) == -EAGAIN)
			ask(side, STATE, 0, 0, 0);
		words += n;
	}
	ok(state_becomes(side, WORDS_SO_FAR, next) && !state(side, WRONG_SO_FAR),
	   "%lu words in 20000 puts, by all sizes of both sides", words);
	rpal_queue_counters(&after);
	ok(after.handed_back - before.handed_back < 200, "%lu of them handed back",
	   after.handed_back - before.handed_back);
	ask(side, TAKE_BY, RPAL_PUT_WORDS, 0, 0);
}

static void test_events(struct side *side, struct rpal_writer *writer)
{
	uint64_t next = 0;

	ask(side, RESET, 0, 0, 0);
	ask(side, TAKE_BY, 1, 0, 0);
	put(writer, &next, 10);
	ok(state_becomes(side, EVENTS_SO_FAR, 10), "level triggered: an event for each word taken alone");

	is(server_watch(side, EPOLL_CTL_MOD, EPOLLRPALIN | EPOLLET), 0, "edge triggered");
	ask(side, RESET, 0, 0, 0);
	next = 0;
	put(writer, &next, 10);
	is(state(side, EVENTS_SO_FAR), 1, "is one event");
	put(writer, &next, 1);
	is(state(side, EVENTS_SO_FAR), 2, "and one for the next put");
	is(ask(side, TAKE, 64, 0, 0), 9, "the words have waited");

	is(server_watch(side, EPOLL_CTL_MOD, EPOLLRPALIN | EPOLLONESHOT), 0, "one shot");
	ask(side, RESET, 0, 0, 0);
	next = 0;
	put(writer, &next, 3);
	put(writer, &next, 3);
	is(state(side, EVENTS_SO_FAR), 1, "is one event");
	is(server_watch(side, EPOLL_CTL_MOD, EPOLLRPALIN | EPOLLONESHOT), 0, "once more");
	ok(state_becomes(side, EVENTS_SO_FAR, 2), "is another");
	is(ask(side, TAKE, 64, 0, 0), 4, "the words have waited");

	is(server_watch(side, EPOLL_CTL_MOD, 0), 0, "not watched");
	ask(side, RESET, 0, 0, 0);
	next = 0;
	put(writer, &next, 2);
	is(state(side, EVENTS_SO_FAR), 0, "is no event");
	is(ask(side, PUT_EVENTS, 0, 0, 0), 0, "nor found by rpal_queue_events()");
	is(server_watch(side, EPOLL_CTL_MOD, EPOLLRPALIN), 0, "watched");
	ok(state_becomes(side, WORDS_SO_FAR, 2), "they are found");
	ask(side, TAKE_BY, RPAL_PUT_WORDS, 0, 0);
}

static int own_epfd;

/* What is there for this thread within @timeout ms; the last event in *event. */
static int wait_events(struct epoll_event *event, int timeout)
{
	struct epoll_event events[8];
	int n = rpal_epoll_wait(own_epfd, events, 8, timeout);

	*event = n > 0 ? events[n - 1] : (struct epoll_event){ 0 };
	return n;
}

static void test_room(struct side *side, struct rpal_writer *writer)
{
	struct epoll_event event;
	uint64_t next = 0;
	int n = 0;

	is(watch(own_epfd, EPOLL_CTL_ADD, side->socket, EPOLLRPALOUT), 0, "ask for EPOLLRPALOUT");
	server_watch(side, EPOLL_CTL_MOD, 0);
	while (put(writer, &next, 1) == 1)
		n++;
	is(n, RPAL_QUEUE_WORDS, "so many words have room");
	is(put(writer, &next, 1), -EAGAIN, "one more has not");
	is(wait_events(&event, 0), 0, "there is no room yet");
	is(wait_events(&event, 20), 0, "nor a bit later");

	is(ask(side, TAKE, 1, 0, 0), 1, "a word is taken");
	is(wait_events(&event, 5000), 1, "an event");
	ok(event.events == EPOLLRPALOUT && event.data.fd == side->socket, "EPOLLRPALOUT");
	is(wait_events(&event, 0), 0, "it is reported once");
	is(put(writer, &next, 2), -EAGAIN, "two words have no room: none is put");
	is(put(writer, &next, 1), 1, "one has");
	is(put(writer, &next, 2), -EAGAIN, "now there is none");
	is(ask(side, TAKE, 1, 0, 0), 1, "a word is taken");
	is(wait_events(&event, 20), 0, "that is not enough for two");
	is(ask(side, TAKE, 1, 0, 0), 1, "another is taken");
	is(wait_events(&event, 5000), 1, "that is");
	is(put(writer, &next, 2), 2, "two words");
	is(put(writer, &next, 32), -EAGAIN, "32 have no room");

	told = (struct rpal_message){ { TAKE, 64 } };
	n = rpal_post(&side->target, &told, 5000);
	ok(n == 0 || n == -EINPROGRESS, "all are taken while we go on");
	is(wait_events(&event, 5000), 1, "we are told");
	is(event.events, EPOLLRPALOUT, "that there is room");
	is(put(writer, &next, 32), 32, "there is");

	is(watch(own_epfd, EPOLL_CTL_MOD, side->socket, 0), 0, "do not ask any more");
	while (put(writer, &next, 1) == 1)
		;
	is(ask(side, TAKE, 64, 0, 0), 64, "room again");
	is(wait_events(&event, 20), 0, "that is not reported then");
	while (put(writer, &next, 1) == 1)
		;
	is(watch(own_epfd, EPOLL_CTL_MOD, side->socket, EPOLLRPALOUT), 0,
	   "ask again, when there is none already");
	is(wait_events(&event, 20), 0, "the room that there was is not reported");
	is(ask(side, TAKE, 64, 0, 0), 64, "room again");
	is(wait_events(&event, 5000), 1, "that is");
	is(event.events, EPOLLRPALOUT, "EPOLLRPALOUT");
	is(watch(own_epfd, EPOLL_CTL_DEL, side->socket, 0), 0, "do not watch at all");
	ask(side, RESET, 0, 0, 0);
	server_watch(side, EPOLL_CTL_MOD, EPOLLRPALIN);
}

static struct rpal_writer *test_close(struct side *side, struct rpal_writer *writer)
{
	struct rpal_writer_info info;
	struct epoll_event event;
	uint64_t next = 100, name;

	rpal_writer_info(writer, &info);
	name = info.name;
	watch(own_epfd, EPOLL_CTL_ADD, side->socket, EPOLLRPALOUT);
	server_watch(side, EPOLL_CTL_MOD, 0);
	while (put(writer, &next, 1) == 1)
		;
	is(server_watch(side, EPOLL_CTL_DEL, 0), 0, "the peer closes a full queue");
	is(wait_events(&event, 5000), 1, "who waits for room is told");
	is(put(writer, &next, 1), -ESTALE, "and finds it closed");
	is(rpal_writer_info(writer, &info), -ESTALE, "it has no name");
	rpal_writer_close(writer);
	is(rpal_writer_open(&writer, &side->peer, side->socket), -EAGAIN, "nor can it be opened");
	is(server_watch(side, EPOLL_CTL_ADD, EPOLLRPALIN), 0, "the peer opens it again");
	writer = open_writer(&side->peer, side->socket);
	rpal_writer_info(writer, &info);
	ok(info.name != name, "it has another name");
	ask(side, RESET, 0, 0, 0);
	next = 0;
	is(put(writer, &next, 7), 7, "seven words");
	ok(state_becomes(side, WORDS_SO_FAR, 7) && !state(side, WRONG_SO_FAR), "no others were in it");
	watch(own_epfd, EPOLL_CTL_DEL, side->socket, 0);
	return writer;
}

/* A writer that is opened anew goes on where the words of the last one end. */
static struct rpal_writer *open_again(struct side *side, struct rpal_writer *writer)
{
	rpal_writer_close(writer);
	return open_writer(&side->peer, side->socket);
}

/* At most four words; returns how much is not as they were put. */
static long take(struct side *side, uint64_t *taken, int n)
{
	long wrong = ask(side, TAKE, n, 0, 0) != n;

	for (int i = 0; i < n; i++)
		wrong += told.word[1 + i] != (*taken)++;
	return wrong;
}

static struct rpal_writer *test_opened_again(struct side *side, struct rpal_writer *writer)
{
	uint64_t next = 0, taken = 0;
	long refused = 0, wrong = 0;

	server_watch(side, EPOLL_CTL_MOD, 0);
	/* Up to a full queue, and down to an empty one, from two places in it. */
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < RPAL_QUEUE_WORDS; i++) {
			writer = open_again(side, writer);
			refused += put(writer, &next, 1) != 1;
		}
		writer = open_again(side, writer);
		is(put(writer, &next, 1), -EAGAIN, "a full queue that is opened again is full");
		wrong += take(side, &taken, 1);
		is(put(writer, &next, 1), 1, "until a word is taken");
		while (next - taken > 2) {
			wrong += take(side, &taken, 3);
			writer = open_again(side, writer);
			refused += put(writer, &next, 2) != 2;
		}
		wrong += take(side, &taken, 2);
	}
	is(refused, 0, "a writer that is opened again finds the room that there is");
	is(wrong, 0, "and its words follow those of the last one");
	ask(side, RESET, 0, 0, 0);
	server_watch(side, EPOLL_CTL_MOD, EPOLLRPALIN);
	return writer;
}

/* The server waits on the socket until go_on(). */
static void make_busy(struct side *side)
{
	char byte;

	told = (struct rpal_message){ { BUSY } };
	if (rpal_post(&side->target, &told, 5000) != -EINPROGRESS)
		die("the server is not busy", EPROTO);
	hear(side->socket, &byte, 1);
}

static void go_on(struct side *side)
{
	tell(side->socket, "g", 1);
}

static void test_busy(struct side *side, struct rpal_writer *writer)
{
	struct rpal_queue_counters before, after;
	uint64_t next = 0;
	char byte;
	int n = 0;

	ask(side, RESET, 0, 0, 0);
	make_busy(side);
	rpal_queue_counters(&before);
	for (int i = 0; i < 10; i++)
		n += put(writer, &next, 3);
	rpal_queue_counters(&after);
	is(n, 30, "words for a busy receiver");
	ok(after.called == before.called && after.woken == before.woken,
	   "nobody is called or woken for them");
	go_on(side);
	ok(state_becomes(side, WORDS_SO_FAR, 30) && !state(side, WRONG_SO_FAR),
	   "it finds them before it sleeps");

	ask(side, RESET, 0, 0, 0);
	next = 0;
	ask(side, THREAD, 0, 0, 0);
	hear(side->socket, &byte, 1);
	is(put(writer, &next, 5), 5, "words in a queue that is not watched");
	go_on(side);
	hear(side->socket, &byte, 1);
	is(byte, 't', "a receiver that sleeps finds them when another thread watches it");
}

/* Words at the same time as calls by another thread, and each is waited for. */
static volatile bool calls_end;

static void *call_all_the_time(void *arg)
{
	struct side side = *(struct side *)arg;
	struct rpal_message m;
	long calls = 0;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	while (!calls_end) {
		m = (struct rpal_message){ { STATE } };
		MUST(rpal_call(&side.target, &m, 20000));
		calls++;
	}
	return (void *)calls;
}

static long wait_for_echo(int socket, uint64_t expected)
{
	struct epoll_event event;
	uint64_t word;

	if (wait_events(&event, 20000) != 1 || event.events != EPOLLRPALIN)
		return 1;
	return rpal_queue_take(socket, &word, 1) != 1 || word != expected;
}

static void test_both_ways(struct side *side, struct rpal_writer *writer)
{
	struct rpal_queue_counters before, after;
	uint64_t next = 0;
	pthread_t thread;
	long wrong = 0;
	void *calls;

	ask(side, RESET, 0, 0, 0);
	is(watch(own_epfd, EPOLL_CTL_ADD, side->socket, EPOLLRPALIN), 0, "a queue of our own");
	is(ask(side, ECHO, 1, 0, 0), 0, "the peer sends back what comes");
	for (int i = 0; i < 10000; i++) {
		wrong += put(writer, &next, 1) != 1;
		wrong += wait_for_echo(side->socket, i);
	}
	ok(!wrong, "10000 words there and back, %ld wrong", wrong);

	rpal_queue_counters(&before);
	wrong = 0;
	pthread_create(&thread, NULL, call_all_the_time, side);
	for (int i = 10000; i < 15000; i++) {
		wrong += put(writer, &next, 1) != 1;
		wrong += wait_for_echo(side->socket, i);
	}
	calls_end = true;
	pthread_join(thread, &calls);
	rpal_queue_counters(&after);
	ok(!wrong, "5000 more while another thread calls, %ld wrong", wrong);
	printf("# %ld calls; %lu words ran the receiver, %lu woke it\n", (long)calls,
	       after.called - before.called, after.woken - before.woken);
	is(ask(side, ECHO, 0, 0, 0), 0, "no more");
	watch(own_epfd, EPOLL_CTL_DEL, side->socket, 0);
}

struct late {
	struct side *side;
	struct rpal_writer *writer;
};

static void *watch_late(void *arg)
{
	struct late *late = arg;
	uint64_t next = 0;

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	usleep(50000);
	MUST(watch(own_epfd, EPOLL_CTL_ADD, late->side->socket, EPOLLRPALIN));
	MUST(ask(late->side, ECHO, 1, 0, 0));
	if (put(late->writer, &next, 1) != 1)
		die("a word", EPROTO);
	return NULL;
}

/* A thread waits already when another one lets its epoll file watch a queue. */
static void test_watched_late(struct side *side, struct rpal_writer *writer)
{
	struct late late = { side, writer };
	struct epoll_event event;
	int before = own_epfd;
	pthread_t thread;
	uint64_t word;

	ask(side, RESET, 0, 0, 0);
	own_epfd = epoll_create1(EPOLL_CLOEXEC);
	pthread_create(&thread, NULL, watch_late, &late);
	is(wait_events(&event, 10000), 1, "who waited before a queue was watched gets an event");
	is(event.events, EPOLLRPALIN, "EPOLLRPALIN");
	is(rpal_queue_take(side->socket, &word, 1), 1, "the word");
	pthread_join(thread, NULL);
	is(ask(side, ECHO, 0, 0, 0), 0, "no more");
	watch(own_epfd, EPOLL_CTL_DEL, side->socket, 0);
	close(own_epfd);
	own_epfd = before;
}

#define MANY 300

static void test_many(struct side *side)
{
	struct rpal_writer *writers[MANY];
	int ours[MANY], theirs[MANY], bad = 0;
	uint64_t sum = 0;

	for (int i = 0; i < MANY; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
			die("socketpair", errno);
		send_fd(side->socket, pair[1]);
		close(pair[1]);
		ours[i] = pair[0];
		theirs[i] = ask(side, ACCEPT, 0, 0, 0);
		bad += ask(side, WATCH, EPOLL_CTL_ADD, EPOLLRPALIN, theirs[i]) != 0;
		writers[i] = open_writer(&side->peer, ours[i]);
	}
	is(bad, 0, "the peer opens many queues");

	ask(side, RESET, 0, 0, 0);
	ask(side, AT_MOST, 3, 0, 0);
	make_busy(side);
	for (int i = 0; i < MANY; i++) {
		uint64_t word = (i + 1) * 1000;

		bad += rpal_queue_put(writers[i], &word, 1) != 1;
		sum += word;
	}
	go_on(side);
	/* Each of them is an event, three at a time; then it sleeps. */
	ok(state_becomes(side, WORDS_SO_FAR, MANY) && state(side, SUM_SO_FAR) == sum && !bad,
	   "%d words in as many queues, three events at a time", MANY);
	is(state(side, EVENTS_SO_FAR), MANY, "each is reported once");

	for (int i = 0; i < MANY; i++)
		bad += ask(side, WATCH, EPOLL_CTL_DEL, 0, theirs[i]) != 0;
	is(bad, 0, "and closes them");
	for (int i = 0; i < MANY; i++) {
		rpal_writer_close(writers[i]);
		close(ours[i]);
	}
	ask(side, AT_MOST, 8, 0, 0);
}

/* Words that nobody takes are an event every time: the server never sleeps. */
static void test_never_idle(struct side *side, struct rpal_writer *writer)
{
	uint64_t word = 1, before, failed = 0;

	ask(side, TAKE_BY, 0, 0, 0);
	make_busy(side);
	is(rpal_queue_put(writer, &word, 1), 1, "a word that is not taken");
	go_on(side);
	before = state(side, EVENTS_SO_FAR);
	for (int i = 0; i < 20 && !failed; i++) {
		/* Meanwhile it is itself, and finds the word over and over again. */
		usleep(5000);
		failed = ask(side, STATE, 0, 0, 0) != 0;
	}
	is(failed, 0, "a receiver that always has words is called all the same");
	ok(state(side, EVENTS_SO_FAR) > before + 100, "and goes on");
	ask(side, TAKE_BY, RPAL_PUT_WORDS, 0, 0);
}

/* Another process of ours has the same end of the socket. */
static int other_writer(int socket, int to_server, int shared_end)
{
	struct rpal_writer *writer;
	struct side server_side;
	int ret;

	enable_queues();
	become_peers(socket);
	server_side = become_peers(to_server);
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	ret = rpal_writer_open(&writer, &server_side.peer, shared_end);
	tell(socket, &ret, sizeof(ret));
	hear(socket, &ret, 1);
	return 0;
}

static void test_two_writers(struct side *side)
{
	int shared = dup(side->socket), ret;
	struct side other;
	pid_t pid;

	other = start_third("--other-writer", side, shared, &pid);
	is(ask(side, PEER, 0, 0, 0), 0, "a second peer, which has our end of the socket");
	hear(other.socket, &ret, sizeof(ret));
	is(ret, -EBUSY, "cannot write to the queue");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(shared);
}

/* The kernel's events and those of queues, when there is room for one. */
static void test_turns(struct side *side, struct rpal_writer *writer)
{
	int ready = eventfd(1, EFD_CLOEXEC), turns = 0, last = 0;
	struct epoll_event event;
	uint64_t word = 1;

	watch(own_epfd, EPOLL_CTL_ADD, side->socket, EPOLLRPALIN);
	ask(side, ECHO, 1, 0, 0);
	watch(own_epfd, EPOLL_CTL_ADD, ready, EPOLLIN);
	is(rpal_queue_put(writer, &word, 1), 1, "a word that comes back");
	while (rpal_queue_events(own_epfd, &event, 1) == 0)
		sched_yield();
	/* Neither is taken: both stay. */
	for (int i = 0; i < 20; i++) {
		if (rpal_epoll_wait(own_epfd, &event, 1, 5000) != 1)
			die("rpal_epoll_wait", errno);
		turns += event.data.fd != last;
		last = event.data.fd;
	}
	ok(turns > 15, "one event at a time: they take turns (%d of 20)", turns);
	is(rpal_queue_take(side->socket, &word, 1), 1, "the word");
	watch(own_epfd, EPOLL_CTL_DEL, side->socket, 0);
	watch(own_epfd, EPOLL_CTL_DEL, ready, 0);
	close(ready);
	ask(side, ECHO, 0, 0, 0);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rpal_writer *writer;

	MUST(rpal_attach(RPAL_ROLE_RECEIVER));
	own_epfd = epoll_create1(EPOLL_CLOEXEC);
	test_open(side);
	writer = open_writer(&side->peer, side->socket);
	test_words(side, writer);
	test_events(side, writer);
	test_room(side, writer);
	writer = test_close(side, writer);
	writer = test_opened_again(side, writer);
	test_busy(side, writer);
	test_both_ways(side, writer);
	test_watched_late(side, writer);
	test_turns(side, writer);
	test_never_idle(side, writer);
	test_many(side);
	test_two_writers(side);
	return done();
}

static void server(struct side *side, int argc, char **argv)
{
	serve(side);
}

int main(int argc, char **argv)
{
	if (argc > 4 && !strcmp(argv[1], "--other-writer"))
		return other_writer(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	if (argc > 2)
		enable_queues();
	return two_services(argc, argv, server, client);
}
