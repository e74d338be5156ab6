// SPDX-License-Identifier: MIT
/*
 * The guest's first process. It assembles the root file system, then runs the commands that the
 * host asks for, one at a time, over one virtio-serial port.
 *
 * Why not a shell script: arguments must arrive exactly as they were typed, stdout and stderr must
 * stay apart, the exit status must be the command's, and nothing of one command may be left when
 * the next one starts. Why not ssh or an agent in JavaScript: this starts in milliseconds and
 * works on any kernel that can run one static program.
 *
 * Frames, both directions: one byte of type, four bytes of length (little endian), payload.
 *
 *   host → guest   'R'  run: a list of NUL-terminated strings, each led by a letter:
 *                       w<cwd>, e<NAME=VALUE>, a<argument>, t<rows>x<columns> (wants a terminal),
 *                       m<marker> (printed to the kernel log before and after)
 *                  'I'  bytes for its standard input; an empty one closes it
 *                  'W'  new size of the terminal, <rows>x<columns>
 *                  'D'  put into the kernel log what every CPU and every blocked task is doing
 *                  'P'  power off
 *   guest → host   'H'  ready for the first command
 *                  'O'  bytes of standard output (and of the terminal)
 *                  'E'  bytes of standard error
 *                  'X'  the command and everything it started are gone; payload: decimal status,
 *                       128 + signal number for a command that a signal ended, as shells have it
 *                  'F'  the command could not be started; payload: why
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_NAME "rpal.control"
#define MAX_FRAME (4u << 20)

static int kmsg = -1;
static int port = -1;

/* Messages of this program go to the kernel log: it is what the host shows when a boot fails. */
static void say(const char *format, ...)
{
	char line[512 + 1];
	int len = snprintf(line, sizeof(line) - 1, "<6>rpal-init: ");
	va_list args;

	va_start(args, format);
	len += vsnprintf(line + len, sizeof(line) - 1 - len, format, args);
	va_end(args);
	if (len > (int)sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (kmsg >= 0 && write(kmsg, line, len) < 0)
		return;
}

/* Nothing sensible is left to do: leave the reason in the log and switch off. */
static void give_up(const char *what)
{
	say("%s: %s", what, strerror(errno));
	sync();
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static void must_mount(const char *source, const char *target, const char *type,
		       unsigned long flags, const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data)) {
		say("cannot mount %s on %s", type, target);
		give_up("mount");
	}
}

/* For file systems that a kernel of the user's own may not have. */
static void may_mount(const char *source, const char *target, const char *type, unsigned long flags,
		      const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data) && errno != ENODEV && errno != ENOENT)
		say("%s is not mounted on %s: %s", type, target, strerror(errno));
}

static void make_directories(const char *path)
{
	char part[4096];
	size_t i;

	snprintf(part, sizeof(part), "%s", path);
	for (i = 1; part[i]; i++) {
		if (part[i] != '/')
			continue;
		part[i] = 0;
		mkdir(part, 0755);
		part[i] = '/';
	}
	mkdir(part, 0755);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		say("%s: %s", path, strerror(errno));
	close(fd);
}

/* The value of name= on the kernel command line, or NULL. */
static const char *boot_parameter(const char *name)
{
	static char line[4096];
	static char value[2048];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
	char *word, *state;

	if (fd >= 0)
		close(fd);
	if (len < 0)
		return NULL;
	line[len] = 0;
	for (word = strtok_r(line, " \n", &state); word; word = strtok_r(NULL, " \n", &state)) {
		size_t n = strlen(name);

		if (strncmp(word, name, n) || word[n] != '=')
			continue;
		snprintf(value, sizeof(value), "%s", word + n + 1);
		return value;
	}
	return NULL;
}

/* %20 and the like: a path on the kernel command line cannot hold spaces. */
static void percent_decode(char *text)
{
	char *out = text;

	for (; *text; text++) {
		unsigned int byte;

		if (*text == '%' && sscanf(text + 1, "%2x", &byte) == 1) {
			*out++ = (char)byte;
			text += 2;
		} else {
			*out++ = *text;
		}
	}
	*out = 0;
}

/*
 * The root file system is shared by all guests and must not change: a tmpfs lies over it. The
 * repository is mounted at the path it has on the host, so that file names in messages are right
 * on both sides. Both use cache=loose: the host does not change files while a guest runs, and
 * Node's module loader stats thousands of them.
 */
static void assemble_root(void)
{
	static const char p9[] = "trans=virtio,version=9p2000.L,msize=262144,cache=loose";
	const char *repository;
	char path[4096];

	must_mount("none", "/stage", "tmpfs", 0, "mode=0755,size=50%");
	mkdir("/stage/upper", 0755);
	mkdir("/stage/work", 0755);
	must_mount("root", "/stage/lower", "9p", MS_RDONLY, p9);
	must_mount("overlay", "/stage/root", "overlay", 0,
		   "lowerdir=/stage/lower,upperdir=/stage/upper,workdir=/stage/work");

	if (chdir("/stage/root"))
		give_up("chdir to the new root");
	must_mount("devtmpfs", "dev", "devtmpfs", 0, "mode=0755");
	must_mount("proc", "proc", "proc", 0, NULL);
	must_mount("sysfs", "sys", "sysfs", 0, NULL);
	must_mount("tmpfs", "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
	must_mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");

	/* After all others: it may lie in one of them. */
	repository = boot_parameter("rpal.repository");
	if (repository) {
		snprintf(path, sizeof(path), "/stage/root%s", repository);
		percent_decode(path);
		make_directories(path);
		must_mount("repository", path, "9p", 0, p9);
	}

	umount2("/proc", MNT_DETACH);
	umount2("/sys", MNT_DETACH);
	umount2("/dev", MNT_DETACH);
	if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		give_up("entering the new root");

	may_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		  "gid=5,mode=620,ptmxmode=666");
	may_mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	may_mount("mqueue", "/dev/mqueue", "mqueue", 0, NULL);
	may_mount("hugetlbfs", "/dev/hugepages", "hugetlbfs", 0, NULL);
	may_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	may_mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	may_mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	if (symlink("/proc/self/fd", "/dev/fd") || symlink("/proc/self/fd/0", "/dev/stdin") ||
	    symlink("/proc/self/fd/1", "/dev/stdout") || symlink("/proc/self/fd/2", "/dev/stderr"))
		say("links in /dev: %s", strerror(errno));
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +cpuset +memory +pids");
}

/* Debian's defaults are for a machine with a user; a test machine wants its core dumps and limits. */
static void settle_down(void)
{
	struct rlimit files = { 65536, 65536 };
	struct rlimit core = { 0, RLIM_INFINITY };
	struct rlimit memlock = { RLIM_INFINITY, RLIM_INFINITY };
	struct ifreq loopback = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (sethostname("rpal", 4))
		say("hostname: %s", strerror(errno));
	loopback.ifr_flags = IFF_UP | IFF_RUNNING;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &loopback))
		say("the loopback interface is down: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &core);
	setrlimit(RLIMIT_MEMLOCK, &memlock);
	write_file("/proc/sys/kernel/core_pattern", "core");
	write_file("/proc/sys/kernel/panic_on_oops", "1");
	write_file("/proc/sys/kernel/hung_task_timeout_secs", "60");
	/* Tests stop and start faster than printk's limit for messages of processes. */
	write_file("/proc/sys/kernel/printk_ratelimit", "0");
}

/* virtio-serial ports are named by the host; their device numbers depend on the machine. */
static int open_port(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	char path[512];
	char name[64];
	int found = -1;

	while (ports && found < 0 && (entry = readdir(ports))) {
		int fd;
		ssize_t len;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		len = fd < 0 ? -1 : read(fd, name, sizeof(name) - 1);
		if (fd >= 0)
			close(fd);
		if (len <= 0)
			continue;
		name[len] = 0;
		name[strcspn(name, "\n")] = 0;
		if (strcmp(name, PORT_NAME))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		found = open(path, O_RDWR | O_CLOEXEC);
	}
	if (ports)
		closedir(ports);
	if (found < 0)
		give_up("there is no virtio-serial port called " PORT_NAME);
	return found;
}

static void write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			give_up("the host is gone");
		at += n;
		len -= n;
	}
}

static void read_all(int fd, void *data, size_t len)
{
	char *at = data;

	while (len) {
		ssize_t n = read(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			give_up("the host is gone");
		at += n;
		len -= n;
	}
}

static void send_frame(char type, const void *payload, uint32_t len)
{
	unsigned char head[5] = { type, len, len >> 8, len >> 16, len >> 24 };

	write_all(port, head, sizeof(head));
	write_all(port, payload, len);
}

/* Returns the payload with a NUL behind it; the caller frees it. */
static char *read_frame(char *type, uint32_t *len)
{
	unsigned char head[5];
	char *payload;

	read_all(port, head, sizeof(head));
	*type = head[0];
	*len = head[1] | head[2] << 8 | head[3] << 16 | (uint32_t)head[4] << 24;
	if (*len > MAX_FRAME) {
		errno = EMSGSIZE;
		give_up("a frame of the host");
	}
	payload = malloc(*len + 1);
	if (!payload)
		give_up("memory for a frame");
	read_all(port, payload, *len);
	payload[*len] = 0;
	return payload;
}

struct command {
	char *cwd;
	char *marker;
	char *terminal;
	char **argv;
	char **envp;
};

static void parse_command(struct command *command, char *payload, uint32_t len)
{
	size_t words = 1;
	size_t args = 0, vars = 0;
	char *word;

	memset(command, 0, sizeof(*command));
	for (word = payload; word < payload + len; word += strlen(word) + 1)
		words++;
	command->argv = calloc(words, sizeof(char *));
	command->envp = calloc(words, sizeof(char *));
	if (!command->argv || !command->envp)
		give_up("memory for a command");
	for (word = payload; word < payload + len; word += strlen(word) + 1) {
		switch (*word) {
		case 'w':
			command->cwd = word + 1;
			break;
		case 'm':
			command->marker = word + 1;
			break;
		case 't':
			command->terminal = word + 1;
			break;
		case 'a':
			command->argv[args++] = word + 1;
			break;
		case 'e':
			command->envp[vars++] = word + 1;
			break;
		}
	}
}

static void set_window_size(int fd, const char *text)
{
	struct winsize size = { 0 };

	if (sscanf(text, "%hux%hu", &size.ws_row, &size.ws_col) != 2)
		size = (struct winsize){ .ws_row = 24, .ws_col = 80 };
	ioctl(fd, TIOCSWINSZ, &size);
}

struct streams {
	int input;  /* where bytes of the host go, or -1 */
	int output; /* read end, or -1 when closed */
	int error;
	bool terminal;
	char *pending; /* input that the command has not taken yet */
	size_t pending_at, pending_len;
};

/*
 * Starts the command. Returns its pid, or -1 with errno set. Whether exec worked is learnt from a
 * pipe that exec closes.
 */
static pid_t start(const struct command *command, struct streams *streams)
{
	int in[2] = { -1, -1 }, out[2], err[2], failed[2];
	int why = 0;
	pid_t pid;

	memset(streams, 0, sizeof(*streams));
	streams->terminal = command->terminal;
	if (!command->argv[0]) {
		errno = EINVAL;
		return -1;
	}
	if (command->terminal) {
		char name[64];
		int unlock = 0, number;

		out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (out[0] < 0 || ioctl(out[0], TIOCSPTLCK, &unlock) ||
		    ioctl(out[0], TIOCGPTN, &number))
			return -1;
		snprintf(name, sizeof(name), "/dev/pts/%d", number);
		out[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (out[1] < 0)
			return -1;
		set_window_size(out[0], command->terminal);
		err[0] = -1;
		err[1] = out[1];
		in[0] = out[1];
		in[1] = out[0];
	} else if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) {
		return -1;
	}
	if (pipe2(failed, O_CLOEXEC))
		return -1;

	pid = fork();
	if (pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		if (command->terminal)
			ioctl(out[1], TIOCSCTTY, 0);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		if (!command->cwd || !chdir(command->cwd))
			execvpe(command->argv[0], command->argv, command->envp);
		why = errno;
		if (write(failed[1], &why, sizeof(why)) < 0)
			_exit(126);
		_exit(127);
	}
	close(failed[1]);
	close(out[1]);
	if (!command->terminal) {
		close(in[0]);
		close(err[1]);
	}
	if (pid > 0 && read(failed[0], &why, sizeof(why)) == sizeof(why)) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(failed[0]);
	/* The terminal has one descriptor for both ways; two make closing simple. */
	if (command->terminal)
		in[1] = fcntl(out[0], F_DUPFD_CLOEXEC, 0);
	fcntl(in[1], F_SETFL, O_NONBLOCK);
	streams->input = in[1];
	streams->output = out[0];
	streams->error = err[0];
	if (pid < 0) {
		close(out[0]);
		close(in[1]);
		close(err[0]);
		errno = why;
	}
	return pid;
}

/* Passes on what there is; closes the stream at its end. */
static void relay(int *fd, char type)
{
	static char buffer[65536];
	ssize_t n = read(*fd, buffer, sizeof(buffer));

	if (n > 0) {
		send_frame(type, buffer, n);
	} else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
		close(*fd);
		*fd = -1;
	}
}

static void close_input(struct streams *streams)
{
	free(streams->pending);
	streams->pending = NULL;
	if (streams->input >= 0)
		close(streams->input);
	streams->input = -1;
}

/*
 * Hands pending input to the command. It may read slowly or never: that must not keep its output
 * from flowing, so writing never blocks, and the host is not listened to until the input is gone.
 */
static void feed(struct streams *streams)
{
	ssize_t n = write(streams->input, streams->pending + streams->pending_at,
			  streams->pending_len - streams->pending_at);

	if (n > 0)
		streams->pending_at += n;
	else if (errno != EAGAIN && errno != EINTR)
		close_input(streams); /* it closed its standard input */
	if (streams->pending_at < streams->pending_len)
		return;
	free(streams->pending);
	streams->pending = NULL;
}

/* The newline matters: the kernel holds back a record without one, in case it is continued. */
static void mark(const char *marker, const char *what)
{
	char line[512];
	int len = snprintf(line, sizeof(line), "<5>rpal-vm: %s %s\n", what, marker);

	if (write(kmsg, line, len) < 0)
		give_up("/dev/kmsg");
}

static void take_input(struct streams *streams)
{
	uint32_t len;
	char type;
	char *payload = read_frame(&type, &len);

	switch (type) {
	case 'I':
		if (streams->input < 0)
			break;
		if (len) {
			streams->pending = payload;
			streams->pending_at = 0;
			streams->pending_len = len;
			feed(streams);
			return;
		}
		if (!streams->terminal)
			close_input(streams);
		break;
	case 'W':
		if (streams->terminal && streams->input >= 0)
			set_window_size(streams->input, payload);
		break;
	case 'D':
		write_file("/proc/sysrq-trigger", "l");
		write_file("/proc/sysrq-trigger", "w");
		mark("", "dumped");
		break;
	case 'P':
		sync();
		reboot(RB_AUTOBOOT);
		break;
	default:
		say("unexpected frame %d", type);
	}
	free(payload);
}

/*
 * Runs until the command has ended, then kills what it left behind and waits until nothing of it
 * exists any more: whatever a test forgot cannot disturb the next one, and all output has come.
 */
static int supervise(pid_t pid, struct streams *streams, int child_ended)
{
	int status = 0;
	bool ended = false, alone = false;

	while (!alone || streams->output >= 0 || streams->error >= 0) {
		struct pollfd fds[] = {
			{ .fd = streams->pending ? -1 : port, .events = POLLIN },
			{ .fd = child_ended, .events = POLLIN },
			{ .fd = streams->output, .events = POLLIN },
			{ .fd = streams->error, .events = POLLIN },
			{ .fd = streams->pending ? streams->input : -1, .events = POLLOUT },
		};

		if (poll(fds, 5, -1) < 0 && errno != EINTR)
			give_up("poll");
		if (fds[4].revents)
			feed(streams);
		if (fds[2].revents)
			relay(&streams->output, 'O');
		if (fds[3].revents)
			relay(&streams->error, 'E');
		if (fds[0].revents & (POLLIN | POLLHUP))
			take_input(streams);
		if (fds[1].revents) {
			struct signalfd_siginfo info;
			pid_t gone;
			int how;

			if (read(child_ended, &info, sizeof(info)) < 0 && errno != EAGAIN)
				give_up("signalfd");
			while ((gone = waitpid(-1, &how, WNOHANG)) > 0) {
				if (gone != pid)
					continue;
				ended = true;
				status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
				kill(-1, SIGKILL);
			}
			if (ended && gone < 0 && errno == ECHILD)
				alone = true;
		}
	}
	return status;
}

static void run(char *payload, uint32_t len, int child_ended)
{
	struct command command;
	struct streams streams;
	char text[512];
	pid_t pid;

	parse_command(&command, payload, len);
	if (command.marker)
		mark(command.marker, "begin");
	pid = start(&command, &streams);
	if (pid < 0) {
		snprintf(text, sizeof(text), "%s: %s", command.argv[0] ? command.argv[0] : "",
			 strerror(errno));
	} else {
		int status = supervise(pid, &streams, child_ended);

		close_input(&streams);
		snprintf(text, sizeof(text), "%d", status);
	}
	/* What the command wrote into the repository must be there when the host looks. */
	sync();
	if (command.marker)
		mark(command.marker, "end");
	send_frame(pid < 0 ? 'F' : 'X', text, strlen(text));
	free(command.argv);
	free(command.envp);
}

int main(void)
{
	int child_ended;
	sigset_t signals;
	char type;

	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	if (mount("devtmpfs", "/dev", "devtmpfs", 0, "mode=0755"))
		return 1;
	/* Whatever the kernel opened for us: 0, 1 and 2 are taken, commands get their own. */
	do {
		kmsg = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (kmsg >= 0 && kmsg <= 2);
	close(kmsg);
	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	must_mount("proc", "/proc", "proc", 0, NULL);
	must_mount("sysfs", "/sys", "sysfs", 0, NULL);
	assemble_root();
	settle_down();
	port = open_port();

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	child_ended = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (child_ended < 0)
		give_up("signalfd");

	send_frame('H', "", 0);
	do {
		uint32_t len;
		char *payload = read_frame(&type, &len);

		/* Input for a command that has ended in the meantime is dropped. */
		if (type == 'R')
			run(payload, len, child_ended);
		free(payload);
	} while (type != 'P');
	sync();
	reboot(RB_AUTOBOOT);
	return 0;
}
