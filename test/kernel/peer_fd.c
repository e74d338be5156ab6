/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * RPAL_IOC_PEER_FD: the descriptor that a peer has for the other end of a Unix
 * socket. RPAL_IOC_WAKE: a peer's receiver looks around.
 */
#include "handed_back.h"
#include "loan_limit.h"
#include "receiver_state.h"
#include "two_services.h"
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/un.h>

enum {
	YOUR_FD,     /* answers: the server's end of the socket to the client */
	DUP_TO,	     /* word[1] becomes another descriptor of it */
	CLOSE,	     /* word[1] */
	LISTEN,	     /* on the address below; answers: descriptor */
	ACCEPT,	     /* on word[1]; answers: descriptor */
	PARKS,	     /* answers: how often the receiver has parked */
	BUSY,	     /* says so on the socket, and waits until it is told to go on */
	WAKE,	     /* the thread in word 1 */
	SPIN,	     /* on loan, until its task wants to look; answers: whether it did */
	LOSE_LEADER, /* the main thread ends, another is the receiver by then */
};

static struct sockaddr_un address_of(pid_t pid)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	/* Abstract: its first byte is 0. */
	snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "rpal-peer-fd-%d", pid);
	return address;
}

static int listen_here(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = address_of(getpid());

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 4))
		return -errno;
	return fd;
}

static struct side *server_side;

/* No system call until then: the context stays on loan, if no tick ends that. */
static bool spin_until_wanted(void)
{
	const __u64 *state = &own_control()->state;
	uint64_t word;

	do
		word = __atomic_load_n(state, __ATOMIC_SEQ_CST);
	while ((word & 0xff) == RPAL_STATE_ACTIVE && !(word & RPAL_FLAG_WANTED));
	/* And this one hands it back. */
	getppid();
	return word & RPAL_FLAG_WANTED;
}

static void obey(struct rpal_message *m)
{
	struct rpal_counters counters;
	char byte;

	switch (m->word[0]) {
	case YOUR_FD:
		m->word[0] = server_side->socket;
		break;
	case DUP_TO:
		m->word[0] = result(dup2(server_side->socket, m->word[1]));
		break;
	case CLOSE:
		m->word[0] = result(close(m->word[1]));
		break;
	case LISTEN:
		m->word[0] = listen_here();
		break;
	case ACCEPT:
		m->word[0] = result(accept(m->word[1], NULL, NULL));
		break;
	case PARKS:
		rpal_counters(&counters);
		m->word[0] = counters.parks;
		break;
	case WAKE:
		m->word[0] = result(ioctl(rpal_open(), RPAL_IOC_WAKE, m->word[1]));
		break;
	case SPIN:
		m->word[0] = spin_until_wanted();
		break;
	case BUSY:
		tell(server_side->socket, "b", 1);
		hear(server_side->socket, &byte, 1);
		break;
	}
}

static void *receive(void *arg)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	if (arg)
		introduce_receiver(server_side, RPAL_ROLE_RECEIVER);
	for (;;) {
		struct rpal_message m;
		struct epoll_event event;
		pthread_t thread;

		if (rpal_epoll_wait(epfd, &event, 1, -1) != 1 || rpal_take(&m, NULL) != 1)
			die("rpal_epoll_wait", EPROTO);
		if (m.word[0] == LOSE_LEADER) {
			pthread_create(&thread, NULL, receive, server_side);
			rpal_detach();
			pthread_exit(NULL);
		}
		obey(&m);
		rpal_reply(0, &m);
	}
	return NULL;
}

static void server(struct side *side, int argc, char **argv)
{
	server_side = side;
	receive(NULL);
}

static long ask(struct side *side, uint64_t what, uint64_t argument)
{
	struct rpal_message m = { { what, argument } };
	int ret = rpal_call(&side->target, &m, 5000);

	return ret ? ret : (long)m.word[0];
}

static long peer_fd(int fd, uint32_t id)
{
	struct rpal_peer_fd request = { .fd = fd, .id = id, .peer_fd = -77 };
	long ret = result(ioctl(rpal_open(), RPAL_IOC_PEER_FD, &request));

	if (ret && request.peer_fd != -77)
		return -EBADMSG;
	return ret ? ret : request.peer_fd;
}

static void test_errors(struct side *side)
{
	struct rpal_peer_fd request = { .fd = side->socket, .id = side->peer.id, .reserved = 1 };
	int id = side->peer.id, device = rpal_open(), pair[2], fds[2];
	struct side other;
	pid_t pid;

	is(result(ioctl(device, RPAL_IOC_PEER_FD, NULL)), -EFAULT, "no buffer");
	is(result(ioctl(device, RPAL_IOC_PEER_FD, &request)), -EINVAL, "reserved is not 0");
	is(peer_fd(-1, id), -EBADF, "descriptor -1");
	is(peer_fd(999, id), -EBADF, "one that is not open");
	is(peer_fd(device, id), -ENOTSOCK, "a device");
	if (pipe(fds))
		die("pipe", errno);
	is(peer_fd(fds[0], id), -ENOTSOCK, "a pipe");
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	is(peer_fd(fds[0], id), -EPROTONOSUPPORT, "a TCP socket");
	socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
	is(peer_fd(pair[0], id), -EPROTONOSUPPORT, "a datagram socket");
	fds[1] = socket(AF_UNIX, SOCK_STREAM, 0);
	is(peer_fd(fds[1], id), -ENOTCONN, "a socket that is not connected");
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	is(peer_fd(pair[0], id), -ENOENT, "one that is connected to this process");
	is(peer_fd(side->socket, 0), -ESRCH, "service 0");
	is(peer_fd(side->socket, rpal_service()->id), -ESRCH, "itself");
	is(peer_fd(side->socket, 254), -ESRCH, "a service that is not there");
	is(peer_fd(side->socket, 256 + id), -ESRCH, "no service id at all");

	other = start_peer("--other", 0, NULL, &pid);
	is(peer_fd(side->socket, other.peer.id), -ENOENT, "a peer that has another socket");
	ok(peer_fd(other.socket, other.peer.id) >= 0, "a second peer");
	MUST(rpal_peer_release(other.peer.id));
	is(peer_fd(other.socket, other.peer.id), -ESRCH, "which is no peer any more");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_sockets(struct side *side)
{
	int id = side->peer.id, fd = ask(side, YOUR_FD, 0), listener, accepted, connection;
	struct sockaddr_un address = address_of(side->other);

	is(peer_fd(side->socket, id), fd, "the peer's end");
	is(ask(side, DUP_TO, fd + 20), fd + 20, "the peer makes another descriptor");
	is(peer_fd(side->socket, id), fd, "the lowest is found");
	is(peer_fd(dup(side->socket), id), fd, "also by another of our own");

	listener = ask(side, LISTEN, 0);
	connection = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	if (listener < 0 || connect(connection, (struct sockaddr *)&address, sizeof(address)))
		die("connect", errno);
	is(peer_fd(connection, id), -ENOENT, "a connection that was not accepted");
	accepted = ask(side, ACCEPT, listener);
	is(peer_fd(connection, id), accepted, "it is now");
	is(ask(side, CLOSE, accepted), 0, "the peer closes it");
	is(peer_fd(connection, id), -ENOENT, "then it has no end any more");
}

static long parks(struct side *side)
{
	return ask(side, PARKS, 0);
}

/*
 * How often the receiver has parked, all parks that follow from @back calls
 * that were handed back among them.
 */
static long settled_parks(struct side *side, long *back)
{
	long now;

	do {
		*back = handed_back();
		now = parks(side);
	} while ((long)handed_back() != *back);
	return now;
}

/*
 * How often the receiver has parked for another reason than that a call was
 * handed back, since it had parked @before times and @back calls had been: at
 * least once, this waits for it.
 */
static long more_parks(struct side *side, long before, long back)
{
	long expected, now;

	do {
		/* Each park follows the call that was handed back. */
		expected = before + handed_back() - back;
		now = parks(side);
	} while (now == expected);
	return now - expected;
}

/* The same, when one more call has not made it park. */
static long parks_at_rest(struct side *side, long *back)
{
	long before;

	do
		before = settled_parks(side, back);
	while (parks(side) != before || (long)handed_back() != *back);
	return before;
}

struct waker {
	const struct side *side;
	volatile bool over; /* the call has ended, on loan or handed back */
};

static void *wake_on_loan(void *arg)
{
	const struct waker *waker = arg;
	const struct side *side = waker->side;

	while (receiver_state(side->other, side->target.tid) != RPAL_STATE_ACTIVE) {
		if (waker->over)
			return NULL;
		sched_yield();
	}
	MUST(result(ioctl(rpal_open(), RPAL_IOC_WAKE, (unsigned long)side->target.tid)));
	return NULL;
}

/* The receiver's task wants its context for the wake-up, and gets it with a call to end. */
static void test_wake_on_loan(struct side *side)
{
	long before, back, wanted;
	pthread_t thread;

	do {
		struct waker waker = { .side = side };

		before = parks_at_rest(side, &back);
		if (pthread_create(&thread, NULL, wake_on_loan, &waker))
			die("pthread_create", errno);
		wanted = ask(side, SPIN, 0);
		waker.over = true;
		pthread_join(thread, NULL);
	} while (!wanted);
	is(more_parks(side, before, back), 1,
	   "woken on loan and handed back then, its next park has ended at once");
}

static void test_wake(struct side *side)
{
	unsigned long tid = side->target.tid;
	int device = rpal_open();
	long before, back;
	char byte;

	is(result(ioctl(device, RPAL_IOC_WAKE, 0)), -ESRCH, "nobody to wake");
	is(result(ioctl(device, RPAL_IOC_WAKE, tid ^ 1 << 16)), -ESRCH, "an old thread id");
	is(result(ioctl(device, RPAL_IOC_WAKE, tid | 1UL << 32)), -ESRCH, "no thread id at all");
	is(result(ioctl(device, RPAL_IOC_WAKE, (unsigned long)rpal_tid())), -ESRCH, "oneself");
	is(ask(side, WAKE, rpal_tid()), -ESRCH, "a thread that only calls");

	limit_loans(LONGEST_LOAN_LIMIT);
	before = parks_at_rest(side, &back);
	ok(true, "calls do not make a receiver park anew");
	is(result(ioctl(device, RPAL_IOC_WAKE, tid)), 0, "wake it");
	/* It is on its way: until it has parked again, a call waits. */
	is(more_parks(side, before, back), 1, "it has looked around, and parked again");

	before = settled_parks(side, &back);
	is(rpal_post(&side->target, &(struct rpal_message){ { BUSY } }, 5000), -EINPROGRESS,
	   "it is busy");
	hear(side->socket, &byte, 1);
	is(result(ioctl(device, RPAL_IOC_WAKE, tid)), 0, "wake it");
	is(result(ioctl(device, RPAL_IOC_WAKE, tid)), 0, "and again");
	tell(side->socket, "g", 1);
	is(more_parks(side, before, back), 1, "its next park has ended at once, once");
	if (loans_can_be_met())
		test_wake_on_loan(side);
	limit_loans(DEFAULT_LOAN_LIMIT);
}

static int client(struct side *side, int argc, char **argv)
{
	int id = side->peer.id, fd = ask(side, YOUR_FD, 0), now;

	test_errors(side);
	test_sockets(side);
	test_wake(side);

	is(ask(side, LOSE_LEADER, 0), -EOWNERDEAD, "the main thread of the peer ends");
	meet_receiver(side);
	is(peer_fd(side->socket, id), fd, "its descriptors are found all the same");
	is(ask(side, YOUR_FD, 0), fd, "by another thread's");
	kill(side->other, SIGKILL);
	/* It can be looked at while it closes its descriptors. */
	while ((now = peer_fd(side->socket, id)) == fd || now == -ENOENT)
		usleep(1000);
	is(now, -ESRCH, "the peer is dead");
	return done();
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "--other")) {
		become_peers(atoi(argv[2]));
		pause();
	}
	return two_services(argc, argv, server, client);
}
