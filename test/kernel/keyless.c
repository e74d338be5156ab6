/* guest: cpus=1 isolation=keyless,none-keyless append=nofsgsbase debug=no timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * A machine without protection keys: nobody can be a service, and it is said
 * why; unless the administrator has allowed services without isolation. Then
 * all works, and they are told. Nor can anybody where user mode may not change
 * FS base, whether there are keys or not.
 */
#include "marked_program.h"
#include "two_services.h"
#include <fcntl.h>
#include <sys/ioctl.h>

enum {
	ADD,  /* words 1 and 2 */
	SLOW, /* the same, as itself */
};

static bool file_has(const char *path, const char *word)
{
	FILE *file = fopen(path, "r");
	char *line = NULL;
	size_t room = 0;
	bool has = false;

	if (!file)
		bail_out(path);
	while (!has && getline(&line, &room, file) > 0)
		has = strstr(line, word);
	free(line);
	fclose(file);
	return has;
}

static bool has_keys(void)
{
	return file_has("/proc/cpuinfo", " ospke");
}

static bool has_fs_base(void)
{
	return file_has("/proc/cpuinfo", " fsgsbase");
}

static int handle(struct rpal_message *m)
{
	if (m->word[0] == SLOW)
		getppid();
	m->word[0] = m->word[1] + m->word[2];
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

static int client(struct side *side, int argc, char **argv)
{
	const struct rpal_info *info = rpal_service();
	uint64_t secret = 0;
	long wrong = 0;

	ok(info->caps & RPAL_CAP_SERVICE && info->caps & RPAL_CAP_RECEIVE,
	   "where the administrator allows it, there are services");
	ok(!(info->caps & RPAL_CAP_MPK) && !info->pkey && !info->pkru && !side->peer.pkey,
	   "which are told that they have no protection keys");
	for (uint64_t i = 0; i < 100000; i++) {
		struct rpal_message m = { { i % 64 ? ADD : SLOW, i, i * 3 } };

		wrong += rpal_call(&side->target, &m, -1) || m.word[0] != i * 4;
	}
	is(wrong, 0, "100000 calls are right");
	is(rpal_read_peer(side->peer.id, side->peer.pkey, &secret, &side->target.control->fs_base,
			  sizeof(secret)),
	   0, "a peer's memory can be read");
	ok(secret >> RPAL_SLOT_SHIFT == side->peer.id, "and is that (%#llx)",
	   (unsigned long long)secret);
	return done();
}

/* Executes a program: its exit status, or -errno. */
static int run(int fd)
{
	char *argv[] = { "program", "--is-service", NULL };
	volatile int error = 0;
	int status;
	pid_t pid;

	pid = vfork();
	if (!pid) {
		fexecve(fd, argv, environ);
		error = -errno;
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return error ?: WEXITSTATUS(status);
}

static int test_refused(void)
{
	int plain = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int fd = open("/dev/rpal", O_RDWR | O_CLOEXEC);
	struct rpal_info info;

	is(rpal_probe(&info), 0, "the kernel has RPAL");
	ok(info.abi == RPAL_ABI_VERSION && !(info.caps & ~RPAL_CAP_MPK),
	   "and no services to offer (%#llx)", info.caps);
	ok(!info.caps == !has_keys(), "it says whether there are protection keys");
	is(rpal_exec_service(), -EOPNOTSUPP, "nobody can ask for the next program to be a service");
	is(result(ioctl(fd, RPAL_IOC_NEXT_EXEC, 1)), -EOPNOTSUPP, "not by hand either");
	is(result(ioctl(fd, RPAL_IOC_NEXT_EXEC, 0)), 0, "only not to");
	is(run(plain), 0, "who did runs a program that is none");
	is(run(marked_program()), -EOPNOTSUPP, "a program that has to be one is not executed");
	is(rpal_open(), -EPERM, "this one is none");
	is(rpal_attach(RPAL_ROLE_SENDER), -EPERM, "and cannot call");
	is(rpal_attach(RPAL_ROLE_RECEIVER), -EPERM, "or be called");
	return done();
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--is-service"))
		return rpal_open() >= 0;
	if (argc == 1 && has_keys() && has_fs_base()) {
		errno = EEXIST;
		bail_out("protection keys");
	}
	if (!has_fs_base() || !file_has("/proc/cmdline", "rpal.isolation=none"))
		return test_refused();
	return two_services(argc, argv, server, client);
}
