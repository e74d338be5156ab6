/* SPDX-License-Identifier: MIT */
/* A block device in memory: the guest has no disk. */
#ifndef LOOP_DEVICE_H
#define LOOP_DEVICE_H

#include "tap.h"
#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

struct loop_device {
	char path[32];
	int fd;
};

/* All of its bytes are 0. It ends with the last descriptor of it. */
static inline struct loop_device loop_device(size_t bytes)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = {
		.fd = memfd_create("disk", MFD_CLOEXEC),
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	struct loop_device device;
	int number;

	if (control < 0 || (int)config.fd < 0 || posix_fallocate(config.fd, 0, bytes))
		bail_out("loop device");
	number = ioctl(control, LOOP_CTL_GET_FREE);
	snprintf(device.path, sizeof(device.path), "/dev/loop%d", number);
	device.fd = open(device.path, O_RDWR | O_CLOEXEC);
	if (number < 0 || device.fd < 0 || ioctl(device.fd, LOOP_CONFIGURE, &config))
		bail_out(device.path);
	close(config.fd);
	close(control);
	return device;
}

/* Swap space of so many bytes, until stop_swapping(). */
static inline struct loop_device swap_space(size_t bytes)
{
	struct loop_device device = loop_device(bytes);
	/* Of the header: version and last page at 1024, the magic at the end. */
	uint32_t version[2] = { 1, bytes / 4096 - 1 };

	if (pwrite(device.fd, version, sizeof(version), 1024) != sizeof(version) ||
	    pwrite(device.fd, "SWAPSPACE2", 10, 4096 - 10) != 10 || fsync(device.fd) ||
	    swapon(device.path, 0))
		bail_out("swapon");
	return device;
}

static inline void stop_swapping(struct loop_device *device)
{
	if (swapoff(device->path))
		bail_out("swapoff");
	close(device->fd);
}

#endif
