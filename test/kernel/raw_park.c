/* guest: cpus=1,2 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Receivers that park by the bare ioctl, without librpal and without callers:
 * on files of all kinds, and in threads that come and go.
 */
#include "kernel_log.h"
#include "service.h"
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

static int rpal_device;

/* The calling thread becomes a receiver: its control block, or NULL. */
static struct rpal_control *become_receiver(void)
{
	extern const char parked_here[];
	struct rpal_register request = {
		.roles = RPAL_ROLE_RECEIVER,
		.park_ip = (uint64_t)parked_here,
	};

	if (ioctl(rpal_device, RPAL_IOC_REGISTER, &request))
		return NULL;
	return (void *)request.control;
}

/* Nobody calls, so all that is needed of the context is where it goes on. */
__attribute__((noinline, noclone)) static long park(struct rpal_control *control, int fd,
						    int64_t timeout_ns)
{
	struct rpal_park park = { .epfd = fd, .timeout_ns = timeout_ns };
	long ret;

	asm volatile("movq %%rsp, %c[sp](%[control])\n\t"
		     "syscall\n"
		     "parked_here:"
		     : "=a"(ret)
		     : "a"(SYS_ioctl), "D"(rpal_device), "S"(RPAL_IOC_PARK), "d"(&park),
		       [control] "r"(control), [sp] "i"(offsetof(struct rpal_control, sp))
		     : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
	return ret;
}

static unsigned int state_of(const struct rpal_control *control)
{
	return __atomic_load_n(&control->state, __ATOMIC_SEQ_CST) & 0xff;
}

/* ---- Files ---------------------------------------------------------------------- */

struct writing {
	const struct rpal_control *control;
	int fd;
};

/* When the receiver has parked. */
static void *write_then(void *arg)
{
	struct writing *writing = arg;
	uint64_t one = 1;

	while (state_of(writing->control) != RPAL_STATE_PARKED)
		sched_yield();
	if (write(writing->fd, &one, sizeof(one)) != sizeof(one))
		_exit(90);
	return NULL;
}

static void fact(const char *file, long got, long expected, const char *what)
{
	char text[200];

	snprintf(text, sizeof(text), "%s: %s", file, what);
	is(got, expected, text);
}

/* @from becomes readable by 8 bytes that are written to @to. */
static void test_file(struct rpal_control *control, const char *what, int from, int to)
{
	struct writing writing = { control, to };
	pthread_t thread;
	uint64_t word;

	fact(what, park(control, from, 0), RPAL_PARK_TIMEOUT, "nothing to read, no time");
	fact(what, park(control, from, 1000000), RPAL_PARK_TIMEOUT, "nothing for a millisecond");
	pthread_create(&thread, NULL, write_then, &writing);
	fact(what, park(control, from, -1), RPAL_PARK_EVENT, "written while it is parked");
	pthread_join(thread, NULL);
	fact(what, park(control, from, -1), RPAL_PARK_EVENT, "still there");
	fact(what, read(from, &word, sizeof(word)), sizeof(word), "and can be read");
	fact(what, park(control, from, 0), RPAL_PARK_TIMEOUT, "nothing any more");
	fact(what, state_of(control), RPAL_STATE_RUN, "it is not parked");
}

static void test_files(struct rpal_control *control)
{
	int event = eventfd(0, EFD_CLOEXEC), pipes[2], fifo, regular;

	test_file(control, "eventfd", event, event);
	if (pipe2(pipes, O_CLOEXEC))
		bail_out("pipe");
	test_file(control, "pipe", pipes[0], pipes[1]);
	/* Readers and writers of a pipe wait in queues of their own: here in both. */
	mkfifo("/tmp/raw-park", 0600);
	fifo = open("/tmp/raw-park", O_RDWR | O_CLOEXEC);
	unlink("/tmp/raw-park");
	test_file(control, "a file with two wait queues", fifo, fifo);

	regular = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	is(park(control, regular, -1), -EINVAL, "a file without any");
	close(regular);
	is(park(control, regular, -1), -EBADF, "no file");
	is(state_of(control), RPAL_STATE_RUN, "neither has parked it");
}

/* ---- Threads ---------------------------------------------------------------------- */

#define THREADS 6
#define SECONDS 2

static bool in_time(void)
{
	static _Thread_local struct timespec begin;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!begin.tv_sec)
		begin = now;
	return now.tv_sec - begin.tv_sec <= SECONDS;
}

static unsigned long lives;

/* What a thread leaves must not come into what another one has just got. */
static void *come_and_go(void *failed)
{
	while (in_time()) {
		struct rpal_control *control = become_receiver();

		if (!control || park(control, -1, 20000) != RPAL_PARK_TIMEOUT ||
		    ioctl(rpal_device, RPAL_IOC_UNREGISTER, RPAL_ROLE_RECEIVER)) {
			*(bool *)failed = true;
			break;
		}
		__atomic_fetch_add(&lives, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void test_threads(void)
{
	pthread_t threads[THREADS];
	bool failed = false;

	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, come_and_go, &failed);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("# %lu receivers\n", lives);
	ok(!failed && lives > THREADS, "receivers that come and go find their contexts again");
}

static int receiver(int socket)
{
	struct rpal_control *control;

	rpal_device = device();
	control = become_receiver();
	if (!control)
		bail_out("RPAL_IOC_REGISTER");
	test_files(control);
	test_threads();
	return tell_counts(socket);
}

const struct role roles[] = { { "receiver", receiver }, {} };

int main(int argc, char **argv)
{
	int log;

	RUN_ROLE(argc, argv);
	/* A thread with an rseq area cannot be registered. */
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	log = kernel_log_from_now();
	test_in_service("receiver");
	kernel_log_is_quiet(log);
	return done();
}
