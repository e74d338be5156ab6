/* guest: cpus=1 debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * Everything may fail: for every command, and for what happens at exec, the
 * first allocation or copy from or to user space fails, then only the second,
 * and so on, until nothing is left to fail. Each time there is a clear error and
 * nothing has happened, or the failure made no difference; and then it works.
 * At the end nothing was lost.
 *
 * Needs CONFIG_FAULT_INJECTION, as the debug kernel has it.
 */
#include "bystanders.h"
#include "free_again.h"
#include "kernel_log.h"
#include "long_run.h"
#include "memory.h"
#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>

#define DEBUGFS "/sys/kernel/debug"

/* ---- Failures on demand ------------------------------------------------------- */

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return good;
}

/* All kinds of allocations, of all tasks that ask for it; and not a word about it. */
static void allow_failures(void)
{
	if (!write_text("/proc/thread-self/fail-nth", "0"))
		skip_all("this kernel cannot let allocations fail");
	mount("debugfs", DEBUGFS, "debugfs", 0, NULL);
	if (!write_text(DEBUGFS "/failslab/ignore-gfp-wait", "N") ||
	    !write_text(DEBUGFS "/fail_page_alloc/ignore-gfp-wait", "N") ||
	    !write_text(DEBUGFS "/fail_page_alloc/ignore-gfp-highmem", "N") ||
	    !write_text(DEBUGFS "/fail_page_alloc/min-order", "0") ||
	    !write_text(DEBUGFS "/failslab/verbose", "0") ||
	    !write_text(DEBUGFS "/fail_page_alloc/verbose", "0") ||
	    !write_text(DEBUGFS "/fail_usercopy/verbose", "0"))
		bail_out(DEBUGFS);
}

/* Of the calling thread: -1 if it cannot be opened. */
static int open_fail_nth(void)
{
	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

/* The @nth from now on fails. */
static void fail_nth(int fd, int nth)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%d", nth);

	if (pwrite(fd, text, length, 0) != length)
		die("fail-nth", errno);
}

/* Whether it has failed. Reading that can be what fails now: then it has not. */
static bool has_failed(int fd)
{
	char text[16] = "";
	ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
	bool failed = length > 0 && text[0] == '0';

	/* Twice: the first may fail. */
	pwrite(fd, "0", 1, 0);
	pwrite(fd, "0", 1, 0);
	return failed;
}

/* ---- Operations of a service --------------------------------------------------- */

struct operation {
	const char *name;
	void (*prepare)(void);
	long (*run)(void);
	void (*undo)(void); /* after success */
	int error;	    /* that is allowed besides ENOMEM and EFAULT */
};

static int device;
static struct side side; /* a peer; it obeys orders over the socket */
static long opened;
static struct rpal_request asked;
static int park_epfd = -1;
static uint64_t peer_page;

#define DO(command, argument) result(ioctl(device, command, argument))

/* What the peer is told; it answers by one word. */
enum { ASK_FOR_ME = 'a', MAP_A_PAGE = 'm' };

static uint64_t tell_peer(char what)
{
	uint64_t answer;

	tell(side.socket, &what, 1);
	hear(side.socket, &answer, sizeof(answer));
	return answer;
}

static void nothing(void)
{
}

static long run_open(void)
{
	return opened = result(open("/dev/rpal", O_RDWR | O_CLOEXEC));
}

static void undo_open(void)
{
	close(opened);
}

static long run_info(void)
{
	struct rpal_info info = { .size = sizeof(info) };

	return DO(RPAL_IOC_INFO, &info);
}

static long run_next_exec(void)
{
	return DO(RPAL_IOC_NEXT_EXEC, 1);
}

static void undo_next_exec(void)
{
	DO(RPAL_IOC_NEXT_EXEC, 0);
}

static void disable(void)
{
	DO(RPAL_IOC_DISABLE, 0);
}

static void enable(void)
{
	uint64_t meta = 1;

	DO(RPAL_IOC_ENABLE, &meta);
}

static long run_enable(void)
{
	uint64_t meta = 1;

	return DO(RPAL_IOC_ENABLE, &meta);
}

static long run_disable(void)
{
	return DO(RPAL_IOC_DISABLE, 0);
}

/* The peer has asked for this service, this one not for the peer. */
static void be_asked(void)
{
	enable();
	DO(RPAL_IOC_RELEASE, (long)side.peer.id);
	if (tell_peer(ASK_FOR_ME))
		die("the peer's request", EPROTO);
}

static long run_request(void)
{
	asked = (struct rpal_request){ .key = asked.key };
	return DO(RPAL_IOC_REQUEST, &asked);
}

static void check_linked(void)
{
	if (!(asked.flags & RPAL_PEER_LINKED))
		die("two that have asked are not linked", EPROTO);
}

static void be_linked(void)
{
	be_asked();
	MUST(run_request());
	check_linked();
}

static long run_release(void)
{
	return DO(RPAL_IOC_RELEASE, (long)side.peer.id);
}

static long run_register(void)
{
	struct rpal_register request = {
		.roles = RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER,
	};

	return DO(RPAL_IOC_REGISTER, &request);
}

static void unregister(void)
{
	DO(RPAL_IOC_UNREGISTER, RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER);
}

static long run_unregister(void)
{
	return DO(RPAL_IOC_UNREGISTER, RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER);
}

static struct rpal_control *registered;

/* As a receiver that resumes where park_here() is. */
static void register_receiver(void)
{
	extern const char parked_here[];
	struct rpal_register request = {
		.roles = RPAL_ROLE_RECEIVER,
		.park_ip = (uint64_t)parked_here,
	};

	MUST(DO(RPAL_IOC_REGISTER, &request));
	registered = (void *)request.control;
}

static void unregister_receiver(void)
{
	DO(RPAL_IOC_UNREGISTER, RPAL_ROLE_RECEIVER);
}

__attribute__((noinline)) static long park_here(struct rpal_park *park)
{
	long ret;

	asm volatile("movq %%rsp, %c[sp](%[control])\n\t"
		     "syscall\n"
		     "parked_here:"
		     : "=a"(ret)
		     : "a"(SYS_ioctl), "D"(device), "S"(RPAL_IOC_PARK), "d"(park),
		       [control] "r"(registered), [sp] "i"(offsetof(struct rpal_control, sp))
		     : "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
	return ret;
}

static long run_park(void)
{
	struct rpal_message message = {};
	struct rpal_park park = {
		.epfd = park_epfd,
		.flags = RPAL_PARK_REPLY,
		.message = (uint64_t)&message,
	};

	return park_here(&park);
}

/* A call whose handler is handed back: its answer is waited for in the kernel. */
static void attach_and_link(void)
{
	be_linked();
	if (!rpal_tid())
		MUST(rpal_attach(RPAL_ROLE_SENDER));
}

static long run_call(void)
{
	struct rpal_message m = { { 1, 20, 22 } };
	int ret = rpal_call(&side.target, &m, -1);

	if (!ret && m.word[0] != 42)
		die("a call's answer", EBADMSG);
	return ret;
}

static long run_wait_parked(void)
{
	struct rpal_wait_parked wait = { .tid = side.target.tid, .timeout_ns = 10000000000 };

	return DO(RPAL_IOC_WAIT_PARKED, &wait);
}

static long run_wait_reply(void)
{
	struct rpal_wait_reply wait = { .seq = 12345 };
	long ret = DO(RPAL_IOC_WAIT_REPLY, &wait);

	return ret == -ENOENT ? 0 : ret;
}

static long run_finish(void)
{
	return DO(RPAL_IOC_FINISH, (long)side.target.tid);
}

static long run_peer_fd(void)
{
	struct rpal_peer_fd request = {
		.fd = side.socket,
		.id = side.peer.id,
		.peer_fd = -1,
	};
	long ret = DO(RPAL_IOC_PEER_FD, &request);

	if ((ret == 0) != (request.peer_fd >= 0))
		die("the peer's descriptor", EBADMSG);
	return ret;
}

static long run_wake(void)
{
	return DO(RPAL_IOC_WAKE, (long)side.target.tid);
}

static long run_detach(void)
{
	return DO(RPAL_IOC_DETACH, 0);
}

static void detach(void)
{
	MUST(rpal_detach());
}

static long run_read(void)
{
	uint32_t ids[4];
	long ret = result(read(device, ids, sizeof(ids)));

	return ret == -EAGAIN ? 0 : ret;
}

/* The peer has gone, for this service: there is an id to read. */
static void be_left(void)
{
	be_linked();
	tell_peer('l');
}

/* Memory of the peer's that is not there yet. The fault is repeated. */
static void new_page(void)
{
	be_linked();
	peer_page = tell_peer(MAP_A_PAGE);
}

static uint32_t set_pkru(uint32_t pkru)
{
	uint32_t old, edx;

	asm volatile(".byte 0x0f,0x01,0xee" : "=a"(old), "=d"(edx) : "c"(0));
	asm volatile(".byte 0x0f,0x01,0xef" : : "a"(pkru), "c"(0), "d"(0) : "memory");
	return old;
}

static long run_touch(void)
{
	uint32_t old = set_pkru(0);

	((volatile uint64_t *)peer_page)[5] = 5;
	set_pkru(old);
	return 0;
}

static long run_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	if (pid < 0)
		return -errno;
	waitpid(pid, NULL, 0);
	return 0;
}

static const struct operation operations[] = {
	{ "open", nothing, run_open, undo_open, 0 },
	{ "INFO", nothing, run_info, nothing, 0 },
	{ "NEXT_EXEC", nothing, run_next_exec, undo_next_exec, 0 },
	{ "ENABLE", disable, run_enable, nothing, 0 },
	{ "DISABLE", enable, run_disable, enable, 0 },
	{ "REQUEST that links", be_asked, run_request, check_linked, 0 },
	{ "RELEASE", be_linked, run_release, nothing, 0 },
	{ "read", be_left, run_read, nothing, 0 },
	{ "REGISTER", nothing, run_register, unregister, 0 },
	{ "UNREGISTER", (void (*)(void))run_register, run_unregister, nothing, 0 },
	{ "first PARK", register_receiver, run_park, unregister_receiver, 0 },
	{ "call that is handed back", attach_and_link, run_call, nothing, 0 },
	{ "WAIT_PARKED", attach_and_link, run_wait_parked, nothing, 0 },
	{ "WAIT_REPLY", attach_and_link, run_wait_reply, nothing, 0 },
	{ "FINISH", attach_and_link, run_finish, nothing, 0 },
	{ "PEER_FD", be_linked, run_peer_fd, nothing, 0 },
	{ "WAKE", be_linked, run_wake, nothing, 0 },
	{ "DETACH", attach_and_link, run_detach, detach, 0 },
	{ "fault in a peer's page", new_page, run_touch, nothing, 0 },
	{ "fork of a service", be_linked, run_fork, nothing, EAGAIN },
};

/* More than any of them has. */
#define MOST 2000

static void test_operation(const struct operation *operation, int fail_fd)
{
	int wrong = 0, clear = 0, nth;

	for (nth = 1; nth < MOST; nth++) {
		bool failed;
		long ret;

		operation->prepare();
		fail_nth(fail_fd, nth);
		ret = operation->run();
		failed = has_failed(fail_fd);
		if (ret >= 0)
			operation->undo();
		clear += ret < 0;
		if (ret < 0 && ret != -ENOMEM && ret != -EFAULT && ret != -operation->error &&
		    !wrong++)
			printf("# %s, failure %d: %ld\n", operation->name, nth, ret);
		if (!failed) {
			if (ret < 0 && !wrong++)
				printf("# %s without a failure: %ld\n", operation->name, ret);
			break;
		}
		/* Nothing has happened, so it works. */
		if (ret < 0) {
			ret = operation->run();
			if (ret < 0 && !wrong++)
				printf("# %s after failure %d: %ld\n", operation->name, nth, ret);
			if (ret >= 0)
				operation->undo();
		}
	}
	ok(!wrong && nth < MOST, "%s: %d can fail, %d of them made an error", operation->name,
	   nth - 1, clear);
}

/* ---- The services ------------------------------------------------------------------ */

struct counts {
	int count, failed;
};

static struct counts *counts; /* shared with the test */

static void map_counts(int fd)
{
	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counts == MAP_FAILED)
		die("mmap", errno);
}

/* --tester SOCKET COUNTS */
static int tester(char **argv)
{
	int fail_fd = open_fail_nth();
	uint64_t key;

	map_counts(atoi(argv[3]));
	tap_count = counts->count;
	side = become_peers(atoi(argv[2]));
	device = rpal_open();
	meet_receiver(&side);
	hear(side.socket, &asked.key, sizeof(asked.key));
	key = rpal_service()->key;
	tell(side.socket, &key, sizeof(key));
	/* The operations begin with a thread that is none. */
	MUST(rpal_detach());
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		test_operation(&operations[i], fail_fd);
	counts->count = tap_count;
	counts->failed += tap_failed;
	return 0;
}

static struct side *tester_side;
static uint64_t tester_key;

/* An ordinary thread of the peer. */
static void *obey(void *arg)
{
	struct rpal_peer peer;
	uint64_t answer;
	char order;

	while (read(tester_side->socket, &order, 1) == 1) {
		switch (order) {
		case ASK_FOR_ME:
			answer = rpal_peer_request(tester_key, &peer);
			break;
		case MAP_A_PAGE:
			answer = (uint64_t)mmap(NULL, 4096, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			break;
		default:
			answer = rpal_peer_release(tester_side->peer.id);
		}
		tell(tester_side->socket, &answer, sizeof(answer));
	}
	_exit(0);
}

static int handle(struct rpal_message *m)
{
	getppid();
	m->word[0] = m->word[1] + m->word[2];
	return 0;
}

/* --peer SOCKET */
static int peer(char **argv)
{
	static struct side mine;
	uint64_t key;
	pthread_t thread;

	mine = become_peers(atoi(argv[2]));
	introduce_receiver(&mine, RPAL_ROLE_RECEIVER);
	key = rpal_service()->key;
	tell(mine.socket, &key, sizeof(key));
	hear(mine.socket, &tester_key, sizeof(tester_key));
	tester_side = &mine;
	pthread_create(&thread, NULL, obey, NULL);
	serve_calls(handle);
	return 0;
}

/* --register NTH: the first thread of a service, which needs a page as well. */
static int register_first(int nth)
{
	int fail_fd = open_fail_nth(), ret;
	bool failed;

	MUST(rpal_open());
	fail_nth(fail_fd, nth);
	ret = rpal_attach(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER);
	failed = has_failed(fail_fd);
	if (ret == 0)
		return failed ? 1 : 0;
	if (!failed || (ret != -ENOMEM && ret != -EFAULT))
		return 2;
	return rpal_attach(RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER) ? 3 : 1;
}

static int status_of(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		die("waitpid", errno);
	return status;
}

static void test_first_register(void)
{
	int nth, wrong = 0, status;

	for (nth = 1; nth < MOST; nth++) {
		char number[16];
		char *args[] = { "fail_nth", "--register", number, NULL };

		snprintf(number, sizeof(number), "%d", nth);
		status = status_of(start_as(true, 0, args));
		if (status && status != 1 << 8 && !wrong++)
			printf("# failure %d: status %x\n", nth, status);
		if (!status)
			break;
	}
	ok(!wrong && nth < MOST, "a service's first REGISTER: %d can fail", nth - 1);
}

/* --nothing: ends the exec that was to fail, after what failed in it. */
static int exec_once(int nth)
{
	char *args[] = { "fail_nth", "--nothing", NULL };
	int pipes[2], status, error = 0;
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC))
		die("pipe", errno);
	pid = vfork();
	if (!pid) {
		int fd = open_fail_nth();

		if (rpal_exec_service())
			_exit(96);
		fail_nth(fd, nth);
		execv("/proc/self/exe", args);
		error = errno;
		has_failed(fd);
		_exit(97);
	}
	close(pipes[0]);
	close(pipes[1]);
	status = status_of(pid);
	/* Past the point of no return it is killed. */
	if (status == 97 << 8)
		return error == ENOMEM || error == EFAULT || error == E2BIG || error == EAGAIN ||
				       error == ENOEXEC ?
			       1 :
			       -error;
	if (WIFSIGNALED(status) &&
	    (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGKILL ||
	     WTERMSIG(status) == SIGBUS))
		return 1;
	return status == 77 << 8 ? 0 : status == 78 << 8 ? 1 : status;
}

/* What has become a service says whether something is left to fail. */
static int executed(void)
{
	int fd = open_fail_nth();

	return fd < 0 || has_failed(fd) ? 78 : 77;
}

/*
 * There are some hundred points, and each takes an exec. A short run takes one
 * in a few, another one for each seed.
 */
static void test_exec(const struct long_run *run)
{
	int step = run->seconds < 30 ? 8 : 1, wrong = 0, nth, tried = 0;

	for (nth = 1 + run->seed % step; nth < MOST; nth += step, tried++) {
		int ret = exec_once(nth);

		if (!ret)
			break;
		if (ret != 1 && !wrong++)
			printf("# failure %d at exec: %d\n", nth, ret);
	}
	ok(!wrong && nth < MOST, "exec: of %d that can fail %d were tried", nth - 1, tried);
}

/* What nobody has a pointer to is lost. Needs kmemleak=on. */
static void nothing_is_lost(void)
{
	static const char path[] = DEBUGFS "/kmemleak";
	char line[256];
	int lost = 0;
	FILE *file;

	if (!write_text(path, "scan")) {
		printf("# kmemleak is off\n");
		return;
	}
	/* Young objects do not count, so wait; and look twice, as stacks can hold pointers. */
	sleep(6);
	write_text(path, "scan");
	sleep(1);
	write_text(path, "scan");
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		lost += !strncmp(line, "unreferenced object", 19);
		printf("# %s", line);
	}
	if (file)
		fclose(file);
	ok(!lost, "kmemleak found %d objects that are lost", lost);
}

static void test_services(int counts_fd)
{
	char text[3][16];
	char *tester_args[] = { "fail_nth", "--tester", text[0], text[2], NULL };
	char *peer_args[] = { "fail_nth", "--peer", text[1], NULL };
	int sockets[2], status;
	pid_t pids[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		die("socketpair", errno);
	snprintf(text[0], sizeof(text[0]), "%d", sockets[0]);
	snprintf(text[1], sizeof(text[1]), "%d", sockets[1]);
	snprintf(text[2], sizeof(text[2]), "%d", counts_fd);
	counts->count = tap_count;
	pids[0] = start_as(true, 0, tester_args);
	pids[1] = start_as(true, 0, peer_args);
	close(sockets[0]);
	close(sockets[1]);
	status = status_of(pids[0]);
	kill(pids[1], SIGKILL);
	status_of(pids[1]);
	tap_count = counts->count;
	tap_failed += counts->failed;
	is(status, 0, "the service that tried it ends well");
}

int main(int argc, char **argv)
{
	struct long_run run;
	int tasks, log, fd;
	long memory;

	RUN_IDLE_SERVICE(argc, argv);
	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		return executed();
	if (argc == 3 && !strcmp(argv[1], "--register"))
		return register_first(atoi(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "--tester"))
		return tester(argv);
	if (argc == 3 && !strcmp(argv[1], "--peer"))
		return peer(argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	run = long_run(argc, argv, 5);
	allow_failures();
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	/* A thread with an rseq area cannot be registered. */
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	log = kernel_log_from_now();
	exception_trace("0");
	write_text(DEBUGFS "/kmemleak", "clear");
	fd = memfd_create("counts", 0);
	if (fd < 0 || ftruncate(fd, sizeof(*counts)))
		die("memfd", errno);
	map_counts(fd);
	tasks = count_tasks();
	ids_are_free(PKEYS);
	memory = free_memory();
	do {
		test_services(fd);
		test_first_register();
		test_exec(&run);
	} while (goes_on(&run));
	memory_is_back_but(8192, memory, 1, "rounds of failures");
	tasks_are_gone(tasks);
	ids_are_free(3 * PKEYS);
	nothing_is_lost();
	exception_trace("1");
	kernel_log_is_quiet(log);
	return done();
}
