/* guest: cpus=1,2 debug timeout=90 */
// SPDX-License-Identifier: MIT
/*
 * Hostile users: processes that do to /dev/rpal, and to each other, whatever
 * they like, from several threads at once, and die in the middle of it. Some
 * are services and some are not; they have the same user id as others or
 * another one, or live in a user namespace of their own.
 *
 * Afterwards the kernel has nothing to report, every error was a documented
 * one, nobody has acted as somebody else, two services that had nothing to do
 * with it have gone on calling each other, and all is free again.
 */
#include "bystanders.h"
#include "free_again.h"
#include "kernel_log.h"
#include "long_run.h"
#include "memory.h"
#include "random.h"
#include "raw_syscall.h"
#include "shared_memory.h"
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sys/personality.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#define PROCESSES 4 /* that fuzz at a time */
#define THREADS	  3 /* of each */
#define ERRNOS	  134

/* Who a fuzzer is. */
enum kind {
	SAME_USER,	/* a service with the user id of the bystanders */
	OTHER_USER,
	USER_NAMESPACE, /* a service that makes itself root of a namespace */
	ROOT,
	NO_SERVICE,
	KINDS
};

static const char *const kind_names[] = { "same user", "other user", "user namespace", "root",
					  "no service" };

/* The commands, and what each may answer besides 0. */
static const struct command {
	const char *name;
	unsigned int number, size;
	int errors[10];
} commands[] = {
	{ "INFO", RPAL_IOC_INFO, sizeof(struct rpal_info), { EPERM, EFAULT, EINVAL } },
	{ "NEXT_EXEC", RPAL_IOC_NEXT_EXEC, 0, { EPERM, EINVAL } },
	{ "ENABLE", RPAL_IOC_ENABLE, 8, { EPERM, ESRCH, EFAULT, EALREADY } },
	{ "DISABLE", RPAL_IOC_DISABLE, 0, { EPERM, ESRCH, EINVAL } },
	{ "REQUEST",
	  RPAL_IOC_REQUEST,
	  sizeof(struct rpal_request),
	  { EPERM, ESRCH, EFAULT, ENOENT, ECONNREFUSED, EADDRINUSE, EINVAL, ENOMEM } },
	{ "RELEASE", RPAL_IOC_RELEASE, 0, { EPERM, ESRCH, EINVAL, ENOTCONN } },
	{ "REGISTER",
	  RPAL_IOC_REGISTER,
	  sizeof(struct rpal_register),
	  { EPERM, ESRCH, EFAULT, EINVAL, EBUSY, EUSERS, ENOMEM } },
	{ "UNREGISTER", RPAL_IOC_UNREGISTER, 0, { EPERM, ESRCH, EINVAL } },
	{ "PARK",
	  RPAL_IOC_PARK,
	  sizeof(struct rpal_park),
	  { EPERM, ESRCH, EFAULT, EINVAL, EBADF, EINTR, ENOMEM } },
	{ "WAIT_REPLY",
	  RPAL_IOC_WAIT_REPLY,
	  sizeof(struct rpal_wait_reply),
	  { EPERM, ESRCH, EFAULT, ENOENT, EINTR, ETIMEDOUT } },
	{ "WAIT_PARKED",
	  RPAL_IOC_WAIT_PARKED,
	  sizeof(struct rpal_wait_parked),
	  { EPERM, ESRCH, EFAULT, EINVAL, EINTR, ETIMEDOUT, EDEADLK } },
	{ "FINISH", RPAL_IOC_FINISH, 0, { EPERM, ESRCH } },
	{ "DETACH", RPAL_IOC_DETACH, 0, { EPERM, ESRCH } },
	{ "PEER_FD",
	  RPAL_IOC_PEER_FD,
	  sizeof(struct rpal_peer_fd),
	  { EPERM, ESRCH, EFAULT, EINVAL, EBADF, ENOTSOCK, EPROTONOSUPPORT, ENOTCONN, ENOENT,
	    EINTR } },
	{ "WAKE", RPAL_IOC_WAKE, 0, { EPERM, ESRCH } },
	{ "unknown", 0, 0, { EPERM, ESRCH, ENOTTY } },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))
#define UNKNOWN	 (COMMANDS - 1)
#define PARK	 8
#define WAIT_REPLY 9

/* What all the processes share. */
#define KEYS (PROCESSES + 2) /* and those of the bystanders */
#define TIDS (PROCESSES * THREADS + 2)

struct board {
	uint64_t keys[KEYS];
	uint32_t tids[TIDS];
	uint64_t results[COMMANDS][ERRNOS];
	uint64_t call_results[ERRNOS]; /* of calls that the kernel ended */
	uint64_t operations, faults, loans, links;
	uint64_t strange;      /* how often something went wrong, and what at first */
	char what[160];
	pid_t acted_as[2]; /* who, as whom: code without a FS base of its own can say no more */
	int foreign_device; /* of nobody: opened by the test */
	int sockets[2];	    /* both ends of a pair, which all have */
};

static struct board *board;
static int board_fd;

static void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

__attribute__((format(printf, 1, 2))) static void report_strange(const char *format, ...)
{
	va_list args;

	if (__atomic_add_fetch(&board->strange, 1, __ATOMIC_RELAXED) > 1)
		return;
	va_start(args, format);
	vsnprintf(board->what, sizeof(board->what), format, args);
	va_end(args);
}

static struct board *map_board(int fd)
{
	board_fd = fd;
	board = map_shared(fd, sizeof(*board));
	return board;
}

/* ---- A fuzzer ---------------------------------------------------------- */

/* As the process was when it began. Nothing below changes any of it. */
struct identity {
	pid_t pid;
	uid_t real, effective, saved;
	struct __user_cap_data_struct caps[2];
};

struct worker {
	struct random random;
	pid_t tid;
	unsigned long fs_base;
	char *pages; /* PAGES of them */
	struct rpal_control *control;
	stack_t signal_stack;
	sigjmp_buf again;
	bool ready; /* "again" can be jumped to */
};

enum page {
	PLAIN,
	READ_ONLY = 2,
	FORBIDDEN,
	LAST, /* before a hole */
	HOLE,
	PAGES
};

static struct worker workers[THREADS];
static struct identity identity;
static enum kind my_kind;
static int device = -1, foreign_device = -1, others[10];
static char *racing; /* memory that all workers write and unmap */
static unsigned int my_index;
static bool linked[256]; /* by service id, as seen last */

#define PAGE   4096UL
#define RACING (4 * PAGE)

static void set_fs_base(unsigned long base)
{
	asm volatile("wrfsbase %0" : : "r"(base) : "memory");
}

static unsigned long fs_base(void)
{
	unsigned long base;

	asm volatile("rdfsbase %0" : "=r"(base));
	return base;
}

static struct identity identity_now(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct identity now = {};

	now.pid = raw(SYS_getpid, 0, 0, 0, 0);
	raw(SYS_getresuid, (long)&now.real, (long)&now.effective, (long)&now.saved, 0);
	raw(SYS_capget, (long)&header, (long)now.caps, 0, 0);
	return now;
}

static void check_identity(void)
{
	struct identity now = identity_now();

	if (!memcmp(&now, &identity, sizeof(now)))
		return;
	board->acted_as[0] = identity.pid;
	board->acted_as[1] = now.pid;
	report_strange("pid %d uid %u/%u/%u caps %x acts as pid %d uid %u/%u/%u caps %x",
		       identity.pid, identity.real, identity.effective, identity.saved,
		       identity.caps[0].effective, now.pid, now.real, now.effective, now.saved,
		       now.caps[0].effective);
	_exit(42);
}

/* A forged context has faulted, or a forged address: on with the next. */
static void on_fault(int signal, siginfo_t *info, void *context)
{
	pid_t tid = raw(SYS_gettid, 0, 0, 0, 0);

	for (int i = 0; i < THREADS; i++) {
		if (workers[i].tid != tid || !workers[i].ready)
			continue;
		set_fs_base(workers[i].fs_base);
		count(&board->faults);
		siglongjmp(workers[i].again, 1);
	}
	_exit(43);
}

static void on_tick(int signal)
{
}

static void handle_signals(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE };
	struct sigaction action = {
		.sa_sigaction = on_fault,
		.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER,
	};

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigaction(faults[i], &action, NULL);
	action = (struct sigaction){ .sa_handler = on_tick, .sa_flags = SA_ONSTACK };
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGCHLD, SIG_IGN);
}

static uint32_t some_tid(struct random *random)
{
	uint32_t tid = board->tids[random_below(random, TIDS)];

	return one_in(random, 10) ? tid ^ 1u << random_below(random, 32) : tid;
}

/* Where the block of @tid is, if it is anywhere. */
static struct rpal_control *control_of(uint32_t tid)
{
	return (void *)((uint64_t)RPAL_TID_SERVICE(tid) * (1UL << RPAL_SLOT_SHIFT) +
			RPAL_CONTROL_OFFSET + RPAL_TID_INDEX(tid) * RPAL_CONTROL_STRIDE);
}

static uint64_t some_word(struct random *random)
{
	switch (random_below(random, 10)) {
	case 0:
		return 0;
	case 1:
		return ~0UL;
	case 2:
		return 1UL << random_below(random, 64);
	case 3:
		return board->keys[random_below(random, KEYS)];
	case 4:
		return some_tid(random);
	case 5:
		return (uint64_t)some_tid(random) << 32 |
		       random_below(random, 4) * RPAL_FLAG_WANTED | random_below(random, 6);
	case 6:
		return (uint64_t)control_of(some_tid(random));
	case 7:
		return (uint64_t)&some_word;
	case 8:
		return random_below(random, 300);
	default:
		return random_word(random);
	}
}

/* An argument as a pointer: often a good one. */
static void *some_place(struct worker *worker, const void *data, size_t size)
{
	struct random *random = &worker->random;
	void *place = worker->pages;

	switch (random_below(random, 24)) {
	case 0:
		return NULL;
	case 1:
		place = worker->pages + 1 + random_below(random, 64);
		break;
	case 2:
		place = worker->pages + HOLE * PAGE - size;
		break;
	case 3: /* It ends in the hole. */
		return worker->pages + HOLE * PAGE - random_below(random, size + 1);
	case 4:
		mprotect(worker->pages + READ_ONLY * PAGE, PAGE, PROT_READ | PROT_WRITE);
		memcpy(worker->pages + READ_ONLY * PAGE, data, size);
		mprotect(worker->pages + READ_ONLY * PAGE, PAGE, PROT_READ);
		return worker->pages + READ_ONLY * PAGE;
	case 5:
		return worker->pages + FORBIDDEN * PAGE;
	case 6:
		return (void *)(0xffff888000000000 + random_below(random, 1UL << 32));
	case 7:
		return (void *)(0xffffffff81000000 + random_below(random, 1UL << 24));
	case 8:
		return (void *)(1UL << 63 | random_word(random) >> 8);
	case 9:
		return (void *)((random_below(random, 256) << RPAL_SLOT_SHIFT) +
				random_below(random, 1UL << RPAL_SLOT_SHIFT));
	case 10:
		return (char *)control_of(some_tid(random)) + random_below(random, 256);
	case 11:
		place = worker->control ? (void *)worker->control : place;
		break;
	case 12:
	case 13: /* Others write it meanwhile. */
		place = racing + random_below(random, RACING - size);
		break;
	}
	memcpy(place, data, size);
	return place;
}

static int64_t some_timeout(struct random *random)
{
	switch (random_below(random, 10)) {
	case 0:
		return -1;
	case 1:
		return random_word(random);
	case 2:
		return INT64_MAX;
	case 3:
		return INT64_MIN;
	case 4:
		return 0;
	default:
		return random_below(random, 2000000);
	}
}

static void check_result(size_t which, long result, int fd)
{
	const struct command *command = &commands[which];

	if (fd == device)
		count(&board->results[which][result < 0 && result > -ERRNOS ? -result : 0]);
	if (result >= 0)
		return;
	for (int i = 0; i < 10 && command->errors[i]; i++)
		if (result == -command->errors[i])
			return;
	report_strange("%s has answered %ld to a fuzzer (%s)", command->name, result,
		       kind_names[my_kind]);
}

/*
 * Where the kernel resumes a thread: with any sp, so the first thing is to take
 * a good one. FS base is the thread's.
 */
__thread char *landing_stack;
extern const char landing_of_park[], landing_of_call[];

asm(".text\n"
	"landing_of_park:\n\t"
	"xorl %edi, %edi\n\t"
	"jmp 1f\n"
	"landing_of_call:\n\t"
	"movl $1, %edi\n"
	"1:\n\t"
	"movq %rax, %rsi\n\t"
	"movq landing_stack@gottpoff(%rip), %rax\n\t"
	"movq %fs:(%rax), %rsp\n\t"
	"call landed\n\t"
	"ud2");

/* The call by hand has been handed back. */
static void wait_well(struct worker *worker)
{
	struct rpal_wait_reply wait = {
		.seq = worker->control->call_seq,
		.timeout_ns = random_below(&worker->random, 3000000),
		.message = (uint64_t)worker->pages,
	};

	if (!one_in(&worker->random, 4))
		check_result(WAIT_REPLY,
			     raw(SYS_ioctl, device, RPAL_IOC_WAIT_REPLY, (long)&wait, 0), device);
}

__attribute__((used, noreturn)) static void landed(long of_call, long result)
{
	pid_t tid = raw(SYS_gettid, 0, 0, 0, 0);

	count(&(of_call ? board->call_results :
			  board->results[PARK])[result < 0 && result > -ERRNOS ? -result : 0]);
	for (int i = 0; i < THREADS; i++) {
		if (workers[i].tid != tid || !workers[i].ready)
			continue;
		if (of_call && result == -EINPROGRESS)
			wait_well(&workers[i]);
		siglongjmp(workers[i].again, 2);
	}
	_exit(44);
}

static uint64_t some_ip(struct random *random, const char *landing)
{
	return one_in(random, 6) ? random_word(random) : (uint64_t)landing;
}

/* The structure for a command, more often plausible than not. */
static void fill(struct worker *worker, unsigned int number, void *data, size_t size)
{
	struct random *random = &worker->random;

	memset(data, 0, size);
	switch (number) {
	case RPAL_IOC_INFO:
		((struct rpal_info *)data)->size =
			one_in(random, 2) ? size : random_below(random, 128);
		break;
	case RPAL_IOC_REQUEST: {
		struct rpal_request *request = data;

		request->key = board->keys[random_below(random, KEYS)];
		break;
	}
	case RPAL_IOC_REGISTER: {
		struct rpal_register *request = data;

		request->roles = 1 + random_below(random, 3);
		request->resume_ip = some_ip(random, landing_of_call);
		request->finish_ip = some_ip(random, landing_of_call);
		request->released_ip = some_ip(random, landing_of_call);
		request->park_ip = some_ip(random, landing_of_park);
		request->copy_ip = some_ip(random, landing_of_call);
		break;
	}
	case RPAL_IOC_PARK: {
		struct rpal_park *park = data;

		park->epfd = one_in(random, 2) ? -1 : RANDOM_OF(random, others);
		park->flags = random_below(random, 2);
		park->timeout_ns = some_timeout(random);
		park->message = (uint64_t)worker->pages;
		park->status = random_word(random);
		break;
	}
	case RPAL_IOC_WAIT_REPLY: {
		struct rpal_wait_reply *wait = data;

		wait->seq = worker->control ? worker->control->call_seq : 0;
		wait->timeout_ns = some_timeout(random);
		wait->message = (uint64_t)worker->pages;
		break;
	}
	case RPAL_IOC_PEER_FD: {
		struct rpal_peer_fd *request = data;

		request->fd = one_in(random, 2) ? RANDOM_OF(random, others) :
						  RANDOM_OF(random, board->sockets);
		request->id = RPAL_TID_SERVICE(some_tid(random));
		break;
	}
	case RPAL_IOC_WAIT_PARKED: {
		struct rpal_wait_parked *wait = data;

		wait->tid = some_tid(random);
		wait->flags = one_in(random, 2) ? RPAL_WAIT_TURN : 0;
		wait->timeout_ns = some_timeout(random);
		break;
	}
	}
	if (one_in(random, 4)) {
		uint64_t word = some_word(random);
		size_t at = random_below(random, size - 3);

		memcpy((char *)data + at, &word, size - at < 8 ? 4 : 8);
	}
}

static uint64_t some_number(struct worker *worker, unsigned int number)
{
	struct random *random = &worker->random;

	if (one_in(random, 5))
		return some_word(random);
	switch (number) {
	case RPAL_IOC_RELEASE:
		return random_below(random, 40);
	case RPAL_IOC_FINISH:
	case RPAL_IOC_WAKE:
		return some_tid(random);
	default:
		return random_below(random, 4);
	}
}

static unsigned int some_unknown_command(struct random *random)
{
	unsigned int number = commands[random_below(random, UNKNOWN)].number;
	unsigned int changed = number ^ 1u << random_below(random, 32);

	/* Others are told to the file system, or to nobody. */
	if (_IOC_TYPE(changed) != RPAL_IOC_MAGIC)
		changed = _IO(RPAL_IOC_MAGIC, random_below(random, 0x40));
	for (size_t i = 0; i < UNKNOWN; i++)
		if (changed == commands[i].number)
			return _IO(RPAL_IOC_MAGIC, 0xff);
	return changed;
}

static void tell_tid(struct worker *worker, uint32_t tid)
{
	worker->control = control_of(tid);
	board->tids[my_index * THREADS + (worker - workers)] = tid;
}

/* What undoes the work of the others comes less often. */
static size_t some_command(struct random *random)
{
	size_t which = random_below(random, COMMANDS);

	switch (commands[which].number) {
	case RPAL_IOC_DISABLE:
	case RPAL_IOC_RELEASE:
	case RPAL_IOC_UNREGISTER:
		return one_in(random, 10) ? which : random_below(random, COMMANDS);
	default:
		return which;
	}
}

static void fuzz_command(struct worker *worker)
{
	struct random *random = &worker->random;
	size_t which = some_command(random);
	unsigned int number = commands[which].number;
	unsigned int size = commands[which].size;
	int fd = one_in(random, 20) ? foreign_device : device;
	uint64_t data[16], argument;
	long result;

	if (which == UNKNOWN) {
		number = some_unknown_command(random);
		argument = some_word(random);
	} else if (size) {
		fill(worker, number, data, size);
		argument = (uint64_t)some_place(worker, data, size);
	} else {
		argument = some_number(worker, number);
	}
	result = raw(SYS_ioctl, fd, number, argument, 0);
	check_result(which, result, fd);
	if (number == RPAL_IOC_REGISTER && !result) {
		/* The answer is where the question was, if nobody wrote over it. */
		struct rpal_register *answer = (void *)argument;
		uint32_t tid = answer->tid;

		if (answer->control == (uint64_t)control_of(tid))
			tell_tid(worker, tid);
	}
}

/* A call by hand, as far as one likes. */
static void fuzz_loan(struct worker *worker)
{
	struct random *random = &worker->random;
	uint32_t tid = some_tid(random);
	struct rpal_control *peer, *own = worker->control;
	uint64_t lent, parked, foreign, action;

	for (int i = 0; i < 20 && !linked[RPAL_TID_SERVICE(tid)]; i++)
		tid = some_tid(random);
	peer = control_of(tid);
	if (!own)
		return;
	own->call_sp = one_in(random, 3) ? some_word(random) :
					   (uint64_t)worker->pages + 2 * PAGE - 512;
	own->call_seq++;
	if (!one_in(random, 8))
		own->callee = tid | (uint64_t)one_in(random, 6) << 32;
	lent = (uint64_t)own->tid << 32 | RPAL_STATE_LENT;
	parked = (uint64_t)tid << 32 | RPAL_STATE_PARKED;
	for (int i = 0; i < 200 && (peer->state & 0xff) != RPAL_STATE_PARKED; i++)
		sched_yield();
	if (__atomic_compare_exchange_n(&peer->state, &parked, lent, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST))
		count(&board->loans);
	else if (!one_in(random, 40)) /* It ends in SIGSEGV. */
		return;
	peer->caller = (uint64_t)own;
	foreign = one_in(random, 8) ? some_word(random) & 0x7fffffffffff : peer->fs_base;
	if (!one_in(random, 4))
		((volatile uint8_t *)&peer->state)[0] = RPAL_STATE_ACTIVE + one_in(random, 4);
	action = random_below(random, 8);
	/*
	 * A hand-back lets the peer's task go on from where this one is, with
	 * this stack and its key, while this one takes up the same stack at
	 * landing_of_call. So until the check below nothing is written to it.
	 */
	set_fs_base(foreign);
	switch (action) {
	case 0:
		raw(SYS_getpid, 0, 0, 0, 0);
		break;
	case 1:
		asm volatile("ud2");
		break;
	case 2:
		asm volatile("int3");
		break;
	case 3:
		asm volatile("int $0x80"
			     :
			     : "a"(20)
			     : "memory", "r8", "r9", "r10", "r11");
		break;
	case 4:
		asm volatile("movl $0, (%0)" : : "r"(8UL) : "memory");
		break;
	case 5:
		raw(SYS_ioctl, device, RPAL_IOC_FINISH, tid, 0);
		break;
	case 6:
		for (int i = 0; i < 3000; i++)
			asm volatile("");
		break;
	}
	set_fs_base(worker->fs_base);
	/* Here the kernel kills the peer's task, for its FS base, if it is that. */
	if (raw(SYS_gettid, 0, 0, 0, 0) != worker->tid)
		asm volatile("ud2");
	if (one_in(random, 2))
		own->callee = 0;
}

/* As a receiver would. */
static void park_well(struct worker *worker)
{
	struct rpal_park park = {
		.epfd = one_in(&worker->random, 4) ? others[0] : -1,
		.flags = one_in(&worker->random, 2),
		.timeout_ns = random_below(&worker->random, 5000000),
		.message = (uint64_t)worker->pages,
	};

	if (worker->control) {
		worker->control->sp = (uint64_t)worker->pages + 2 * PAGE - 1024;
		raw(SYS_ioctl, device, RPAL_IOC_PARK, (long)&park, 0);
	}
}

static void fuzz_words(struct worker *worker)
{
	struct random *random = &worker->random;
	struct rpal_control *control = one_in(random, 2) && worker->control ?
					       worker->control :
					       control_of(some_tid(random));

	((volatile uint64_t *)control)[random_below(random, RPAL_CONTROL_STRIDE / 8)] =
		some_word(random);
}

static void fuzz_memory(struct worker *worker)
{
	struct random *random = &worker->random;
	char *page = racing + random_below(random, RACING / PAGE) * PAGE;
	char *area = (char *)control_of(RPAL_TID_SERVICE(some_tid(random)) << 8);

	switch (random_below(random, 8)) {
	case 0:
		mprotect(page, PAGE, PROT_READ);
		break;
	case 1:
		madvise(page, PAGE, MADV_DONTNEED);
		break;
	case 2:
		munmap(page, PAGE);
		break;
	case 3: /* The control area, own or of a peer. */
		munmap(area + random_below(random, 16) * PAGE, PAGE);
		mprotect(area, RPAL_CONTROL_SIZE, PROT_READ);
		break;
	case 4:
		mremap(area, PAGE, PAGE, MREMAP_MAYMOVE);
		madvise(area, RPAL_CONTROL_SIZE, MADV_DONTNEED);
		break;
	default:
		*(volatile uint64_t *)(racing + random_below(random, RACING - 8)) =
			some_word(random);
		break;
	}
	mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void fuzz_files(struct worker *worker)
{
	struct random *random = &worker->random;
	struct epoll_event event = { .events = EPOLLIN | one_in(random, 2) * EPOLLET };
	uint32_t ids[4];
	int fd;

	switch (random_below(random, 5)) {
	case 0:
		raw(SYS_read, device, (long)some_place(worker, ids, sizeof(ids)),
		    random_below(random, 20), 0);
		break;
	case 1:
		fd = open("/dev/rpal", O_RDWR | O_CLOEXEC);
		raw(SYS_ioctl, fd, RPAL_IOC_DISABLE, 0, 0);
		close(fd);
		break;
	case 2:
		epoll_ctl(others[0], one_in(random, 2) ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
			  one_in(random, 2) ? device : others[1], &event);
		break;
	case 3:
		eventfd_write(others[1], 1);
		break;
	default:
		raw(SYS_poll, (long)&(struct pollfd){ .fd = device, .events = POLLIN }, 1, 0, 0);
		break;
	}
}

static void run_again(struct worker *worker)
{
	char text[4][24], *args[8] = { "/proc/self/exe", "--fuzzer" };
	uint64_t seed = random_word(&worker->random);
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	snprintf(text[0], sizeof(text[0]), "%d", board_fd);
	snprintf(text[1], sizeof(text[1]), "%u", my_index);
	snprintf(text[2], sizeof(text[2]), "%d", my_kind);
	snprintf(text[3], sizeof(text[3]), "%llu", (unsigned long long)seed);
	for (int i = 0; i < 4; i++)
		args[2 + i] = text[i];
	if (my_kind != NO_SERVICE && one_in(&worker->random, 2))
		raw(SYS_ioctl, device, RPAL_IOC_NEXT_EXEC, 1, 0);
	syscall(SYS_execveat, exe, "", args, environ, AT_EMPTY_PATH);
	/* All ids are taken, or a signal came. */
	close(exe);
}

static void fuzz_process(struct worker *worker)
{
	struct random *random = &worker->random;
	cpu_set_t cpus;
	pid_t pid;

	switch (random_below(random, 12)) {
	case 0: /* No service, and none of these threads. */
		pid = fork();
		if (pid)
			break;
		alarm(1);
		identity.pid = getpid();
		worker->tid = gettid();
		worker->control = NULL;
		if (sigsetjmp(worker->again, 1))
			_exit(0);
		for (int i = 0; i < 20; i++)
			fuzz_command(worker);
		check_identity();
		_exit(0);
	case 1: /* Borrows the mm. */
		pid = vfork();
		if (pid)
			break;
		for (size_t i = 0; i < UNKNOWN; i++)
			raw(SYS_ioctl, device, commands[i].number, (long)worker->pages, 0);
		_exit(0);
	case 2:
		if (one_in(random, 4))
			run_again(worker);
		break;
	case 3:
		CPU_ZERO(&cpus);
		CPU_SET(random_below(random, 4), &cpus);
		sched_setaffinity(0, sizeof(cpus), &cpus);
		break;
	case 4:
		prctl(PR_SET_DUMPABLE, 0);
		check_identity();
		prctl(PR_SET_DUMPABLE, 1);
		break;
	case 5:
		raw(SYS_rseq, (long)worker->pages, 32, random_below(random, 2), 0x53053053);
		break;
	case 6:
		pid = workers[random_below(random, THREADS)].tid;
		if (pid && pid != worker->tid)
			raw(SYS_tgkill, identity.pid, pid, SIGUSR1, 0);
		break;
	case 7: /* Of the same process: refused. */
		ptrace(PTRACE_ATTACH, workers[random_below(random, THREADS)].tid, 0, 0);
		break;
	default:
		check_identity();
	}
}

static void fuzz_once(struct worker *worker)
{
	count(&board->operations);
	switch (random_below(&worker->random, 20)) {
	case 0:
	case 1:
	case 2:
		fuzz_loan(worker);
		break;
	case 3:
		fuzz_words(worker);
		break;
	case 4:
		fuzz_memory(worker);
		break;
	case 5:
		fuzz_files(worker);
		break;
	case 6:
		fuzz_process(worker);
		break;
	case 7:
	case 8:
	case 9:
		park_well(worker);
		break;
	default:
		fuzz_command(worker);
		break;
	}
}

/* Most begin as threads that can call and be called. */
static void register_well(struct worker *worker)
{
	const uint64_t ip = (uint64_t)landing_of_call;
	struct rpal_register request = {
		.roles = RPAL_ROLE_SENDER | RPAL_ROLE_RECEIVER,
		.resume_ip = ip,
		.finish_ip = ip,
		.released_ip = ip,
		.park_ip = (uint64_t)landing_of_park,
		.copy_ip = ip,
	};

	if (ioctl(device, RPAL_IOC_REGISTER, &request))
		return;
	tell_tid(worker, request.tid);
	worker->control = control_of(request.tid);
}

static void prepare(struct worker *worker)
{
	worker->pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(worker->pages + FORBIDDEN * PAGE, PAGE, PROT_NONE);
	munmap(worker->pages + HOLE * PAGE, PAGE);
	worker->signal_stack.ss_size = 65536;
	worker->signal_stack.ss_sp = malloc(128 * 1024);
	sigaltstack(&worker->signal_stack, NULL);
	landing_stack = (char *)worker->signal_stack.ss_sp + 128 * 1024;
	worker->fs_base = fs_base();
	worker->control = NULL;
	worker->tid = gettid();
	if (!one_in(&worker->random, 8))
		register_well(worker);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	int operations = 50 + random_below(&worker->random, 3000);

	prepare(worker);
	sigsetjmp(worker->again, 1);
	worker->ready = true;
	while (operations-- > 0)
		fuzz_once(worker);
	worker->ready = false;
	worker->tid = 0;
	sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, NULL);
	munmap(worker->pages, HOLE * PAGE);
	free(worker->signal_stack.ss_sp);
	return NULL;
}

/* Two that ask for each other are peers for some time. */
static void ask_for(uint64_t key)
{
	struct rpal_request request = { .key = key };
	uint64_t meta = 7;

	raw(SYS_ioctl, device, RPAL_IOC_ENABLE, (long)&meta, 0);
	raw(SYS_ioctl, device, RPAL_IOC_REQUEST, (long)&request, 0);
	linked[request.id & 0xff] = request.flags & RPAL_PEER_LINKED;
	if (request.flags & RPAL_PEER_LINKED)
		count(&board->links);
}

/* The main thread starts workers anew, and wakes those that wait for ever. */
static void watch(struct random *random)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++) {
		workers[i].random = random_stream(random_word(random), i);
		pthread_create(&threads[i], NULL, work, &workers[i]);
	}
	for (;;) {
		usleep(500 + random_below(random, 3000));
		for (int i = 0; i < PROCESSES; i++)
			ask_for(board->keys[i]);
		for (int i = 0; i < THREADS; i++) {
			if (workers[i].tid)
				raw(SYS_tgkill, getpid(), workers[i].tid, SIGUSR1, 0);
			if (pthread_tryjoin_np(threads[i], NULL))
				continue;
			workers[i].random = random_stream(random_word(random), i);
			pthread_create(&threads[i], NULL, work, &workers[i]);
		}
	}
}

/* --fuzzer BOARD INDEX KIND SEED */
static int fuzzer(char **argv)
{
	struct random random = random_stream(strtoull(argv[5], NULL, 10), 99);
	struct rpal_info info = { .size = sizeof(info) };
	uint64_t meta = 7;

	map_board(atoi(argv[2]));
	my_index = atoi(argv[3]);
	my_kind = atoi(argv[4]);
	/* EPERM: this is an exec by itself, it is in one already. */
	if (my_kind == USER_NAMESPACE && unshare(CLONE_NEWUSER) && errno != EPERM)
		die("unshare", errno);
	identity = identity_now();
	handle_signals();
	device = open("/dev/rpal", O_RDWR | O_CLOEXEC);
	foreign_device = board->foreign_device;
	racing = mmap(NULL, RACING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	others[0] = epoll_create1(EPOLL_CLOEXEC);
	others[1] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	others[2] = device;
	others[3] = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	others[4] = 999;
	others[5] = -2;
	others[6] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	others[7] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	others[8] = board->sockets[0];
	others[9] = board->sockets[1];
	if (!ioctl(device, RPAL_IOC_INFO, &info) && info.id) {
		ioctl(device, RPAL_IOC_ENABLE, &meta);
		board->keys[my_index] = info.key;
	}
	watch(&random);
	return 0;
}

/* ---- The test ------------------------------------------------------------ */

struct process {
	pid_t pid;
	enum kind kind;
	double until;
};

static void start_fuzzer(struct process *process, unsigned int index, struct random *random)
{
	static const uid_t users[] = { USER, USER + 1, USER, 0, USER };
	char text[4][24];
	char *args[] = { "fuzzer", "--fuzzer", text[0], text[1], text[2], text[3], NULL };

	/* Most can be peers of others. */
	process->kind = one_in(random, 2) ? SAME_USER : random_below(random, KINDS);
	snprintf(text[0], sizeof(text[0]), "%d", board_fd);
	snprintf(text[1], sizeof(text[1]), "%u", index);
	snprintf(text[2], sizeof(text[2]), "%d", process->kind);
	snprintf(text[3], sizeof(text[3]), "%llu", (unsigned long long)random_word(random));
	process->pid = start_as(process->kind != NO_SERVICE, users[process->kind], args);
	process->until = now_seconds() + 0.3 + random_below(random, 2000) / 1000.0;
}

/* Whether it is over. What is killed has to end. */
static bool has_ended(struct process *process)
{
	bool killed = now_seconds() > process->until;
	int status;

	/* Its children, too. */
	if (killed)
		kill(-process->pid, SIGKILL);
	if (waitpid(process->pid, &status, killed ? 0 : WNOHANG) != process->pid)
		return false;
	kill(-process->pid, SIGKILL);
	if (WIFEXITED(status) && WEXITSTATUS(status) >= 95)
		report_strange("a fuzzer did not start: %d, %s", WEXITSTATUS(status),
			       strerrorname_np(start_error));
	return true;
}

static void print_line(const char *name, const uint64_t results[ERRNOS])
{
	printf("# %-11s", name);
	for (int error = 0; error < ERRNOS; error++)
		if (results[error])
			printf(" %s %llu", error ? strerrorname_np(error) : "0",
			       (unsigned long long)results[error]);
	printf("\n");
}

static void print_results(void)
{
	for (size_t i = 0; i < COMMANDS; i++)
		print_line(commands[i].name, board->results[i]);
	print_line("calls", board->call_results);
	printf("# %llu operations, %llu faults, %llu contexts claimed, %llu links seen\n",
	       (unsigned long long)board->operations, (unsigned long long)board->faults,
	       (unsigned long long)board->loans, (unsigned long long)board->links);
}

/* What did not even happen was not tested. Some of it is rare. */
struct coverage {
	size_t succeeded, refused; /* commands */
	bool enough;
};

static struct coverage coverage_so_far(const struct long_run *run)
{
	size_t rare = run->seconds < 60 ? 4 : 0;
	size_t succeeded = 0, refused = 0;

	for (size_t i = 0; i < UNKNOWN; i++) {
		bool any = false;

		succeeded += board->results[i][0] > 0;
		for (int error = 1; error < ERRNOS; error++)
			any |= board->results[i][error] > 0;
		refused += any;
	}
	return (struct coverage){
		succeeded, refused,
		succeeded >= UNKNOWN - rare && refused >= UNKNOWN - rare && board->loans,
	};
}

static void check_coverage(const struct long_run *run)
{
	struct coverage coverage = coverage_so_far(run);

	ok(coverage.enough, "of %zu commands %zu have succeeded and %zu were refused", UNKNOWN,
	   coverage.succeeded, coverage.refused);
}

/* A slow machine gets more time, not more than its patience. */
static bool needs_more(const struct long_run *run)
{
	return now_seconds() < run->until + 30 && !coverage_so_far(run).enough;
}

static unsigned long fuzz(struct long_run *run, uint64_t stream, bool until_covered)
{
	struct random random = random_stream(run->seed, stream);
	struct process processes[PROCESSES] = {};
	unsigned long started = 0;

	while (goes_on_after(run, started) || (until_covered && needs_more(run))) {
		for (int i = 0; i < PROCESSES; i++) {
			struct process *process = &processes[i];

			if (process->pid && !has_ended(process))
				continue;
			start_fuzzer(process, i, &random);
			started++;
		}
		usleep(5000);
	}
	for (int i = 0; i < PROCESSES; i++) {
		processes[i].until = 0;
		while (!has_ended(&processes[i]))
			;
	}
	ok(started >= PROCESSES, "%lu fuzzers ran and ended", started);
	return started;
}

int main(int argc, char **argv)
{
	struct long_run run, warm_up;
	int tasks, log;
	long memory, started;

	RUN_IDLE_SERVICE(argc, argv);
	RUN_BYSTANDER(argc, argv);
	if (argc == 6 && !strcmp(argv[1], "--fuzzer"))
		return fuzzer(argv);

	/* A thread with an rseq area cannot be registered. */
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* An emulator translates code again for every new address. */
	personality(ADDR_NO_RANDOMIZE);
	run = long_run(argc, argv, 5);
	log = kernel_log_from_now();
	/* Of processes that crash as they should, nothing is to be logged. */
	exception_trace("0");
	board_fd = shared_memory(sizeof(*board));
	map_board(board_fd);
	board->foreign_device = open("/dev/rpal", O_RDWR);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, board->sockets))
		die("socketpair", errno);
	ids_are_free(PKEYS);
	tasks = count_tasks();

	start_bystanders();
	for (int i = 0; i < 2; i++) {
		board->keys[PROCESSES + i] = bystanders->keys[i];
		board->tids[PROCESSES * THREADS + i] = bystanders->tids[i];
	}
	/* What the kernel needs once and keeps is no leak. */
	warm_up = run;
	warm_up.until = now_seconds() + 1;
	fuzz(&warm_up, 0, false);
	memory = free_memory();
	run.until = now_seconds() + run.seconds;
	started = fuzz(&run, 1, true);

	print_results();
	check_coverage(&run);
	bystanders_noticed_nothing();
	if (!ok(!board->strange, "nothing undocumented happened, and nobody acted as another"))
		printf("# %llu times, first: %s; the last who acted as another: %d as %d\n",
		       (unsigned long long)board->strange, board->what, board->acted_as[0],
		       board->acted_as[1]);
	tasks_are_gone(tasks);
	ids_are_free(3 * PKEYS);
	/* They differ in what they make the kernel cache. */
	memory_is_back_but(6144, memory, started, "fuzzers");
	exception_trace("1");
	kernel_log_is_quiet_but(log, FORGED);
	return done();
}
