/* SPDX-License-Identifier: MIT */
/*
 * What services have is free again after they have gone: ids, protection keys,
 * tasks. A test's main() begins with RUN_IDLE_SERVICE(argc, argv).
 */
#ifndef FREE_AGAIN_H
#define FREE_AGAIN_H

#include "two_services.h"
#include <dirent.h>
#include <fcntl.h>

#define IDS   (RPAL_ID_MAX - RPAL_ID_MIN + 1)
#define PKEYS 15

struct idle_service {
	pid_t pid;
	int socket;
	struct rpal_info info;
};

/* The role: says who it is, and ends with its socket. */
static inline int idle_service(int socket)
{
	char byte;

	MUST(rpal_open());
	tell(socket, rpal_service(), sizeof(struct rpal_info));
	return read(socket, &byte, 1) != 0;
}

#define RUN_IDLE_SERVICE(argc, argv)                              \
	do {                                                      \
		if ((argc) == 3 && !strcmp((argv)[1], "--idle"))  \
			return idle_service(atoi((argv)[2]));     \
	} while (0)

/* False: there is no free id. */
static inline bool start_idle(struct idle_service *service)
{
	int sockets[2];
	bool started;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair", errno);
	service->pid = start_service("--idle", sockets[0], 0, NULL);
	close(sockets[0]);
	service->socket = sockets[1];
	started = read(sockets[1], &service->info, sizeof(service->info)) ==
		  sizeof(service->info);
	if (!started) {
		close(service->socket);
		waitpid(service->pid, NULL, 0);
	}
	return started;
}

static inline void end_idle(struct idle_service *service)
{
	close(service->socket);
	waitpid(service->pid, NULL, 0);
}

/*
 * How many of the first @count ids can be had, one after the other and each
 * once, and whether the first of them have all protection keys.
 */
static inline int count_free(int count, int *missing_pkeys)
{
	struct idle_service services[IDS];
	int free = 0, started, wanted = count < PKEYS ? count : PKEYS;
	unsigned int pkeys = 0;

	for (started = 0; started < count; started++) {
		if (!start_idle(&services[started]))
			break;
		free += services[started].info.id == (uint32_t)(RPAL_ID_MIN + started);
		if (started < PKEYS)
			pkeys |= 1u << services[started].info.pkey;
	}
	*missing_pkeys = wanted - __builtin_popcount(pkeys & ~1u);
	if (started && !(services[0].info.caps & RPAL_CAP_MPK))
		*missing_pkeys = 0;
	while (started--)
		end_idle(&services[started]);
	return free;
}

/* Nobody has any of the first @count ids, and all keys are used equally. */
static inline bool ids_are_free(int count)
{
	int free, missing;

	/* The last reference to an address space can be a worker's. */
	for (int i = 0; i < 50; i++) {
		free = count_free(count, &missing);
		if (free == count && !missing)
			break;
		usleep(100000);
	}
	return ok(free == count && !missing,
		  "of %d ids %d are free again, and all but %d protection keys", count, free,
		  missing);
}

static inline bool is_of_kernel(const char *pid)
{
	char path[300], line[512] = "", *name_end;
	int parent = 0, fd;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, line, sizeof(line) - 1) <= 0)
		line[0] = 0;
	close(fd);
	name_end = strrchr(line, ')');
	return !strcmp(pid, "2") ||
	       (name_end && sscanf(name_end, ") %*c %d", &parent) == 1 && parent == 2);
}

/* Threads of all processes of the guest, but the kernel's. */
static inline int count_tasks(void)
{
	DIR *processes = opendir("/proc"), *threads;
	struct dirent *process, *thread;
	int tasks = 0;
	char path[300];

	if (!processes)
		die("/proc", errno);
	while ((process = readdir(processes))) {
		if (process->d_name[0] < '0' || process->d_name[0] > '9' ||
		    is_of_kernel(process->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/task", process->d_name);
		threads = opendir(path);
		while (threads && (thread = readdir(threads)))
			tasks += thread->d_name[0] != '.';
		if (threads)
			closedir(threads);
	}
	closedir(processes);
	return tasks;
}

static inline bool tasks_are_gone(int before)
{
	int now = count_tasks();

	/* A dying task is still listed for a moment. */
	for (int i = 0; i < 50 && now > before; i++) {
		usleep(100000);
		now = count_tasks();
	}
	return ok(now <= before, "no task is left (%d before, %d now)", before, now);
}

#endif
