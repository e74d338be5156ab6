/* guest: cpus=1,2 debug timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * The control area is where the kernel has mapped it, whatever a service tries
 * with it: every attempt is refused or makes no difference, and calls go on.
 * A child of fork and the next program have none.
 */
#include "two_services.h"
#include <fcntl.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#define PAGE 4096UL

enum {
	ADD,	 /* words 1 and 2 */
	SLOW,	 /* the same, as itself */
	ATTEMPT, /* number word 1, on the server's own area: the result */
};

static char *area(void)
{
	return (char *)(uintptr_t)rpal_service()->slot_start + RPAL_CONTROL_OFFSET;
}

/* ---- What is tried -------------------------------------------------------------- */

static long unmap_all(void)
{
	return result(munmap(area(), RPAL_CONTROL_SIZE));
}

static long unmap_first_page(void)
{
	return result(munmap(area(), PAGE));
}

static long unmap_last_page(void)
{
	return result(munmap(area() + RPAL_CONTROL_SIZE - PAGE, PAGE));
}

static long unmap_across_it(void)
{
	return result(munmap(area() - PAGE, RPAL_CONTROL_SIZE + 2 * PAGE));
}

static long make_read_only(void)
{
	return result(mprotect(area(), PAGE, PROT_READ));
}

static long make_executable(void)
{
	return result(mprotect(area(), RPAL_CONTROL_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC));
}

static long give_it_own_key(void)
{
	return result(syscall(SYS_pkey_mprotect, area(), PAGE, PROT_READ | PROT_WRITE,
			      rpal_service()->pkey));
}

static long move_it(void)
{
	return result(mremap(area(), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			     area() + (64UL << 20)));
}

static long move_and_keep_it(void)
{
	return result(mremap(area(), RPAL_CONTROL_SIZE, RPAL_CONTROL_SIZE,
			     MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
}

/* Old size 0 makes a second mapping of what is shared. */
static long map_it_twice(void)
{
	return result(mremap(area(), 0, PAGE, MREMAP_MAYMOVE));
}

static long grow_it(void)
{
	return result(mremap(area(), RPAL_CONTROL_SIZE, RPAL_CONTROL_SIZE + PAGE, MREMAP_MAYMOVE));
}

static long shrink_it(void)
{
	return result(mremap(area(), RPAL_CONTROL_SIZE, PAGE, 0));
}

static long map_over_it(void)
{
	return result(mmap(area(), PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static long map_beside_it(void)
{
	return result(mmap(area() - PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static long move_over_it(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long ret = result(mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area()));

	munmap(page, PAGE);
	return ret;
}

static long attach_over_it(void)
{
	int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600);
	long ret = id < 0 ? -EPERM : result(shmat(id, area(), SHM_REMAP));

	shmctl(id, IPC_RMID, NULL);
	return ret;
}

static long shuffle_it(void)
{
	return result(syscall(SYS_remap_file_pages, area(), PAGE, 0, 1, 0));
}

static long advise_all(int advice)
{
	return result(madvise(area(), RPAL_CONTROL_SIZE, advice));
}

static long forget_it(void)
{
	return advise_all(MADV_DONTNEED);
}

static long page_it_out(void)
{
	return advise_all(MADV_PAGEOUT);
}

static long let_it_be_freed(void)
{
	return advise_all(MADV_FREE);
}

static long punch_a_hole(void)
{
	return advise_all(MADV_REMOVE);
}

static long dump_it(void)
{
	return advise_all(MADV_DODUMP);
}

static long lock_it(void)
{
	long ret = result(mlock(area(), RPAL_CONTROL_SIZE));

	munlock(area(), RPAL_CONTROL_SIZE);
	return ret;
}

static const struct attempt {
	const char *name;
	long (*run)(void);
	int error;
	bool harmless; /* if it succeeds */
} attempts[] = {
	{ "munmap of all of it", unmap_all, EPERM, false },
	{ "munmap of its first page", unmap_first_page, EPERM, false },
	{ "munmap of its last page", unmap_last_page, EPERM, false },
	{ "munmap of more than it", unmap_across_it, EPERM, false },
	{ "mprotect to read only", make_read_only, EPERM, false },
	{ "mprotect to executable", make_executable, EACCES, false },
	{ "pkey_mprotect to the service's key", give_it_own_key, EPERM, false },
	{ "mremap to another place", move_it, EPERM, false },
	{ "mremap that keeps it", move_and_keep_it, EPERM, false },
	{ "mremap to a second place", map_it_twice, EPERM, false },
	{ "mremap to grow", grow_it, EPERM, false },
	{ "mremap to shrink", shrink_it, EPERM, false },
	{ "mmap over it", map_over_it, EPERM, false },
	{ "mmap over its beginning", map_beside_it, EPERM, false },
	{ "mremap of something else over it", move_over_it, EPERM, false },
	{ "shmat over it", attach_over_it, EPERM, false },
	{ "remap_file_pages", shuffle_it, EINVAL, false },
	{ "MADV_DONTNEED", forget_it, EPERM, true },
	{ "MADV_PAGEOUT", page_it_out, EINVAL, true },
	{ "MADV_FREE", let_it_be_freed, EINVAL, false },
	{ "MADV_REMOVE", punch_a_hole, EINVAL, false },
	{ "MADV_DODUMP", dump_it, EINVAL, false },
	{ "mlock", lock_it, ENOMEM, true },
};

#define ATTEMPTS (sizeof(attempts) / sizeof(attempts[0]))

/* ---- The services --------------------------------------------------------------- */

static int handle(struct rpal_message *m)
{
	switch (m->word[0]) {
	case ATTEMPT:
		m->word[0] = attempts[m->word[1] % ATTEMPTS].run();
		return 0;
	case SLOW:
		getppid();
		/* fallthrough */
	default:
		m->word[0] = m->word[1] + m->word[2];
		return 0;
	}
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static bool calls_work(struct side *side)
{
	for (uint64_t i = 0; i < 64; i++) {
		struct rpal_message m = { { i % 8 ? ADD : SLOW, i, 2 * i } };

		if (rpal_call(&side->target, &m, -1) || m.word[0] != 3 * i)
			return false;
	}
	return true;
}

/* One line that says "[rpal]", and what it says. */
static bool is_where_it_was(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512], access[8];
	int found = 0, good = 0;

	while (file && fgets(line, sizeof(line), file)) {
		if (!strstr(line, "[rpal]"))
			continue;
		found++;
		good += sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 &&
			start == (unsigned long)area() && end == start + RPAL_CONTROL_SIZE &&
			!strcmp(access, "rw-s");
	}
	if (file)
		fclose(file);
	return found == 1 && good == 1;
}

static void test_attempt(struct side *side, size_t number)
{
	const struct attempt *attempt = &attempts[number];
	struct rpal_message m = { { ATTEMPT, number } };
	uint32_t tid = own_control()->tid;
	long ret = attempt->run(), theirs;

	ok(ret == -attempt->error || (attempt->harmless && !ret), "%s (%ld)", attempt->name, ret);
	theirs = rpal_call(&side->target, &m, -1) ?: (long)m.word[0];
	ok(theirs == ret && is_where_it_was() && own_control()->tid == tid && calls_work(side),
	   "so says the server (%ld), and calls work", theirs);
}

static void test_register_again(void)
{
	struct rpal_register request = { .roles = RPAL_ROLE_SENDER };
	int fd = rpal_open();

	for (int i = 0; i < 2; i++) {
		request.tid = 0;
		request.control = 0;
		is(result(ioctl(fd, RPAL_IOC_REGISTER, &request)), 0, "REGISTER again");
		ok(request.tid == rpal_tid() && request.control == (uint64_t)own_control(),
		   "gives the same id and address");
	}
	request.roles = RPAL_ROLE_RECEIVER;
	is(result(ioctl(fd, RPAL_IOC_REGISTER, &request)), 0, "also for another role");
	ok(request.tid == rpal_tid() && request.control == (uint64_t)own_control(),
	   "the same id and address");
	is(result(ioctl(fd, RPAL_IOC_UNREGISTER, RPAL_ROLE_RECEIVER)), 0, "which it gives up");
}

/* ---- Those who have none -------------------------------------------------------- */

static sigjmp_buf after_fault;
static volatile int fault_code;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	fault_code = signal == SIGSEGV ? info->si_code : 100 + info->si_code;
	siglongjmp(after_fault, 1);
}

/* The si_code of the SIGSEGV that a load from there gets; 0: none. */
static int fault_at(uint64_t address)
{
	struct sigaction action = {
		.sa_sigaction = on_fault,
		.sa_flags = SA_SIGINFO,
	};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	fault_code = 0;
	if (!sigsetjmp(after_fault, 1))
		(void)*(volatile uint64_t *)address;
	return fault_code;
}

static int status_of(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static void test_fork(void)
{
	uint64_t address = (uint64_t)own_control();
	pid_t pid;

	is(fault_at(address), 0, "a service can read its control block");
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(fault_at(address));
	is(status_of(pid), SEGV_MAPERR, "in a child of fork nothing is there");
}

static void test_exec(void)
{
	char text[32], *args[] = { "no service", "--look", text, NULL };
	pid_t pid;

	snprintf(text, sizeof(text), "%llu", (unsigned long long)(uintptr_t)own_control());
	pid = vfork();
	if (!pid) {
		execv("/proc/self/exe", args);
		_exit(97);
	}
	is(status_of(pid), SEGV_MAPERR, "nor in the next program");
}

/* The service that had the block executes another program. */
static void test_exec_of_service(void)
{
	char number[16], *args[] = { "service", "--look-and-tell", number, NULL };
	uint64_t code = 0;
	int sockets[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	snprintf(number, sizeof(number), "%d", dup(sockets[1]));
	pid = vfork();
	if (!pid) {
		MUST(rpal_exec_service());
		execv("/proc/self/exe", args);
		_exit(97);
	}
	close(sockets[1]);
	close(atoi(number));
	hear(sockets[0], &code, sizeof(code));
	close(sockets[0]);
	is(code, SEGV_MAPERR, "nor when the service itself executes it");
	is(status_of(pid), 0, "which ends well");
}

/* A service that becomes none: --look-and-tell SOCKET, then --look ADDRESS SOCKET. */
static int look_and_tell(char **argv)
{
	char text[32], *args[] = { "no service", "--look", text, argv[2], NULL };

	MUST(rpal_open());
	MUST(rpal_attach(RPAL_ROLE_SENDER));
	if (fault_at((uint64_t)own_control()))
		die("the control block", EFAULT);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)(uintptr_t)own_control());
	execv("/proc/self/exe", args);
	return 97;
}

static int look(int argc, char **argv)
{
	uint64_t code = fault_at(strtoull(argv[2], NULL, 10));

	if (argc < 4)
		return code;
	tell(atoi(argv[3]), &code, sizeof(code));
	return 0;
}

static int client(struct side *side, int argc, char **argv)
{
	ok(is_where_it_was() && calls_work(side), "the control area is there, and calls work");
	for (size_t i = 0; i < ATTEMPTS; i++)
		test_attempt(side, i);
	test_register_again();
	test_fork();
	test_exec();
	test_exec_of_service();
	ok(calls_work(side), "at last calls work");
	return done();
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "--look"))
		return look(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "--look-and-tell"))
		return look_and_tell(argv);
	return two_services(argc, argv, server, client);
}
