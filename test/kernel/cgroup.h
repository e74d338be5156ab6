/* SPDX-License-Identifier: MIT */
/* Control groups, for tests that put the two sides into two of them. */
#ifndef CGROUP_H
#define CGROUP_H

#include "setting.h"
#include <limits.h>
#include <sys/stat.h>
#include <sys/types.h>

#define CGROUPS "/sys/fs/cgroup"

struct cgroup {
	char path[64];
};

static inline struct cgroup new_cgroup(const char *name)
{
	struct cgroup group;

	snprintf(group.path, sizeof(group.path), CGROUPS "/%s", name);
	if (mkdir(group.path, 0755))
		bail_out(group.path);
	return group;
}

/* The path of one of its files; valid until the thread's next call. */
static inline const char *cgroup_file(const struct cgroup *group, const char *name)
{
	static __thread char path[128];

	snprintf(path, sizeof(path), "%s/%s", group->path, name);
	return path;
}

static inline void join_cgroup(const struct cgroup *group, pid_t pid)
{
	set(cgroup_file(group, "cgroup.procs"), "%d", pid);
}

static inline void leave_cgroup(pid_t pid)
{
	set(CGROUPS "/cgroup.procs", "%d", pid);
}

/* No process is in it. */
static inline void end_cgroup(const struct cgroup *group)
{
	if (rmdir(group->path))
		bail_out(group->path);
}

#endif
