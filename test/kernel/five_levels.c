/* guest: cpus=1 la57 isolation=mpk,none debug=no timeout=60 */
// SPDX-License-Identifier: MIT
/*
 * Page tables with 5 levels: a slot would not be what an entry of the highest
 * level maps. Nobody can be a service, with and without protection keys, and
 * all other programs have their address space to themselves.
 */
#include "no_services.h"
#include <linux/rpal.h>
#include <stdint.h>

#define PAGE	  4096UL
#define SLOT_SIZE (1UL << RPAL_SLOT_SHIFT)
#define LOW	  (1UL << 47) /* what 4 levels have */

static void *map_at(uint64_t address, int flags)
{
	return mmap((void *)address, PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* Otherwise there is nothing to test here. */
static void require_five_levels(void)
{
	void *high = map_at(LOW + SLOT_SIZE, 0);

	if (!file_has("/proc/cpuinfo", " la57") || high == MAP_FAILED || (uint64_t)high < LOW) {
		errno = ENODEV;
		bail_out("page tables with 5 levels");
	}
	munmap(high, PAGE);
}

static bool can_use(uint64_t address)
{
	volatile uint64_t *page = map_at(address, MAP_FIXED_NOREPLACE);
	bool good;

	if ((uint64_t)page != address)
		return false;
	*page = address;
	good = *page == address;
	munmap((void *)page, PAGE);
	return good;
}

/* Also where each service would have its control area. */
static void test_addresses(void)
{
	int bad = 0;

	for (uint64_t id = RPAL_ID_MIN; id <= RPAL_ID_MAX; id++) {
		bad += !can_use(id * SLOT_SIZE + RPAL_CONTROL_OFFSET);
		bad += !can_use((id + 1) * SLOT_SIZE - PAGE);
	}
	is(bad, 0, "pages at both ends of each slot");
	ok(can_use(LOW) && can_use(256 * LOW), "and above");
	ok((uint64_t)__builtin_frame_address(0) / SLOT_SIZE == (LOW - 1) / SLOT_SIZE,
	   "the stack is where it always was");
}

static void test_children(void)
{
	uint64_t *high = map_at(LOW + SLOT_SIZE, 0);
	int status;
	pid_t pid;

	*high = 1;
	pid = fork();
	if (!pid) {
		*high = 2;
		_exit(can_use(SLOT_SIZE) && *high == 2 ? 42 : 1);
	}
	ok(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42 &&
		   *high == 1,
	   "a child has a copy of all that");
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], IS_SERVICE))
		return rpal_open() >= 0;
	require_five_levels();
	test_refused(has_keys() && !file_has("/proc/cmdline", "rpal.isolation=none"));
	test_addresses();
	test_children();
	return done();
}
