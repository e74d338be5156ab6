/* SPDX-License-Identifier: MIT */
/*
 * The servers of an instruction sweep, the calls that they answer, and how one
 * call is verified.
 */
#ifndef SWEEP_SERVER_H
#define SWEEP_SERVER_H

#include "registers.h"
#include "sweep_clock.h"
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

/* What can be asked of a server, in word 0. The first are the calls of sweeps. */
enum {
	ADD = 1,    /* words 1 and 2; the handler stays in user mode */
	SLOW_ADD,   /* the same, with a system call in between */
	FAULT_ADD,  /* the same, with a page fault that the server handles */
	NESTED_ADD, /* the same, but the next service does it */
	CALLS,
	ARM = CALLS, /* the server's own timer, word 1 ns ahead; when that was */
	REPORT,	     /* struct report */
	MEET,	     /* become a peer of the service with the key in word 1 */
	GO_ON,	     /* word 1: the next service's key, word 2: its thread's id */
	SWEEP_KINDS,
};

static const char *const call_names[CALLS] = {
	[ADD] = "plain", [SLOW_ADD] = "slow", [FAULT_ADD] = "faulting", [NESTED_ADD] = "nested",
};

/* A server about itself; all but its identity is counted since it began. */
struct report {
	uint64_t pid, adds;
	uint64_t events; /* that reached the server */
	uint64_t event;	 /* when the last one did */
	uint64_t wrong;	 /* handlers that found a register, an identity or the call changed */
	uint64_t unused;
};

_Static_assert(sizeof(struct report) == sizeof(struct rpal_message), "a report fits a message");

static volatile struct report report;
static struct vector_image image;

/* Of nested calls. */
static struct rpal_target next_service;

/* Reads from where nothing is; fault_end is behind that instruction. */
static inline void fault(void)
{
	asm volatile("mov (%0), %%al\n\t"
		     "fault_end:"
		     :
		     : "r"(0x1000UL)
		     : "rax");
}

extern const char fault_end[];

static inline void on_page_fault(int signal, siginfo_t *info, void *context)
{
	ucontext_t *at = context;

	report.wrong += (uintptr_t)info->si_addr != 0x1000 || gettid() != (pid_t)report.pid;
	at->uc_mcontext.gregs[REG_RIP] = (uintptr_t)fault_end;
}

static inline void sweep_server_init(void)
{
	struct sigaction action = { .sa_sigaction = on_page_fault, .sa_flags = SA_SIGINFO };

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	report.pid = getpid();
	vector_image_init(&image);
	use_image_control_words(&image);
	sigaction(SIGSEGV, &action, NULL);
}

/* How a server sets its timer; NULL: it has none. */
static void (*arm_own)(long ns);

static inline int call_next(struct rpal_message *m)
{
	bool kept;
	int status;

	m->word[0] = ADD;
	status = call_keeping_registers(&next_service, m, -1, &kept);
	report.wrong += !kept;
	return status;
}

static inline int go_on(const struct rpal_message *m)
{
	struct rpal_peer peer;
	int ret = rpal_peer_request(m->word[1], &peer);

	if (ret)
		return ret;
	return peer.linked ? rpal_target_init(&next_service, m->word[2], peer.pkey) : -ENOTCONN;
}

static inline int sweep_handle(struct rpal_message *m)
{
	static pid_t parent;
	struct rpal_peer peer;
	int status = 0;

	if (!parent)
		parent = getppid();
	switch (m->word[0]) {
	case NESTED_ADD:
		status = call_next(m);
		report.wrong += !registers_are_kept(&image);
		report.adds++;
		break;
	case FAULT_ADD:
	case SLOW_ADD:
		if (m->word[0] == FAULT_ADD)
			fault();
		else
			report.wrong += getppid() != parent || gettid() != (pid_t)report.pid;
		/* fall through */
	case ADD:
		report.wrong += !registers_are_kept(&image);
		report.adds++;
		m->word[0] = m->word[1] + m->word[2];
		break;
	case ARM:
		/* In the own task first: from here on the distance is fixed. */
		getppid();
		m->word[0] = now_tsc();
		arm_own(m->word[1]);
		break;
	case REPORT:
		memcpy(m, (const void *)&report, sizeof(*m));
		break;
	case MEET:
		return rpal_peer_request(m->word[1], &peer);
	case GO_ON:
		return go_on(m);
	default:
		/* Nobody calls with this: it is what was answered last. */
		report.wrong++;
		return -ENOSYS;
	}
	return status;
}

/* How a server waits for calls. */
enum {
	SERVES,	 /* rpal_serve_one() */
	LISTENS, /* rpal_epoll_wait(), rpal_take(), rpal_reply() */
	STYLES,
};

/* What the server's own timer does to it. */
enum { NOTHING, SIGNAL, RECLAIM, KILL };

/* In the server, which is itself. */
static inline void note_event(void)
{
	report.event = now_tsc();
	report.events++;
	if (getpid() != (pid_t)report.pid || gettid() != (pid_t)report.pid)
		report.wrong++;
}

static inline void on_signal(int signal)
{
	note_event();
}

static timer_t own_timer;

static inline void arm_signal(long ns)
{
	arm(own_timer, ns);
}

static int own_timerfd;

static inline void set_timerfd(int fd, long ns)
{
	struct itimerspec when = { .it_value.tv_nsec = ns };

	if (timerfd_settime(fd, 0, &when, NULL))
		die("timerfd_settime", errno);
}

static inline void arm_timerfd(long ns)
{
	set_timerfd(own_timerfd, ns);
}

/* An event loop. Its timer wants the context back without any signal. */
static inline void listen_for_calls(int (*handle)(struct rpal_message *))
{
	struct epoll_event event = { .events = EPOLLIN },
			   call = { .events = EPOLLIN, .data.fd = -1 };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct rpal_message m;
	uint64_t expiries;

	own_timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	event.data.fd = own_timerfd;
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, own_timerfd, &event))
		die("epoll_ctl", errno);
	MUST(rpal_call_event(&call));
	for (;;) {
		int n = rpal_epoll_wait(epfd, &event, 1, -1);

		/* A signal was handled. */
		if (n < 0 && errno == EINTR)
			continue;
		if (n != 1)
			die("rpal_epoll_wait", errno);
		if (event.data.fd == own_timerfd) {
			if (read(own_timerfd, &expiries, sizeof(expiries)) != sizeof(expiries))
				die("read from the timer", errno);
			note_event();
		} else {
			if (rpal_take(&m, NULL) != 1)
				die("rpal_take", EPROTO);
			MUST(rpal_reply(handle(&m), &m));
		}
	}
}

static inline void serve(int style, int fate, int (*handle)(struct rpal_message *))
{
	struct sigaction action = { .sa_handler = on_signal };

	/* Its timer interrupts the client. */
	if (fate != NOTHING)
		run_first(1);
	sweep_server_init();
	sigaction(SIGUSR1, &action, NULL);
	own_timer = sweep_timer(fate == KILL ? SIGKILL : SIGUSR1);
	arm_own = fate == RECLAIM ? arm_timerfd : arm_signal;
	if (style == LISTENS)
		listen_for_calls(handle);
	else
		serve_calls(handle);
}

/* Of a program that is started as --own-server SOCKET STYLE FATE, by own_server(). */
static inline void run_own_server(int argc, char **argv, int (*handle)(struct rpal_message *))
{
	struct side side;

	if (argc < 5 || strcmp(argv[1], "--own-server"))
		return;
	side = become_peers(atoi(argv[2]));
	introduce_receiver(&side, RPAL_ROLE_RECEIVER);
	serve(atoi(argv[3]), atoi(argv[4]), handle);
}

/* The client starts a server for itself. */
static inline struct side own_server(int style, int fate, pid_t *pid)
{
	char number[2][16], *args[] = { number[0], number[1] };
	struct side side;

	snprintf(number[0], sizeof(number[0]), "%d", style);
	snprintf(number[1], sizeof(number[1]), "%d", fate);
	side = start_peer("--own-server", 2, args, pid);
	meet_receiver(&side);
	return side;
}

static inline void end_server(struct side *side, pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(side->socket);
}

/* Nested calls to the first server go on to the second one. */
static inline void lead_on(const struct side *from, const struct side *to)
{
	struct rpal_message meet = { { MEET, from->key } };
	struct rpal_message go_on = { { GO_ON, to->key, to->target.tid } };

	MUST(rpal_call(&to->target, &meet, -1));
	MUST(rpal_call(&from->target, &go_on, -1));
}

/* One verified call: 0, or what went wrong. */
static inline int add_once(const struct rpal_target *target, int kind, uint64_t seed)
{
	struct rpal_message m = { { kind, seed, seed * 3, 7, 8, seed ^ 9 } };
	bool kept;
	int ret = call_keeping_registers(target, &m, -1, &kept);

	if (!kept)
		return -ENOTRECOVERABLE;
	if (ret)
		return ret;
	return m.word[0] == seed * 4 && m.word[1] == seed && m.word[3] == 7 && m.word[4] == 8 &&
			       m.word[5] == (seed ^ 9)
		       ? 0
		       : -EBADMSG;
}

static inline struct report ask_report(const struct rpal_target *target)
{
	struct rpal_message m = { { REPORT } };
	struct report answer;

	MUST(rpal_call(target, &m, -1));
	memcpy(&answer, &m, sizeof(answer));
	return answer;
}

/* Nobody has it, nobody waits for it, nobody wants it back. */
static inline bool is_parked(const struct rpal_target *target)
{
	return (__atomic_load_n(&target->control->state, __ATOMIC_RELAXED) & 0xff) ==
	       RPAL_STATE_PARKED;
}

/* The thread calls nobody: this one, or a server's. */
static inline bool calls_nobody(const struct rpal_control *control)
{
	return !__atomic_load_n(&control->callee, __ATOMIC_RELAXED);
}

#endif
