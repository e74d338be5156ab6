/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * io_uring in services: kernel threads and interrupted tasks act for them, in
 * their memory, while the context that asked for it may be anywhere.
 */
#include "handed_back.h"
#include "io_ring.h"
#include "loan_limit.h"
#include "pin.h"
#include <pthread.h>

#define BYTES 8192

/* How data gets from memory to a file and back. */
enum way {
	PLAIN,
	REGISTERED, /* memory that the kernel has pinned before */
	ASYNC,	    /* by another kernel thread */
	POLLED,	    /* submitted by a kernel thread: no system call */
	WAYS,
};

static const char *const names[] = { "plain", "registered buffers", "kernel threads", "SQPOLL" };

struct io {
	struct io_ring ring;
	int file;
	char *memory; /* BYTES to write and BYTES to read */
};

static struct io start_io(unsigned int ring_flags)
{
	struct io io = { .ring = new_io_ring(ring_flags), .file = memfd_create("io", MFD_CLOEXEC) };
	struct iovec all = { .iov_len = 2 * BYTES };

	io.memory = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	if (io.file < 0 || io.memory == MAP_FAILED)
		die("a file and memory for it", errno);
	all.iov_base = io.memory;
	if (syscall(SYS_io_uring_register, io.ring.fd, IORING_REGISTER_BUFFERS, &all, 1))
		die("IORING_REGISTER_BUFFERS", errno);
	return io;
}

static void end_io(struct io *io)
{
	end_io_ring(&io->ring);
	close(io->file);
	munmap(io->memory, 2 * BYTES);
}

static void queue_transfer(struct io *io, enum way how, bool write)
{
	struct io_uring_sqe sqe = {
		.opcode = how == REGISTERED ?
				  (write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED) :
				  (write ? IORING_OP_WRITE : IORING_OP_READ),
		.flags = (how == ASYNC ? IOSQE_ASYNC : 0) | (write ? IOSQE_IO_LINK : 0),
		.fd = io->file,
		.addr = (uintptr_t)(write ? io->memory : io->memory + BYTES),
		.len = BYTES,
		.user_data = write,
	};

	io_queue(&io->ring, &sqe);
}

/* The next result, which is there or comes by itself. */
static int await_result(struct io_ring *ring)
{
	int res;

	while (!io_result(ring, &res))
		;
	return res;
}

/* Writes a file and reads it back. Return: 0, or what went wrong. */
static int transfer(struct io *io, enum way how, uint64_t seed)
{
	uint64_t *words = (uint64_t *)io->memory;
	int ret = 0;

	for (size_t i = 0; i < BYTES / sizeof(*words); i++)
		words[i] = seed * 12345 + i;
	queue_transfer(io, how, true);
	queue_transfer(io, how, false);
	if (how == POLLED)
		io_let_poll(&io->ring);
	else
		ret = io_submit_and_wait(&io->ring, 2);
	for (int i = 0; i < 2 && !ret; i++) {
		int res = await_result(&io->ring);

		if (res != BYTES)
			ret = res < 0 ? res : -EIO;
	}
	if (!ret && memcmp(io->memory, io->memory + BYTES, BYTES))
		ret = -EBADMSG;
	memset(io->memory + BYTES, 0, BYTES);
	return ret;
}

static void queue_timeout(struct io_ring *ring, const struct __kernel_timespec *when)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_TIMEOUT,
		.addr = (uintptr_t)when,
		.len = 1,
	};

	io_queue(ring, &sqe);
}

/* What a call asks the server for. */
enum {
	ADD,	   /* words 1 and 2 */
	TRANSFER,  /* by way word 1, with seed word 2 */
	TIMEOUT,   /* of word 1 ns */
	POLL,	   /* word 1: begin or end to have a ring that a kernel thread polls */
	RECEIVED,  /* words that came over the socket, their sum, and how often there was none */
	BACKGROUND, /* word 1: another thread begins or ends to transfer; rounds, and wrong ones */
	MEMORY,	   /* an address */
};

static struct io own, polled;

/* Words that come over the socket are received by a ring, one at a time. */
static struct {
	struct io_ring ring;
	int socket;
	uint64_t word, count, sum, failed;
} receiver;

static void receive_next(void)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_RECV,
		.fd = receiver.socket,
		.addr = (uintptr_t)&receiver.word,
		.len = sizeof(receiver.word),
		.msg_flags = MSG_WAITALL,
	};

	io_queue(&receiver.ring, &sqe);
	MUST(io_submit_and_wait(&receiver.ring, 0));
}

static void take_received(void)
{
	int res;

	while (io_result(&receiver.ring, &res)) {
		if (res == sizeof(receiver.word)) {
			receiver.count++;
			receiver.sum += receiver.word;
		} else {
			receiver.failed++;
		}
		receive_next();
	}
}

static struct {
	pthread_t thread;
	volatile bool stop;
	uint64_t rounds, wrong;
} background;

static void *transfer_in_background(void *arg)
{
	struct io io = start_io(0);

	while (!background.stop) {
		background.wrong += transfer(&io, background.rounds % POLLED, background.rounds) != 0;
		background.rounds++;
	}
	end_io(&io);
	return NULL;
}

static int handle(struct rpal_message *m)
{
	struct __kernel_timespec when;

	switch (m->word[0]) {
	case ADD:
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	case TRANSFER:
		return transfer(m->word[1] == POLLED ? &polled : &own, m->word[1], m->word[2]);
	case TIMEOUT:
		when = (struct __kernel_timespec){ .tv_nsec = m->word[1] };
		queue_timeout(&own.ring, &when);
		m->word[0] = io_submit_and_wait(&own.ring, 1);
		m->word[1] = await_result(&own.ring);
		return 0;
	case POLL:
		if (m->word[1])
			polled = start_io(IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF);
		else
			end_io(&polled);
		return 0;
	case RECEIVED:
		*m = (struct rpal_message){ { receiver.count, receiver.sum, receiver.failed } };
		return 0;
	case BACKGROUND:
		background.stop = !m->word[1];
		if (m->word[1])
			return -pthread_create(&background.thread, NULL, transfer_in_background,
					       NULL);
		pthread_join(background.thread, NULL);
		*m = (struct rpal_message){ { background.rounds, background.wrong } };
		return 0;
	case MEMORY:
		m->word[0] = (uintptr_t)own.memory;
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = 1 };
	struct epoll_event words = { .events = EPOLLIN, .data.u64 = 2 };
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	own = start_io(0);
	receiver.ring = new_io_ring(0);
	receiver.socket = side->socket;
	receive_next();
	MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, receiver.ring.fd, &words));
	MUST(rpal_call_event(&call));
	for (;;) {
		struct epoll_event events[2];
		struct rpal_message m;
		int n = rpal_epoll_wait(epfd, events, 2, -1);

		/* A task that does something for a ring is interrupted, as by a signal. */
		if (n < 0 && errno != EINTR)
			die("rpal_epoll_wait", errno);
		for (int i = 0; i < n; i++) {
			if (events[i].data.u64 == 2) {
				take_received();
			} else if (rpal_take(&m, NULL) == 1) {
				int status = handle(&m);

				rpal_reply(status, &m);
			}
		}
	}
}

static int ask(struct side *side, struct rpal_message *m, uint64_t what, uint64_t one,
	       uint64_t two)
{
	*m = (struct rpal_message){ { what, one, two } };
	return rpal_call(&side->target, m, -1);
}

static bool add_is_right(struct side *side, uint64_t i)
{
	struct rpal_message m;

	return !ask(side, &m, ADD, i, i * 7) && m.word[0] == i * 8;
}

/* As the first thing that could go wrong; there may be more. */
static void note(long *wrong, int error)
{
	if (error && !(*wrong)++)
		printf("# %s\n", strerror(-error));
}

static void test_handler(struct side *side)
{
	struct rpal_message m;
	long wrong = 0;

	for (enum way way = 0; way < POLLED; way++) {
		uint64_t before = handed_back();

		wrong = 0;
		for (int i = 0; i < 100; i++)
			note(&wrong, ask(side, &m, TRANSFER, way, i));
		ok(!wrong && handed_back() - before == 100,
		   "%s: 100 handlers transfer, after they were on loan (%ld wrong)", names[way],
		   wrong);
	}
	wrong = 0;
	for (int i = 0; i < 20; i++)
		wrong += ask(side, &m, TIMEOUT, 200000, 0) || m.word[0] ||
			 (int)m.word[1] != -ETIME;
	is(wrong, 0, "20 handlers wait for a timeout");
}

static void test_client(struct side *side, struct io *io)
{
	long wrong;

	for (enum way way = 0; way < POLLED; way++) {
		wrong = 0;
		for (int i = 0; i < 100; i++) {
			note(&wrong, transfer(io, way, i));
			note(&wrong, add_is_right(side, i) ? 0 : -EBADMSG);
		}
		ok(!wrong, "%s: 100 transfers of a client between its calls (%ld wrong)",
		   names[way], wrong);
	}
}

/* The client's task is interrupted for its ring while it has a context on loan. */
static void test_interrupted_client(struct side *side, struct io *io)
{
	struct __kernel_timespec times[8];
	long wrong = 0, late = 0, started = 0, ended = 0, calls = 0;
	uint64_t before = handed_back();

	while (ended < 200) {
		int res;

		while (started < 200 && started - ended < 8) {
			struct __kernel_timespec *when = &times[started % 8];

			*when = (struct __kernel_timespec){ .tv_nsec = 50000 + started * 7000 };
			queue_timeout(&io->ring, when);
			MUST(io_submit_and_wait(&io->ring, 0));
			started++;
		}
		for (int i = 0; i < 16; i++)
			wrong += !add_is_right(side, calls++);
		while (io_result(&io->ring, &res)) {
			late += res != -ETIME;
			ended++;
		}
	}
	ok(!wrong && !late, "%ld timeouts during %ld calls, %ld wrong, %ld answers wrong", ended,
	   calls, late, wrong);
	printf("# handed back %llu\n", (unsigned long long)(handed_back() - before));
}

/* The server's task is, while it is parked or its context on loan. */
static void test_interrupted_server(struct side *side)
{
	struct rpal_message m;
	uint64_t sum = 0;
	long wrong = 0;

	for (uint64_t i = 0; i < 500; i++) {
		tell(side->socket, &i, sizeof(i));
		sum += i;
		for (int j = 0; j < 8; j++)
			wrong += !add_is_right(side, i + j);
	}
	do {
		wrong += ask(side, &m, RECEIVED, 0, 0) != 0;
	} while (m.word[0] < 500 && !m.word[2] && !wrong);
	ok(m.word[0] == 500 && m.word[1] == sum && !m.word[2],
	   "of 500 words to a called server its ring receives %llu", m.word[0]);
	is(wrong, 0, "and its answers are right");
}

static void test_background(struct side *side)
{
	struct rpal_message m;
	long wrong = 0;

	MUST(ask(side, &m, BACKGROUND, true, 0));
	for (uint64_t i = 0; i < 20000; i++)
		wrong += !add_is_right(side, i);
	MUST(ask(side, &m, BACKGROUND, false, 0));
	ok(m.word[0] && !m.word[1] && !wrong,
	   "20000 calls while another thread transfers: %ld wrong, and %llu of %llu transfers",
	   wrong, m.word[1], m.word[0]);
}

/* Result of a write from there. */
static int write_from(struct io *io, uint64_t address, unsigned int flags)
{
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_WRITE,
		.flags = flags,
		.fd = io->file,
		.addr = address,
		.len = 8,
	};

	io_queue(&io->ring, &sqe);
	MUST(io_submit_and_wait(&io->ring, 1));
	return await_result(&io->ring);
}

/* A ring is no way to a peer's memory. */
static void test_peers_memory(struct side *side, struct io *io)
{
	struct rpal_message m;
	struct iovec all;

	MUST(ask(side, &m, MEMORY, 0, 0));
	is(write_from(io, (uintptr_t)io->memory, 0), 8, "own memory can be written to a file");
	is(write_from(io, m.word[0], 0), -EFAULT, "but not the peer's");
	is(write_from(io, m.word[0], IOSQE_ASYNC), -EFAULT, "not by a kernel thread either");
	all = (struct iovec){ (void *)m.word[0], BYTES };
	is(result(syscall(SYS_io_uring_register, io->ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0)),
	   0, "own memory is unregistered");
	is(result(syscall(SYS_io_uring_register, io->ring.fd, IORING_REGISTER_BUFFERS, &all, 1)),
	   -EFAULT, "and the peer's cannot be registered");
}

static void test_polled(struct side *side)
{
	struct rpal_message m;
	uint64_t before;
	long wrong = 0;
	struct io io;

	pin(0);
	MUST(ask(side, &m, POLL, true, 0));
	before = handed_back();
	for (int i = 0; i < 50; i++)
		note(&wrong, ask(side, &m, TRANSFER, POLLED, i));
	/*
	 * The kernel ends a loan now and then for something of its own, and
	 * each if the other thread has no CPU but this one.
	 */
	ok(!wrong && (handed_back() - before < 25 || !loans_can_be_met()),
	   "50 handlers transfer by a kernel thread that polls, %llu handed back, %ld wrong",
	   (unsigned long long)(handed_back() - before), wrong);
	MUST(ask(side, &m, POLL, false, 0));

	wrong = 0;
	io = start_io(IORING_SETUP_SQPOLL);
	for (int i = 0; i < 20; i++) {
		queue_transfer(&io, POLLED, true);
		io_let_poll(&io.ring);
		note(&wrong, add_is_right(side, i) ? 0 : -EBADMSG);
		note(&wrong, await_result(&io.ring) == BYTES ? 0 : -EIO);
		note(&wrong, transfer(&io, POLLED, i));
	}
	is(wrong, 0, "a client calls while such a thread is in its memory");
	end_io(&io);
}

static int client(struct side *side, int argc, char **argv)
{
	struct io io = start_io(0);

	test_handler(side);
	test_client(side, &io);
	test_interrupted_client(side, &io);
	test_interrupted_server(side);
	test_background(side);
	test_peers_memory(side, &io);
	/* A loan must not end for another reason. */
	limit_loans(LONGEST_LOAN_LIMIT);
	test_polled(side);
	limit_loans(DEFAULT_LOAN_LIMIT);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
