/* guest: cpus=1,2 isolation=mpk,none debug timeout=120 */
// SPDX-License-Identifier: MIT
/*
 * perf samples both sides of calls, from the interrupt of a timer. A sample is
 * of the task that is interrupted, whatever context that has: the client's
 * samples are also of the server's code, while that is on loan. There is one
 * thing that perf must not do then: to walk the page tables of a peer's slot,
 * which interrupts that are disabled here do not keep from going. So it does
 * not know the size of a page there.
 */
#include "kernel_log.h"
#include "two_services.h"
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum {
	ADD,   /* words 1 and 2 */
	SLOW,  /* the same, with a system call */
	LONG,  /* the same, after a while in user mode */
	CALLS = 20000,
	LOOPS = 20000, /* of LONG */
	PERIOD = 500000, /* ns */
	PAGES = 256,
	STACK = 256, /* bytes of it in a sample */
	REGISTERS = 1 << 7 | 1 << 8, /* sp and ip, of PERF_REG_X86_* */
};

static int handle(struct rpal_message *m)
{
	if (m->word[0] == SLOW)
		getppid();
	if (m->word[0] == LONG)
		for (volatile int i = 0; i < LOOPS; i++)
			;
	m->word[0] = m->word[1] + m->word[2];
	return 0;
}

static void server(struct side *side, int argc, char **argv)
{
	serve_calls(handle);
}

/* One thread that is sampled. */
struct sampler {
	int fd;
	pid_t pid;
	struct perf_event_mmap_page *page;
	char *data;
};

/* What its samples were. */
struct tally {
	long samples, foreign_tasks, lost;
	long own, peers; /* by the service whose code was interrupted */
	long own_sizes, peer_sizes; /* of these: with the size of the page */
	long user_registers, stacks, chains;
	long odd; /* in user mode, but with registers of somewhere else */
};

static struct sampler sample(pid_t pid)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = PERIOD,
		.sample_type = PERF_SAMPLE_IP | PERF_SAMPLE_TID | PERF_SAMPLE_CALLCHAIN |
			       PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER |
			       PERF_SAMPLE_CODE_PAGE_SIZE,
		.sample_regs_user = REGISTERS,
		.sample_stack_user = STACK,
	};
	struct sampler sampler = { .pid = pid };

	sampler.fd = syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (sampler.fd < 0)
		bail_out("perf_event_open");
	sampler.page = mmap(NULL, (1 + PAGES) * 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
			    sampler.fd, 0);
	if (sampler.page == MAP_FAILED)
		bail_out("mmap of the samples");
	sampler.data = (char *)sampler.page + 4096;
	return sampler;
}

/* The words of one record, copied out of the ring. */
static uint64_t *take_record(const struct sampler *sampler, uint64_t *at, uint64_t words[1024])
{
	const uint64_t mask = PAGES * 4096 - 1;
	struct perf_event_header *header;

	/* A record is a multiple of eight bytes. */
	words[0] = *(uint64_t *)(sampler->data + (*at & mask));
	header = (void *)words;
	if (header->size < 8 || header->size > 8192)
		bail_out("a record of a strange size");
	for (int i = 1; i < header->size / 8; i++)
		words[i] = *(uint64_t *)(sampler->data + ((*at + i * 8) & mask));
	*at += header->size;
	return words;
}

/* The order is that of PERF_RECORD_SAMPLE in perf_event_open(2). */
static void count_sample(const struct sampler *sampler, const struct side *side,
			 const uint64_t *word, struct tally *tally)
{
	uint64_t ip = word[1], chain = word[3], size;
	const uint64_t *rest = word + 4 + chain;

	tally->samples++;
	tally->chains += chain > 0;
	if ((uint32_t)word[2] != (uint32_t)sampler->pid || word[2] >> 32 != (uint64_t)sampler->pid)
		tally->foreign_tasks++;
	/* abi, and two registers if there is one. */
	if (*rest++) {
		tally->user_registers++;
		if ((int64_t)ip > 0 && rest[1] != ip)
			tally->odd++;
		rest += 2;
	}
	/* The size of the dump, the dump, and how much of it was there. */
	if (*rest) {
		tally->stacks += rest[1 + *rest / 8] > 0;
		rest += *rest / 8 + 1;
	}
	size = rest[1];
	if (ip >> RPAL_SLOT_SHIFT == rpal_service()->id) {
		tally->own++;
		tally->own_sizes += size == 4096 || size == 2097152;
	} else if (ip >> RPAL_SLOT_SHIFT == side->peer.id) {
		tally->peers++;
		tally->peer_sizes += size != 0;
	}
}

static void count_samples(struct sampler *sampler, const struct side *side, struct tally *tally)
{
	uint64_t at = sampler->page->data_tail, end = __atomic_load_n(&sampler->page->data_head,
								      __ATOMIC_ACQUIRE);
	uint64_t words[1024];

	while (at < end) {
		struct perf_event_header *header = (void *)take_record(sampler, &at, words);

		if (header->type == PERF_RECORD_SAMPLE)
			count_sample(sampler, side, words, tally);
		else if (header->type == PERF_RECORD_LOST)
			tally->lost += words[2];
	}
	__atomic_store_n(&sampler->page->data_tail, end, __ATOMIC_RELEASE);
}

/* Every 64th call is handed back, and every 16th is a long one. */
static long call_often(const struct side *side, struct sampler samplers[2], struct tally tallies[2])
{
	long wrong = 0;

	for (int i = 0; i < CALLS; i++) {
		uint64_t what = i % 64 == 0 ? SLOW : i % 16 == 1 ? LONG : ADD;
		struct rpal_message m = { { what, i, 7 } };

		wrong += rpal_call(&side->target, &m, -1) || m.word[0] != i + 7ULL;
		if (i % 256 == 0)
			for (int j = 0; j < 2; j++)
				count_samples(&samplers[j], side, &tallies[j]);
	}
	return wrong;
}

static void test_samples(struct side *side)
{
	struct sampler samplers[2] = { sample(getpid()), sample(side->other) };
	struct tally tallies[2] = { 0 }, *mine = &tallies[0], *servers = &tallies[1];

	is(call_often(side, samplers, tallies), 0, "calls are right while both sides are sampled");
	for (int i = 0; i < 2; i++) {
		ioctl(samplers[i].fd, PERF_EVENT_IOC_DISABLE, 0);
		count_samples(&samplers[i], side, &tallies[i]);
		printf("# %s: %ld samples, %ld lost, code of the client %ld, of the server %ld; user registers %ld, stacks %ld, chains %ld\n",
		       i ? "server" : "client", tallies[i].samples, tallies[i].lost, tallies[i].own,
		       tallies[i].peers, tallies[i].user_registers, tallies[i].stacks,
		       tallies[i].chains);
	}
	ok(mine->samples > 20, "the client was sampled (%ld)", mine->samples);
	is(mine->foreign_tasks + servers->foreign_tasks, 0, "every sample names the right task");
	ok(mine->own > 0 && mine->peers > 0, "in its own code (%ld) and in the server's (%ld)",
	   mine->own, mine->peers);
	is(servers->own, 0, "the server was never in the client's");
	is(mine->peer_sizes, 0, "nobody looked into page tables of the server's slot");
	is(mine->own_sizes, mine->own, "but into those of the client's own");
	ok(mine->user_registers == mine->samples && mine->chains == mine->samples &&
		   mine->stacks > 0 && !mine->odd && !servers->odd,
	   "samples have registers, call chains and stacks");
}

static int client(struct side *side, int argc, char **argv)
{
	int log = kernel_log_from_now();

	test_samples(side);
	kernel_log_is_quiet(log);
	return done();
}

int main(int argc, char **argv)
{
	return two_services(argc, argv, server, client);
}
