/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * What there is only so much of: control blocks, protection keys, answers that
 * nobody collects. Who asks for more gets a clear error, or the oldest goes, and
 * what is given back can be had again. (many_services.c takes all the ids, and
 * fail_nth.c all the memory.)
 */
#include "free_again.h"
#include "kernel_log.h"
#include "memory.h"
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/time.h>

/* ---- Threads of a service ----------------------------------------------------- */

static sem_t attached, leave;

struct member {
	pthread_t thread;
	int result;
};

static void *attach(void *arg)
{
	struct member *member = arg;

	member->result = rpal_attach(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER);
	sem_post(&attached);
	sem_wait(&leave);
	return NULL;
}

static int start_members(struct member *members, int count)
{
	pthread_attr_t attributes;
	int good = 0;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	for (int i = 0; i < count; i++) {
		if (pthread_create(&members[i].thread, &attributes, attach, &members[i]))
			die("pthread_create", errno);
		sem_wait(&attached);
		good += members[i].result == 0;
	}
	return good;
}

static void end_members(struct member *members, int count)
{
	for (int i = 0; i < count; i++)
		sem_post(&leave);
	for (int i = 0; i < count; i++)
		pthread_join(members[i].thread, NULL);
}

static void test_threads(void)
{
	static struct member members[RPAL_THREADS_MAX + 1];

	is(start_members(members, RPAL_THREADS_MAX), RPAL_THREADS_MAX,
	   "so many threads of a service can attach");
	start_members(members + RPAL_THREADS_MAX, 1);
	is(members[RPAL_THREADS_MAX].result, -EUSERS, "one more is refused");
	end_members(members, RPAL_THREADS_MAX + 1);
	is(start_members(members, RPAL_THREADS_MAX), RPAL_THREADS_MAX, "and then all can again");
	end_members(members, RPAL_THREADS_MAX);
}

/* ---- Protection keys ------------------------------------------------------------ */

static uint64_t ask(int socket, uint64_t key)
{
	int64_t answer;

	tell(socket, &key, sizeof(key));
	hear(socket, &answer, sizeof(answer));
	return answer;
}

/* --member SOCKET: asks for the services whose keys it is told. */
static int member(int socket)
{
	struct rpal_peer peer;
	uint64_t key;

	MUST(rpal_open());
	MUST(rpal_enable(0));
	tell(socket, rpal_service(), sizeof(struct rpal_info));
	while (read(socket, &key, sizeof(key)) == sizeof(key)) {
		int64_t answer = rpal_peer_request(key, &peer);

		tell(socket, &answer, sizeof(answer));
	}
	return 0;
}

/* This service, and so many that each key is used twice. */
#define SERVICES (2 * PKEYS - 1)

static void test_pkeys(void)
{
	struct rpal_info infos[SERVICES];
	int sockets[SERVICES], pair[2], shared = 0, refused = 0, linked = 0;
	unsigned int uses[PKEYS + 1] = {};
	bool mpk = rpal_service()->caps & RPAL_CAP_MPK;

	uses[rpal_service()->pkey]++;
	for (int i = 0; i < SERVICES; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			die("socketpair", errno);
		if (start_service("--member", pair[1], 0, NULL) < 0)
			die("a member", errno);
		close(pair[1]);
		sockets[i] = pair[0];
		hear(sockets[i], &infos[i], sizeof(infos[i]));
		uses[infos[i].pkey]++;
	}
	for (int key = 1; key <= PKEYS; key++)
		shared += uses[key] == 2;
	ok(!mpk || shared == PKEYS, "%d services share %d keys evenly", SERVICES + 1, shared);
	for (int i = 1; i < SERVICES; i++) {
		int64_t answer = ask(sockets[0], infos[i].key);

		if (infos[i].pkey == infos[0].pkey && mpk)
			refused += answer == -EADDRINUSE;
		else
			linked += answer == 0;
	}
	is(refused, mpk, "two with the same key cannot be peers");
	is(linked, SERVICES - 1 - mpk, "all others can");
	for (int i = 0; i < SERVICES; i++)
		close(sockets[i]);
	for (int i = 0; i < SERVICES; i++)
		wait(NULL);
}

/* ---- Answers that nobody collects ------------------------------------------------ */

#define ANSWERS 200

static int handle(struct rpal_message *m)
{
	/* Until the caller has gone away from its call. */
	usleep(m->word[0]);
	m->word[1] = ~m->word[2];
	return 0;
}

static sigjmp_buf away;
static volatile bool in_call;

static void leave_call(int signal)
{
	if (in_call)
		siglongjmp(away, 1);
}

/* Calls that the caller leaves by a jump, so that their answers stay. Their numbers. */
static void leave_calls(struct side *side, uint64_t *numbers, int most)
{
	struct sigaction action = { .sa_handler = leave_call };
	struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = {};
	volatile int left = 0;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (left < most) {
		struct rpal_message m = { { 500 } };
		static struct rpal_counters before, after;

		rpal_counters(&before);
		if (!sigsetjmp(away, 1)) {
			in_call = true;
			rpal_call(&side->target, &m, -1);
			in_call = false;
		} else {
			in_call = false;
			/* Or it was waiting for the server to be free. */
			rpal_counters(&after);
			if (after.handed_back > before.handed_back)
				numbers[left++] = own_control()->call_seq;
		}
	}
	setitimer(ITIMER_REAL, &never, NULL);
}

/* Of a call that was left. */
static long collect(uint64_t number, struct rpal_message *m)
{
	struct rpal_wait_reply wait = {
		.seq = number,
		.timeout_ns = -1,
		.message = (uintptr_t)m,
	};

	return result(ioctl(rpal_open(), RPAL_IOC_WAIT_REPLY, &wait)) ?: (long)wait.status;
}

static void test_answers(struct side *side)
{
	struct rpal_message m = { { 1, 0, 5 } };
	uint64_t numbers[ANSWERS];
	int kept = 0, gone = 0, old = 0, lost = 0;

	leave_calls(side, numbers, ANSWERS);
	for (int i = 0; i < ANSWERS; i++) {
		struct rpal_message answer = {};
		long bad = collect(numbers[i], (void *)8);
		long ret = collect(numbers[i], &answer);

		lost += bad != (ret ? ret : -EFAULT);
		kept += !ret && answer.word[1] == ~0ULL;
		/* Or the call was left just when it had its answer. */
		gone += ret == -ENOENT;
		old += !ret && i < ANSWERS / 2;
	}
	ok(kept > 0 && kept < ANSWERS / 2 && !old && kept + gone == ANSWERS,
	   "of %d answers that nobody collected the newest are kept (%d)", ANSWERS, kept);
	is(lost, 0, "who asks for one at a bad address can ask again");
	is(collect(numbers[ANSWERS - 1], &m), -ENOENT, "each can be had once");
	ok(rpal_call(&side->target, &m, -1) == 0 && m.word[1] == ~5ULL, "and then a call works");
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static int client(struct side *side, int argc, char **argv)
{
	struct rlimit files = { 1024, 1024 };
	int log = kernel_log_from_now();

	setrlimit(RLIMIT_NOFILE, &files);
	test_answers(side);
	test_pkeys();
	/* This thread has one of the blocks. */
	MUST(rpal_detach());
	test_threads();
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--member"))
		return member(atoi(argv[2]));
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	return two_services(argc, argv, server, client);
}
