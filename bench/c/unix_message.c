// SPDX-License-Identifier: MIT
/*
 * The rival: the same 32 bytes there and back over a Unix stream socket, with
 * epoll on both sides, between two ordinary processes.
 */
#include "measure.h"
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct end {
	int socket, epfd;
};

static struct end end_of(int socket)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = socket };
	struct end end = { socket, epoll_create1(EPOLL_CLOEXEC) };

	if (epoll_ctl(end.epfd, EPOLL_CTL_ADD, socket, &event)) {
		perror("epoll_ctl");
		exit(2);
	}
	return end;
}

static inline void receive(const struct end *end, struct record *record)
{
	struct epoll_event event;

	while (epoll_wait(end->epfd, &event, 1, -1) < 1)
		;
	if (read(event.data.fd, record, sizeof(*record)) != sizeof(*record))
		exit(0);
}

static inline void transmit(const struct end *end, const struct record *record)
{
	if (write(end->socket, record, sizeof(*record)) != sizeof(*record)) {
		perror("write");
		exit(2);
	}
}

static void server(const struct plan *plan, int socket)
{
	struct samples samples = samples_for(plan->messages);
	uint64_t cost = clock_cost(plan), next = 0;
	struct end end = end_of(socket);
	struct record record;

	for (;;) {
		receive(&end, &record);
		if (record.stamp)
			sample(&samples, ticks(plan) - record.stamp - cost);
		if (record.number == LAST) {
			save(plan, "c-unix-one-way", &samples);
			next = LAST;
		}
		if (record.number == 0)
			next = 0;
		verify(right(&record, next++), record.number);
		enter_kernel(plan);
		answer(&record);
		transmit(&end, &record);
	}
}

static inline void send_one(const struct end *end, uint64_t number, uint64_t stamp)
{
	struct record record;

	fill(&record, number, stamp);
	transmit(end, &record);
	receive(end, &record);
	verify(right(&record, ~number), number);
}

int main(int argc, char **argv)
{
	struct run run = run_of(argv);
	long messages = run.plan.messages;
	uint64_t start, total;
	struct syscall_count count;
	int sockets[2];
	struct end end;
	double calls;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) {
		perror("socketpair");
		return 2;
	}
	child = fork();
	if (child == 0) {
		close(sockets[1]);
		server(&run.plan, sockets[0]);
	}
	close(sockets[0]);
	end = end_of(sockets[1]);

	for (long i = 0; i < run.counted; i++)
		send_one(&end, i, 0);

	start = ticks(&run.plan);
	for (long i = 0; i < messages; i++)
		send_one(&end, i, 0);
	total = ticks(&run.plan) - start;

	for (long i = 0; i < messages; i++) {
		start = ticks(&run.plan);
		send_one(&end, i, start);
		sample(&run.samples, ticks(&run.plan) - start - run.cost);
	}

	count = count_syscalls();
	calls = syscalls(&count);
	for (long i = 0; i < run.counted; i++)
		send_one(&end, i, 0);
	calls = calls < 0 ? -1 : (syscalls(&count) - calls - count.cpus) / run.counted;

	send_one(&end, LAST, 0);
	close(sockets[1]);
	waitpid(child, NULL, 0);
	if (run.plan.system_call) {
		save(&run.plan, "c-unix-system-call", &run.samples);
		report(&(struct result){ "unix", "system-call", "c-unix-system-call", 32, messages,
					 (double)total / messages, 0, calls });
		return 0;
	}
	save(&run.plan, "c-unix-round-trip", &run.samples);
	report(&(struct result){ "unix", "one-way", "c-unix-one-way", 32, messages, -1, 0, calls });
	report(&(struct result){ "unix", "round-trip", "c-unix-round-trip", 32, messages,
				 (double)total / messages, 0, calls });
	return 0;
}
