/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Each side's system calls meet that side's seccomp filter, once, in its own
 * task, and never the other side's.
 */
#include "handed_back.h"
#include "raw_syscall.h"
#include "two_services.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* What a thread's filter says about a system call; it ends with an action for all others. */
struct rule {
	int call; /* -1: all others */
	uint32_t action;
};

#define OTHERS -1

/* Of the calling thread alone. Return: the listener for SECCOMP_RET_USER_NOTIF, if it has one. */
static int filter_calls(const struct rule *rules, bool listen)
{
	struct sock_filter code[64] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = { 1, code };
	int ret;

	for (; rules->call != OTHERS; rules++) {
		code[program.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
								   rules->call, 0, 1);
		code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, rules->action);
	}
	code[program.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, rules->action);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	ret = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		      listen ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, &program);
	if (ret < 0)
		die("seccomp", errno);
	return ret;
}

/* The server's. Its client may do all of these, until it has a filter of its own. */
#define REFUSED_ERRNO 101

static const struct rule servers[] = {
	{ SYS_getpriority, SECCOMP_RET_ERRNO | REFUSED_ERRNO },
	{ SYS_getpgid, SECCOMP_RET_TRAP },
	{ SYS_getsid, SECCOMP_RET_USER_NOTIF },
	{ SYS_time, SECCOMP_RET_ERRNO | REFUSED_ERRNO },
	{ SYS_times, SECCOMP_RET_KILL_THREAD },
	{ SYS_sysinfo, SECCOMP_RET_KILL_PROCESS },
	{ OTHERS, SECCOMP_RET_ALLOW },
};

/* What a client has to do here, and of what its server may not do, one call. */
static const struct rule clients[] = {
	{ SYS_ioctl, SECCOMP_RET_ALLOW },
	{ SYS_read, SECCOMP_RET_ALLOW },
	{ SYS_write, SECCOMP_RET_ALLOW },
	{ SYS_wait4, SECCOMP_RET_ALLOW },
	{ SYS_exit_group, SECCOMP_RET_ALLOW },
	{ SYS_getpriority, SECCOMP_RET_ALLOW },
	{ SYS_getppid, SECCOMP_RET_ERRNO | REFUSED_ERRNO },
	{ OTHERS, SECCOMP_RET_KILL_PROCESS },
};

/* What a call asks the server for. */
enum {
	FILTER,	 /* itself */
	CALL,	 /* system call word 1 with word 2 */
	VSYSCALL, /* time(), by a jump to the page that the kernel emulates */
	NOTICES, /* what the supervisor has seen */
	WORK,	 /* what no client here may do */
};

/* What SECCOMP_RET_TRAP led to. */
static struct {
	volatile int call, tid;
	volatile unsigned long address;
} trap;

#define TRAP_RESULT 4711

static void on_trap(int signal, siginfo_t *info, void *context)
{
	ucontext_t *where = context;

	trap.call = info->si_syscall;
	trap.tid = gettid();
	trap.address = (unsigned long)info->si_call_addr;
	where->uc_mcontext.gregs[REG_RAX] = TRAP_RESULT;
}

/* What the supervisor has seen: another thread of the server, without a filter. */
static struct {
	int listener;
	volatile int count, tid, call;
	volatile unsigned long argument, address;
} notices;

#define NOTICE_RESULT 4712

static void *supervise(void *arg)
{
	for (;;) {
		struct seccomp_notif notice = {};
		struct seccomp_notif_resp answer = { .val = NOTICE_RESULT };

		MUST(ioctl(notices.listener, SECCOMP_IOCTL_NOTIF_RECV, &notice));
		notices.tid = notice.pid;
		notices.call = notice.data.nr;
		notices.argument = notice.data.args[0];
		notices.address = notice.data.instruction_pointer;
		notices.count++;
		answer.id = notice.id;
		MUST(ioctl(notices.listener, SECCOMP_IOCTL_NOTIF_SEND, &answer));
	}
	return NULL;
}

static void filter_oneself(void)
{
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
	pthread_t thread;

	sigaction(SIGSYS, &action, NULL);
	notices.listener = filter_calls(servers, true);
	/* Has the filter, too, but uses none of those calls. */
	if (pthread_create(&thread, NULL, supervise, NULL))
		die("pthread_create", errno);
}

/* Reads a file and maps memory: 0, or the step that failed. */
static int work(void)
{
	char text[16] = "";
	int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	char *page;

	if (fd < 0 || read(fd, text, sizeof(text)) <= 0)
		return 1;
	if (close(fd) || access("/proc", R_OK))
		return 2;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || mprotect(page, 4096, PROT_READ) || munmap(page, 4096))
		return 3;
	return getppid() > 0 ? 0 : 4;
}

static int handle(struct rpal_message *m)
{
	switch (m->word[0]) {
	case FILTER:
		filter_oneself();
		return 0;
	case CALL:
		m->word[0] = result(syscall(m->word[1], m->word[2], 0));
		m->word[1] = trap.call;
		m->word[2] = trap.tid;
		m->word[3] = trap.address;
		return 0;
	case VSYSCALL:
		m->word[0] = vsyscall_time();
		return 0;
	case NOTICES:
		*m = (struct rpal_message){ { notices.count, notices.tid, notices.call,
					      notices.argument, notices.address } };
		return 0;
	case WORK:
		m->word[0] = work();
		m->word[1] = getpid();
		return 0;
	default:
		return -ENOSYS;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* A server for whom it ends badly: has two receivers, the second in a thread without a filter. */
static void *serve_without_filter(void *arg)
{
	struct side *side = arg;

	introduce_receiver(side, RPAL_ROLE_RECEIVER);
	serve_calls(handle);
	return NULL;
}

static void serve_twice(struct side *side)
{
	pthread_t thread;

	introduce_receiver(side, RPAL_ROLE_RECEIVER);
	if (pthread_create(&thread, NULL, serve_without_filter, side))
		die("pthread_create", errno);
	serve_calls(handle);
}

struct mortal {
	struct side side;
	struct rpal_target second;
	pid_t pid;
};

static struct mortal start_mortal(void)
{
	struct mortal mortal;
	uint32_t tid;

	mortal.side = start_peer("--mortal", 0, NULL, &mortal.pid);
	meet_receiver(&mortal.side);
	hear(mortal.side.socket, &tid, sizeof(tid));
	MUST(rpal_target_init(&mortal.second, tid, mortal.side.peer.pkey));
	return mortal;
}

static int ask(const struct rpal_target *target, struct rpal_message *m, uint64_t what,
	       uint64_t call, uint64_t argument)
{
	*m = (struct rpal_message){ { what, call, argument } };
	return rpal_call(target, m, -1);
}

/* A system call in a handler: its result there. */
static long there(const struct side *side, long call, uint64_t argument)
{
	struct rpal_message m;

	MUST(ask(&side->target, &m, CALL, call, argument));
	return m.word[0];
}

static long time_there(const struct side *side)
{
	struct rpal_message m;

	MUST(ask(&side->target, &m, VSYSCALL, 0, 0));
	return m.word[0];
}

static long here(long call)
{
	return result(syscall(call, 0, 0));
}

static bool in_slot_of(const struct side *side, unsigned long address)
{
	return address >> RPAL_SLOT_SHIFT == side->peer.id;
}

static void test_servers_filter(struct side *side)
{
	time_t start = time(NULL);
	struct rpal_message m;

	is(there(side, SYS_getpriority, 0), 20, "before there is a filter, a handler may do it");
	ok(time_there(side) >= start, "nor does a vsyscall meet one");
	is(ask(&side->target, &m, FILTER, 0, 0), 0, "a handler installs a filter");
	is(there(side, SYS_getpriority, 0), -REFUSED_ERRNO, "which refuses a handler's call");
	is(here(SYS_getpriority), 20, "but not the client's own");
	is(time_there(side), -REFUSED_ERRNO, "and a handler's vsyscall");

	MUST(ask(&side->target, &m, CALL, SYS_getpgid, 0));
	is(m.word[0], TRAP_RESULT, "it traps another, and the server's signal handler answers");
	ok((int)m.word[1] == SYS_getpgid && (pid_t)m.word[2] == side->other &&
		   in_slot_of(side, m.word[3]),
	   "as the server (call %llu, thread %llu, at %#llx)", m.word[1], m.word[2], m.word[3]);
	is(here(SYS_getpgid), getpgid(0), "nothing traps the client");

	is(there(side, SYS_getsid, 12345), NOTICE_RESULT, "a supervisor answers a third one");
	MUST(ask(&side->target, &m, NOTICES, 0, 0));
	ok(m.word[0] == 1 && (pid_t)m.word[1] == side->other && m.word[2] == SYS_getsid &&
		   m.word[3] == 12345 && in_slot_of(side, m.word[4]),
	   "it saw it once, and by the server (%llu, thread %llu, call %llu of %llu, at %#llx)",
	   m.word[0], m.word[1], m.word[2], m.word[3], m.word[4]);
	for (int i = 0; i < 100; i++)
		there(side, SYS_getsid, i);
	MUST(ask(&side->target, &m, NOTICES, 0, 0));
	is(m.word[0], 101, "and each of 100 more once");
	is(here(SYS_getsid), getsid(0), "no supervisor sees the client's");
}

static void test_deadly_filter(const struct side *side, struct mortal *mortal)
{
	struct rpal_message m;
	int status;

	is(ask(&mortal->side.target, &m, FILTER, 0, 0), 0, "a server has a filter in one thread");
	is(ask(&mortal->side.target, &m, CALL, SYS_times, 0), -EOWNERDEAD,
	   "that may kill the thread: the client gets an error");
	is(ask(&mortal->side.target, &m, WORK, 0, 0), -EOWNERDEAD, "so do later calls");
	is(ask(&mortal->second, &m, WORK, 0, 0), 0, "the server's other thread can be called");
	ok(m.word[0] == 0 && (pid_t)m.word[1] == mortal->pid, "and works (%llu)", m.word[0]);
	is(ask(&mortal->second, &m, FILTER, 0, 0), 0, "it gets a filter, too");
	is(ask(&mortal->second, &m, CALL, SYS_sysinfo, 0), -EOWNERDEAD,
	   "that may kill the process: the client gets an error");
	waitpid(mortal->pid, &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "the server died of it (%#x)",
	   status);
	is(ask(&side->target, &m, CALL, SYS_getpriority, 0), 0, "another server goes on");
}

static void test_clients_filter(struct side *side)
{
	struct rpal_message m;
	uint64_t before;
	long wrong = 0;

	filter_calls(clients, false);
	is(here(SYS_getppid), -REFUSED_ERRNO, "the client has a filter, which refuses a call");
	is(ask(&side->target, &m, WORK, 0, 0), 0, "a handler makes that, and others that would");
	ok(m.word[0] == 0 && (pid_t)m.word[1] == side->other, "kill the client (step %llu)",
	   m.word[0]);
	is(there(side, SYS_getpriority, 0), -REFUSED_ERRNO, "the server's filter is still there");
	is(time_there(side), -REFUSED_ERRNO, "and the one that a vsyscall meets");
	is(here(SYS_getpriority), 20, "for the server only");
	before = handed_back();
	for (int i = 0; i < 1000; i++)
		wrong += ask(&side->target, &m, WORK, 0, 0) || m.word[0];
	ok(!wrong && handed_back() - before == 1000,
	   "1000 times it was on loan first (%ld wrong)", wrong);
}

static int client(struct side *side, int argc, char **argv)
{
	struct mortal mortal = start_mortal();

	test_servers_filter(side);
	test_deadly_filter(side, &mortal);
	test_clients_filter(side);
	return done();
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "--mortal")) {
		struct side side = become_peers(atoi(argv[2]));

		serve_twice(&side);
		return 0;
	}
	return two_services(argc, argv, server, client);
}
