/* guest: cpus=1 isolation=keyless,none-keyless append=nofsgsbase debug=no timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * A machine without protection keys: nobody can be a service, and it is said
 * why; unless the administrator has allowed services without isolation. Then
 * all works, and they are told. Nor can anybody where user mode may not change
 * FS base, whether there are keys or not.
 */
#include "no_services.h"
#include "two_services.h"

enum {
	ADD,  /* words 1 and 2 */
	SLOW, /* the same, as itself */
};

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

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], IS_SERVICE))
		return rpal_open() >= 0;
	if (argc == 1 && has_keys() && has_fs_base()) {
		errno = EEXIST;
		bail_out("protection keys");
	}
	if (!has_fs_base() || !file_has("/proc/cmdline", "rpal.isolation=none")) {
		test_refused(has_keys());
		return done();
	}
	return two_services(argc, argv, server, client);
}
