/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Either side of a call dumps core. The file has what was its own: registers
 * of its threads, memory of its slot. It has nothing of the other side, which
 * goes on.
 */
#include "kernel_log.h"
#include "receiver_state.h"
#include "loan_limit.h"
#include "setting.h"
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/procfs.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/user.h>

#define CORE "/tmp/rpal-core"
#define WORDS 4096

/* Of a side, for the test. */
struct report {
	pid_t pid;
	uint32_t tid; /* of its main thread */
	/* In memory that is its own. Inverted, so that it is nowhere else. */
	uint64_t inverted_secret;
};

/* What a call asks the server for. */
enum {
	NOTHING,
	SPIN, /* on loan, until it is let go */
	ABORT,
};

static struct side *us;
static volatile bool go;

static int handle(struct rpal_message *m)
{
	if (m->word[0] == ABORT)
		abort();
	while (m->word[0] == SPIN && !go)
		;
	return 0;
}

static void keep_secret(int report)
{
	uint64_t *words = malloc(WORDS * sizeof(*words));
	struct report mine = { getpid(), rpal_tid(), 0 };
	struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

	if (getrandom(words, sizeof(*words), 0) != sizeof(*words))
		die("getrandom", errno);
	for (int i = 1; i < WORDS; i++)
		words[i] = words[0];
	mine.inverted_secret = ~words[0];
	setrlimit(RLIMIT_CORE, &unlimited);
	tell(report, &mine, sizeof(mine));
}

/* Lets the handler go, and says so: the server lives. */
static void *watch(void *arg)
{
	int report = *(int *)arg;
	char byte;

	while (read(report, &byte, 1) == 1) {
		go = true;
		tell(report, &byte, 1);
	}
	_exit(0);
}

static void server(struct side *side, int report)
{
	pthread_t thread;

	us = side;
	introduce_receiver(side, RPAL_ROLE_RECEIVER);
	keep_secret(report);
	pthread_create(&thread, NULL, watch, &report);
	serve_calls(handle);
}

static void *call_spin(void *arg)
{
	struct rpal_message m = { { SPIN } };

	MUST(rpal_attach(RPAL_ROLE_SENDER));
	rpal_call(&us->target, &m, -1);
	return NULL;
}

enum scene {
	HANDLER_ABORTS,
	SERVER_IS_ABORTED,  /* while its context is on loan */
	CLIENT_IS_ABORTED,  /* while it has that */
	CLIENT_ABORTS_ALONE, /* while another thread of it has that */
	CLIENT_ABORTS,	    /* without a call */
	SCENES,
};

static void client(struct side *side, int report, enum scene scene)
{
	struct rpal_message m = { { NOTHING } };
	pthread_t thread;

	us = side;
	meet_receiver(side);
	/* Then the server is there, and parked. */
	MUST(rpal_call(&side->target, &m, -1));
	keep_secret(report);
	m.word[0] = scene == HANDLER_ABORTS ? ABORT : SPIN;
	switch (scene) {
	case CLIENT_ABORTS:
		abort();
	case CLIENT_ABORTS_ALONE:
		pthread_create(&thread, NULL, call_spin, NULL);
		wait_until_called(side->other, side->target.tid);
		abort();
	default:
		_exit(rpal_call(&side->target, &m, -1) == -EOWNERDEAD ? 0 : 1);
	}
}

/* A core file in memory. */
struct core {
	const char *start;
	size_t bytes;
};

static struct core read_core(pid_t pid)
{
	struct core core;
	char path[64];
	struct stat stat;
	int fd;

	snprintf(path, sizeof(path), CORE ".%d", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &stat))
		bail_out(path);
	core.bytes = stat.st_size;
	core.start = mmap(NULL, core.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (core.start == MAP_FAILED)
		bail_out("mmap");
	close(fd);
	unlink(path);
	return core;
}

static long words_of(const struct core *core, uint64_t value)
{
	const uint64_t *words = (const uint64_t *)core->start;
	long found = 0;

	for (size_t i = 0; i < core->bytes / sizeof(*words); i++)
		found += words[i] == value;
	return found;
}

/* Threads in the core; how many of them are not at home in the slot. */
static int threads_of(const struct core *core, const Elf64_Phdr *notes, uint32_t service,
		      int *foreign)
{
	const char *at = core->start + notes->p_offset, *end = at + notes->p_filesz;
	int threads = 0;

	while (at < end) {
		const Elf64_Nhdr *note = (const Elf64_Nhdr *)at;
		const char *content = at + sizeof(*note) + ((note->n_namesz + 3) & ~3);

		if (note->n_type == NT_PRSTATUS) {
			const struct elf_prstatus *status = (const void *)content;
			const struct user_regs_struct *regs = (const void *)&status->pr_reg;

			threads++;
			*foreign += regs->rip >> RPAL_SLOT_SHIFT != service ||
				    regs->rsp >> RPAL_SLOT_SHIFT != service ||
				    regs->fs_base >> RPAL_SLOT_SHIFT != service;
		}
		at = content + ((note->n_descsz + 3) & ~3);
	}
	return threads;
}

static void check_core(const struct report *mine, const struct report *other, int threads,
		       const char *who)
{
	struct core core = read_core(mine->pid);
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)core.start;
	const Elf64_Phdr *parts = (const Elf64_Phdr *)(core.start + header->e_phoff);
	int found = 0, foreign = 0, outside = 0, loaded = 0;
	long own, others;

	for (int i = 0; i < header->e_phnum; i++) {
		if (parts[i].p_type == PT_NOTE)
			found = threads_of(&core, &parts[i], RPAL_TID_SERVICE(mine->tid), &foreign);
		/* All but the vsyscall page. */
		if (parts[i].p_type != PT_LOAD || parts[i].p_vaddr >> 47)
			continue;
		loaded++;
		outside += parts[i].p_vaddr >> RPAL_SLOT_SHIFT != RPAL_TID_SERVICE(mine->tid);
	}
	ok(found == threads && !foreign, "%s: %d of %d threads, %d with foreign registers", who,
	   found, threads, foreign);
	ok(loaded > 5 && !outside, "%d mappings, %d of them outside the slot", loaded, outside);
	own = words_of(&core, ~mine->inverted_secret);
	others = words_of(&core, ~other->inverted_secret);
	ok(own >= WORDS && !others, "its own secret is there, the other's not (%ld, %ld)", own,
	   others);
	munmap((void *)core.start, core.bytes);
}

static const struct {
	const char *name;
	bool server_dies;
	int threads; /* of who dies */
} scenes[] = {
	[HANDLER_ABORTS] = { "the server's handler aborts", true, 2 },
	[SERVER_IS_ABORTED] = { "the server aborts with its context on loan", true, 2 },
	[CLIENT_IS_ABORTED] = { "the client aborts with a context on loan", false, 1 },
	[CLIENT_ABORTS_ALONE] = { "so does one whose other thread has it", false, 2 },
	[CLIENT_ABORTS] = { "so does one that has a peer", false, 1 },
};

static pid_t start(const char *role, int socket, int report, enum scene scene)
{
	char number[16], what[16], *argv[] = { number, what };

	snprintf(number, sizeof(number), "%d", dup(report));
	snprintf(what, sizeof(what), "%d", scene);
	return start_service(role, socket, 2, argv);
}

static void test(enum scene scene)
{
	int sockets[2], to_server[2], to_client[2], status;
	struct report reports[2];
	pid_t pids[2];
	char byte = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, to_server) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, to_client))
		bail_out("socketpair");
	pids[0] = start("--server", sockets[0], to_server[1], scene);
	pids[1] = start("--client", sockets[1], to_client[1], scene);
	hear(to_server[0], &reports[0], sizeof(reports[0]));
	hear(to_client[0], &reports[1], sizeof(reports[1]));
	if (scene == SERVER_IS_ABORTED || scene == CLIENT_IS_ABORTED) {
		wait_until_called(reports[0].pid, reports[0].tid);
		kill(pids[scene == CLIENT_IS_ABORTED], SIGABRT);
	}

	waitpid(pids[!scenes[scene].server_dies], &status, 0);
	ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && WCOREDUMP(status), "%s",
	   scenes[scene].name);
	if (scenes[scene].server_dies) {
		waitpid(pids[1], &status, 0);
		ok(!status, "the client gets an error and goes on");
		check_core(&reports[0], &reports[1], scenes[scene].threads, "server");
	} else {
		check_core(&reports[1], &reports[0], scenes[scene].threads, "client");
		tell(to_server[0], "?", 1);
		hear(to_server[0], &byte, 1);
		ok(byte == '?', "the server goes on");
		kill(pids[0], SIGKILL);
		waitpid(pids[0], NULL, 0);
	}
	close(sockets[0]);
	close(sockets[1]);
	close(to_server[0]);
	close(to_server[1]);
	close(to_client[0]);
	close(to_client[1]);
}

int main(int argc, char **argv)
{
	int log;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 4) {
		struct side side = become_peers(atoi(argv[2]));

		if (!strcmp(argv[1], "--server"))
			server(&side, atoi(argv[3]));
		client(&side, atoi(argv[3]), atoi(argv[4]));
	}
	set("/proc/sys/kernel/core_pattern", CORE ".%%p");
	/* A loan must not end for another reason. */
	limit_loans(LONGEST_LOAN_LIMIT);
	log = kernel_log_from_now();
	for (enum scene scene = 0; scene < SCENES; scene++)
		test(scene);
	kernel_log_is_quiet(log);
	limit_loans(DEFAULT_LOAN_LIMIT);
	set("/proc/sys/kernel/core_pattern", "core");
	return done();
}
