/* SPDX-License-Identifier: MIT */
/*
 * What the C benchmarks share: the clock, the samples, the messages and their
 * verification, the count of system calls, and the one line of JSON at the end.
 *
 * A benchmark makes three passes over the same loop. The first warms up. The
 * second reads the clock only before and after: its mean is the result. The
 * third reads the clock at every message: percentiles, less what reading the
 * clock costs. A fourth, short pass counts system calls of all processes, by
 * the tracepoint that every one of them passes; counting makes them slower, so
 * it is not timed.
 */
#ifndef MEASURE_H
#define MEASURE_H

#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The arguments of every benchmark. */
struct plan {
	const char *directory; /* for samples */
	long messages;
	bool instructions; /* the time stamp counter counts them (icount) */
	bool system_call;  /* the handler of every message makes one */
};

static inline struct plan plan_of(char **argv)
{
	return (struct plan){ argv[1], atol(argv[2]), !strcmp(argv[3], "icount"),
			      argv[4] && !strcmp(argv[4], "system-call") };
}

/* What the receiver does with a message besides, if that is the plan. */
static inline void enter_kernel(const struct plan *plan)
{
	if (plan->system_call)
		getppid();
}

static inline uint64_t ticks(const struct plan *plan)
{
	struct timespec now;
	uint32_t low, high;

	if (plan->instructions) {
		asm volatile("rdtsc" : "=a"(low), "=d"(high));
		return (uint64_t)high << 32 | low;
	}
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* What two readings of the clock differ by when nothing is between them. */
static inline uint64_t clock_cost(const struct plan *plan)
{
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < 1000; i++) {
		uint64_t start = ticks(plan), cost = ticks(plan) - start;

		if (cost < least)
			least = cost;
	}
	return least;
}

struct samples {
	uint32_t *value;
	long count, room;
};

static inline struct samples samples_for(long room)
{
	struct samples samples = { calloc(room, sizeof(uint32_t)), 0, room };

	/* Not a page is touched for the first time while the clock runs. */
	memset(samples.value, 1, room * sizeof(uint32_t));
	return samples;
}

static inline void sample(struct samples *samples, uint64_t value)
{
	if (samples->count < samples->room)
		samples->value[samples->count++] = value > UINT32_MAX ? UINT32_MAX : value;
}

static inline void save(const struct plan *plan, const char *name, const struct samples *samples)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", plan->directory, name);
	file = fopen(path, "w");
	if (!file ||
	    fwrite(samples->value, sizeof(uint32_t), samples->count, file) !=
		    (size_t)samples->count ||
	    fclose(file)) {
		perror(path);
		exit(2);
	}
}

/* What a client has before its first message. */
struct run {
	struct plan plan;
	struct samples samples;
	uint64_t cost; /* of reading the clock */
	long counted;  /* messages of the passes that are not timed */
};

static inline struct run run_of(char **argv)
{
	struct plan plan = plan_of(argv);

	return (struct run){ plan, samples_for(plan.messages), clock_cost(&plan),
			     plan.messages / 10 };
}

/* 32 bytes of which none can be lost, doubled or mixed up unnoticed. */
struct record {
	uint64_t number, stamp, mixed, check;
};

#define LAST UINT64_MAX

static inline void fill(struct record *record, uint64_t number, uint64_t stamp)
{
	record->number = number;
	record->stamp = stamp;
	record->mixed = number * 0x9e3779b97f4a7c15ULL ^ stamp;
	record->check = ~number + stamp;
}

static inline bool right(const struct record *record, uint64_t number)
{
	return record->number == number &&
	       record->mixed == (number * 0x9e3779b97f4a7c15ULL ^ record->stamp) &&
	       record->check == ~number + record->stamp;
}

/* What the receiver makes of it. */
static inline void answer(struct record *record)
{
	fill(record, ~record->number, record->stamp);
}

static inline void verify(bool right, uint64_t number)
{
	if (right)
		return;
	fprintf(stderr, "message %llu is wrong: this run is no result\n",
		(unsigned long long)number);
	exit(3);
}

/* System calls of all processes since they began to be counted. */
struct syscall_count {
	int fd[64];
	int cpus;
};

static inline struct syscall_count count_syscalls(void)
{
	static const char *id_file = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.sample_period = 1,
	};
	struct syscall_count count = { .cpus = sysconf(_SC_NPROCESSORS_ONLN) };
	unsigned long long id;
	FILE *file;

	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	file = fopen(id_file, "r");
	if (!file || fscanf(file, "%llu", &id) != 1) {
		count.cpus = 0;
		return count;
	}
	fclose(file);
	attr.sample_period = 0;
	attr.config = id;
	for (int cpu = 0; cpu < count.cpus && cpu < 64; cpu++) {
		count.fd[cpu] = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, 0);
		if (count.fd[cpu] < 0) {
			count.cpus = 0;
			break;
		}
	}
	return count;
}

/* Their number so far, -1 where the kernel cannot count them. */
static inline int64_t syscalls(const struct syscall_count *count)
{
	int64_t sum = count->cpus ? 0 : -1;

	for (int cpu = 0; cpu < count->cpus; cpu++) {
		uint64_t value = 0;

		if (read(count->fd[cpu], &value, sizeof(value)) == sizeof(value))
			sum += value;
	}
	return sum;
}

struct result {
	const char *transport, *measure, *samples;
	int bytes;
	long messages;
	double mean;	   /* < 0: that of the samples */
	double hand_backs; /* per message */
	double syscalls;   /* per message, < 0: unknown */
};

static inline void report(const struct result *result)
{
	printf("{\"suite\":\"c\",\"transport\":\"%s\",\"measure\":\"%s\","
	       "\"bytes\":%d,\"messages\":%ld,\"mean\":%f,\"samples\":\"%s\","
	       "\"handBacksPerCall\":%f,\"syscallsPerCall\":%f}\n",
	       result->transport, result->measure, result->bytes, result->messages, result->mean,
	       result->samples, result->hand_backs, result->syscalls);
	fflush(stdout);
}

#endif
