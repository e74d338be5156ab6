/* SPDX-License-Identifier: MIT */
/* Files of /proc, /sys and cgroups that hold one setting. */
#ifndef SETTING_H
#define SETTING_H

#include "tap.h"
#include <fcntl.h>
#include <unistd.h>

/* Return: 0, or -errno. */
__attribute__((format(printf, 2, 3))) static inline int try_set(const char *path,
								const char *format, ...)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret;
	char text[256];
	va_list args;

	if (fd < 0)
		return -errno;
	va_start(args, format);
	ret = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	ret = write(fd, text, ret) == ret ? 0 : -errno;
	close(fd);
	return ret;
}

/* What has to work. */
#define set(path, ...)                                    \
	do {                                              \
		const char *path_ = path;                 \
		int error_ = try_set(path_, __VA_ARGS__); \
		if (error_) {                             \
			errno = -error_;                  \
			bail_out(path_);                  \
		}                                         \
	} while (0)

/* The number after @name and a blank; without @name, the first one. */
static inline long get_number(const char *path, const char *name)
{
	FILE *file = fopen(path, "r");
	char line[256];
	long value = -1;

	if (!file)
		bail_out(path);
	while (value < 0 && fgets(line, sizeof(line), file)) {
		size_t length = name ? strlen(name) : 0;

		if (!name || (!strncmp(line, name, length) && line[length] == ' '))
			value = atol(line + length);
	}
	fclose(file);
	return value;
}

#endif
