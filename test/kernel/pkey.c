// SPDX-License-Identifier: MIT
/* guest: cpus=1,2 debug timeout=60 */
/*
 * Protection keys: all pages of a service have its key, all its user code
 * starts with that and key 0 open, and peers cannot touch each other's memory
 * unless they open the other's key.
 */
#include "peer.h"
#include <pthread.h>
#include <sys/shm.h>

static struct rpal_info me;
static volatile uint32_t seen;

/* How many mappings of this process do not have its key; the control area. */
static int other_keys(void)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	char line[512], mapping[512] = "";
	int count = 0, key;
	unsigned long start, end;

	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			strcpy(mapping, line);
		else if (sscanf(line, "ProtectionKey: %d", &key) == 1 &&
			 (unsigned int)key != me.pkey && !strstr(mapping, "[vsyscall]") &&
			 !strstr(mapping, "[rpal]")) {
			printf("# key %d: %s", key, mapping);
			count++;
		}
	}
	fclose(file);
	return count;
}

static void *thread(void *arg)
{
	seen = read_pkru();
	return NULL;
}

static void handler(int signal)
{
	seen = read_pkru();
}

static void *map(int prot, int flags)
{
	return mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

static void test_pages(void)
{
	char *page;
	int id;

	ok(!other_keys(), "all pages have the service's key after exec");
	map(PROT_READ, 0);
	map(PROT_EXEC, 0);
	map(PROT_NONE, 0);
	map(PROT_READ, MAP_GROWSDOWN);
	id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
	if (id >= 0)
		shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	sbrk(1 << 20);
	page = map(PROT_READ, 0);
	mprotect(page, 4096, PROT_EXEC);
	page = map(PROT_EXEC, 0);
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
	page[0] = 1;
	page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, open("/proc/self/exe", O_RDONLY), 0);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	munlockall();
	ok(map(PROT_READ | PROT_WRITE, 0) != MAP_FAILED, "mmap after mlockall");
	page = mremap(page, 4096, 65536, MREMAP_MAYMOVE);
	ok(!other_keys(), "and however they are made");
}

static void test_calls(void)
{
	char *page = map(PROT_READ | PROT_WRITE, 0);

	is(result(syscall(SYS_pkey_alloc, 0, 0)), -ENOSPC, "there is no other key");
	is(result(syscall(SYS_pkey_free, me.pkey)), -EINVAL, "its own stays");
	is(result(syscall(SYS_pkey_free, (me.pkey + 1) % 16)), -EINVAL, "others are not its own");
	is(result(syscall(SYS_pkey_mprotect, page, 4096, PROT_READ, me.pkey)), 0,
	   "pkey_mprotect to its own");
	is(result(syscall(SYS_pkey_mprotect, page, 4096, PROT_READ, me.pkey % 15 + 1)), -EINVAL,
	   "not to another");
	is(result(syscall(SYS_pkey_mprotect, page, 4096, PROT_READ, -1)), 0,
	   "mprotect by that name");
}

static void test_registers(void)
{
	stack_t stack = { .ss_sp = malloc(65536), .ss_size = 65536 };
	struct sigaction action = { .sa_handler = handler };
	pthread_t id;
	pid_t pid;
	int status;

	is(me.pkru, 0x55555554 & ~(3u << 2 * me.pkey), "the default opens its own key and 0");
	is(read_pkru(), me.pkru, "after exec");

	write_pkru(0);
	pthread_create(&id, NULL, thread, NULL);
	pthread_join(id, NULL);
	is(seen, me.pkru, "in a new thread, whatever its creator had open");
	is(read_pkru(), 0, "the creator goes on as before");

	sigaction(SIGUSR1, &action, NULL);
	raise(SIGUSR1);
	is(seen, me.pkru, "in a signal handler");
	is(read_pkru(), 0, "and before again after it");
	sigaltstack(&stack, NULL);
	action.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR1, &action, NULL);
	write_pkru(me.pkru);
	raise(SIGUSR1);
	is(seen, me.pkru, "on another stack");

	write_pkru(0);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(read_pkru() == me.pkru);
	waitpid(pid, &status, 0);
	is(WEXITSTATUS(status), 1, "in a child");
	pid = vfork();
	if (!pid)
		_exit(read_pkru() == me.pkru);
	waitpid(pid, &status, 0);
	is(WEXITSTATUS(status), 1, "in a vfork child");
	write_pkru(me.pkru);
	for (int i = 0; i < 100; i++)
		sched_yield();
	is(read_pkru(), me.pkru, "after other tasks ran");
}

static int self_role(int socket)
{
	me = get_info(device());
	test_pages();
	test_calls();
	test_registers();
	return tell_counts(socket);
}

static void test_peers(void)
{
	struct child a = start_peer(), b = start_peer();
	uint64_t page, mine, pkey = b.info.pkey;

	page = tell(&b, MAP, 65536, 0, 0);
	mine = tell(&a, MAP, 65536, 0, 0);
	store(&b, &b, page, 1);
	store(&a, &a, mine, 2);
	link_peers(&a, &b);
	b.info.pkey = 0;
	is(load(&a, &b, page), NO_KEY, "A may not read B's memory");
	is(store(&a, &b, page, 9), NO_KEY, "nor write it");
	is(load(&a, &b, page + 8192), NO_KEY, "nor what B never touched");
	tell(&a, WRITE_FILE, page, 0, 0);
	is(last.value, -EFAULT, "nor have the kernel do it");
	b.info.pkey = pkey;
	is(load(&a, &b, page), 1, "with B's key open it may");
	pkey = a.info.pkey;
	a.info.pkey = 0;
	is(load(&b, &a, mine), NO_KEY, "B may not read A's memory");
	a.info.pkey = pkey;
	is(load(&b, &a, mine), 2, "with A's key open it may");
	is(load(&a, &a, mine), 2, "A may read its own");
	end(&a);
	end(&b);
}

const struct role roles[] = { { "self", self_role }, { "peer", peer_role }, {} };

int main(int argc, char **argv)
{
	RUN_ROLE(argc, argv);
	me = get_info(device());
	if (!(me.caps & RPAL_CAP_MPK))
		skip_all("no protection keys");
	test_in_service("self");
	test_peers();
	return done();
}
