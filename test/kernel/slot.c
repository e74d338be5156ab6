// SPDX-License-Identifier: MIT
/* guest: cpus=1,2 debug timeout=60 */
/* Every mapping of a service lies in its slot, by whatever way it is made. */
#include "marked_program.h"
#include "service.h"
#include <elf.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <time.h>

#define GiB (1UL << 30)

static struct rpal_info me;

/* How many mappings lie outside [from, to); the program's own image may. */
static int outside(const char *maps, unsigned long from, unsigned long to)
{
	FILE *file = fopen(maps, "r");
	char line[512];
	int count = 0;

	if (!file)
		bail_out(maps);
	while (fgets(line, sizeof(line), file)) {
		unsigned long start, end;

		if (strstr(line, "[vsyscall]"))
			continue;
		if (sscanf(line, "%lx-%lx", &start, &end) != 2 || start < from || end > to) {
			printf("# outside: %s", line);
			count++;
		}
	}
	fclose(file);
	return count;
}

static bool all_inside(void)
{
	return !outside("/proc/self/maps", me.slot_start, me.slot_end);
}

static bool inside(const void *address)
{
	return (unsigned long)address >= me.slot_start && (unsigned long)address < me.slot_end;
}

static long map(unsigned long address, size_t size, int flags)
{
	return result(mmap((void *)address, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0));
}

static void test_mmap(void)
{
	unsigned long hint = me.slot_start + 100 * GiB;
	static const unsigned long elsewhere[] = { 0x10000, 0x400000, GiB };
	long got;

	ok(inside((void *)map(0, 4096, 0)), "mmap without a hint");
	is(map(hint, 8192, 0), hint, "a hint inside is taken");
	ok(inside((void *)map(me.slot_start - GiB, 4096, 0)) &&
		   inside((void *)map(me.slot_end + GiB, 4096, 0)) &&
		   inside((void *)map(me.slot_end - 4096, 8192, 0)) &&
		   inside((void *)map(0x10000, 4096, 0)) &&
		   inside((void *)map(255 * SLOT_SIZE, 4096, 0)) &&
		   inside((void *)map(~0UL << 12, 4096, 0)),
	   "hints outside are ignored");
	is(map(me.slot_start - 4096, 4096, MAP_FIXED), -ENOMEM, "MAP_FIXED just below the slot");
	is(map(me.slot_start - 4096, 8192, MAP_FIXED), -ENOMEM, "MAP_FIXED across its start");
	is(map(me.slot_end, 4096, MAP_FIXED), -ENOMEM, "MAP_FIXED just above the slot");
	is(map(me.slot_end - 4096, 8192, MAP_FIXED), -ENOMEM, "MAP_FIXED across its end");
	for (int i = 0; i < 3; i++)
		is(map(elsewhere[i], 4096, MAP_FIXED), -ENOMEM, "MAP_FIXED in slot 0");
	is(map(255 * SLOT_SIZE, 4096, MAP_FIXED), -ENOMEM, "MAP_FIXED in slot 255");
	is(map(me.slot_end, 4096, MAP_FIXED_NOREPLACE), -ENOMEM, "MAP_FIXED_NOREPLACE outside");
	is(map(0, 4096, MAP_32BIT), -ENOMEM, "MAP_32BIT cannot be had");
	is(map(0x40000000, 4096, MAP_32BIT), -ENOMEM, "nor with a hint");
	is(map(0, 2 * SLOT_SIZE, MAP_NORESERVE), -ENOMEM, "more than a slot");

	got = map(0, 300 * GiB, MAP_NORESERVE);
	ok(inside((void *)got), "300 GiB fit");
	is(map(0, 300 * GiB, MAP_NORESERVE), -ENOMEM, "but not twice");
	munmap((void *)got, 300 * GiB);
	ok(inside((void *)map(0, 4 << 20, 0)), "a huge page's alignment");

	asm volatile("int $0x80"
		     : "=a"(got)
		     : "a"(192), "b"(0), "c"(4096), "d"(3), "S"(0x22), "D"(-1)
		     : "r8", "r9", "r10", "r11", "memory");
	ok((int)got == -ENOMEM || (int)got == -ENOSYS, "mmap2 by int 0x80");
}

static void test_mremap(void)
{
	void *old = (void *)map(0, 8192, 0);

	is(result(mremap(old, 8192, 8192, MREMAP_MAYMOVE | MREMAP_FIXED,
			 (void *)(me.slot_end + GiB))),
	   -ENOMEM, "mremap to a place outside");
	is(result(mremap(old, 8192, 8192, MREMAP_MAYMOVE | MREMAP_FIXED,
			 (void *)(me.slot_end - 4096))),
	   -ENOMEM, "mremap across the end");
	((char *)old)[4096] = 1;
	is(result(mremap(old, 8192, 4096, MREMAP_MAYMOVE | MREMAP_FIXED,
			 (void *)(me.slot_end + GiB))),
	   -ENOMEM, "mremap of a part to a place outside");
	ok(((char *)old)[4096] == 1, "takes nothing away");
	ok(inside(mremap(old, 8192, 64 << 20, MREMAP_MAYMOVE)), "a mapping that grows and moves");
}

static void test_brk(void)
{
	char *old = sbrk(0);

	ok(inside(old), "the heap is inside");
	ok(sbrk(1 << 20) == old, "it can grow");
	old[100000] = 1;
	ok(syscall(SYS_brk, me.slot_end + 4096) < (long)me.slot_end, "but not beyond the slot");
}

static void test_shm(void)
{
	int id = shmget(IPC_PRIVATE, 65536, IPC_CREAT | 0600);

	if (id < 0) {
		ok(true, "shmat # SKIP no SysV shared memory");
		return;
	}
	ok(inside(shmat(id, NULL, 0)), "shmat");
	is(result(shmat(id, (void *)(me.slot_end + GiB), 0)), -ENOMEM,
	   "shmat at an address outside");
	ok(inside(shmat(id, (void *)(me.slot_start + 200 * GiB), 0)), "shmat at an address inside");
	shmctl(id, IPC_RMID, NULL);
}

static void test_hugetlb(void)
{
	FILE *file = fopen("/proc/sys/vm/nr_hugepages", "w");
	char *page;

	if (!file || fprintf(file, "4\n") < 0 || fclose(file)) {
		ok(true, "hugetlb # SKIP cannot reserve pages");
		return;
	}
	page = (char *)map(0, 2 << 20, MAP_HUGETLB);
	if (page == (char *)-ENOMEM) {
		ok(true, "hugetlb # SKIP there are no pages");
		return;
	}
	ok(inside(page), "a hugetlb page");
	page[5] = 1;
	ok(inside((void *)map(me.slot_start - GiB, 2 << 20, MAP_HUGETLB)), "with a hint outside");
	is(map(me.slot_end, 2 << 20, MAP_HUGETLB | MAP_FIXED), -ENOMEM, "fixed outside");
}

static __attribute__((noinline)) int use_stack(int depth)
{
	volatile char frame[4096];

	frame[0] = depth;
	return depth ? use_stack(depth - 1) + frame[0] : 0;
}

static void test_stack(void)
{
	char *bottom = (char *)map(me.slot_start, 4096, MAP_FIXED | MAP_GROWSDOWN | MAP_STACK);

	use_stack(1500);
	ok(inside(__builtin_frame_address(0)), "6 MiB of stack");
	ok(inside(bottom), "a stack at the start of the slot");
	is(FAULTS(bottom[-1] = 1), SEGV_MAPERR, "does not grow out of it");
	munmap(bottom, 4096);
}

static void *thread(void *arg)
{
	return __builtin_frame_address(0);
}

static void test_thread(void)
{
	pthread_t id;
	void *frame;

	pthread_create(&id, NULL, thread, NULL);
	pthread_join(id, &frame);
	ok(inside(frame), "a thread's stack");
}

static void test_vdso(void)
{
	struct timespec now = {};

	ok(inside((void *)getauxval(AT_SYSINFO_EHDR)), "the vdso");
	ok(!clock_gettime(CLOCK_MONOTONIC, &now) && now.tv_nsec + now.tv_sec, "it works");
}

/* uprobes execute the replaced instruction in a page of their own. */
__attribute__((noinline)) int probed(int value)
{
	asm volatile("" : "+r"(value));
	return value + 1;
}

static int find_offset(struct dl_phdr_info *info, size_t size, void *data)
{
	unsigned long address = (unsigned long)probed - info->dlpi_addr;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const Elf64_Phdr *segment = &info->dlpi_phdr[i];

		if (segment->p_type == PT_LOAD && address - segment->p_vaddr < segment->p_memsz)
			*(unsigned long *)data = address - segment->p_vaddr + segment->p_offset;
	}
	return 1;
}

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND);
	bool good = fd >= 0 && write(fd, text, strlen(text)) > 0;

	close(fd);
	return good;
}

static void test_uprobe(void)
{
	const char *events = "/sys/kernel/tracing/uprobe_events";
	const char *enable = "/sys/kernel/tracing/events/uprobes/rpal_test/enable";
	char exe[PATH_MAX] = "", text[PATH_MAX + 64];
	unsigned long offset = 0;

	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	dl_iterate_phdr(find_offset, &offset);
	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		bail_out("readlink");
	snprintf(text, sizeof(text), "p:rpal_test %s:%#lx\n", exe, offset);
	if (!put(events, text) || !put(enable, "1\n")) {
		ok(true, "uprobe # SKIP cannot set one");
		return;
	}
	is(probed(41), 42, "a uprobe is hit");
	ok(all_inside(), "its page is inside");
	put(enable, "0\n");
	put(events, "-:rpal_test\n");
}

static int maps_role(int socket)
{
	int fd = device();

	me = get_info(fd);
	say(socket, all_inside() ? (unsigned long)map(0, 4096, 0) : 0);
	return 0;
}

const struct role roles[] = { { "maps", maps_role }, {} };

static uint64_t spawn_maps(void)
{
	struct child child = spawn("maps", true);
	uint64_t address = hear(child.socket);

	outcome(&child);
	return address;
}

static void test_layouts(void)
{
	struct rlimit stack, unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	uint64_t first, second;

	first = spawn_maps();
	second = spawn_maps();
	ok(first && second, "two more services are inside");
	ok((first ^ second) & (SLOT_SIZE - 1), "at random addresses");

	personality(ADDR_COMPAT_LAYOUT);
	first = spawn_maps();
	ok(first != 0 && first != ~0UL, "legacy layout");
	personality(ADDR_NO_RANDOMIZE);
	first = spawn_maps();
	ok(first != 0 && first != ~0UL, "without randomization");
	personality(MMAP_PAGE_ZERO);
	first = spawn_maps();
	ok(first != 0 && first != ~0UL, "with page zero wanted");
	personality(0);

	getrlimit(RLIMIT_STACK, &stack);
	if (!setrlimit(RLIMIT_STACK, &unlimited)) {
		first = spawn_maps();
		ok(first != 0 && first != ~0UL, "unlimited stack");
		setrlimit(RLIMIT_STACK, &stack);
	}
}

/* A program with fixed addresses that prints its maps and its break. */
asm(".pushsection .rodata\n"
	"fixed_start:\n"
	"	mov $2, %eax\n" /* open */
	"	lea fixed_path(%rip), %rdi\n"
	"	xor %esi, %esi\n"
	"	syscall\n"
	"	mov %eax, %ebx\n"
	"	sub $4096, %rsp\n"
	"1:	xor %eax, %eax\n" /* read */
	"	mov %ebx, %edi\n"
	"	mov %rsp, %rsi\n"
	"	mov $4096, %edx\n"
	"	syscall\n"
	"	mov %eax, %edx\n"
	"	test %eax, %eax\n"
	"	jle 2f\n"
	"	mov $1, %eax\n" /* write */
	"	mov $1, %edi\n"
	"	mov %rsp, %rsi\n"
	"	syscall\n"
	"	jmp 1b\n"
	"2:	mov $12, %eax\n" /* brk */
	"	xor %edi, %edi\n"
	"	syscall\n"
	"	lea 8192(%rax), %rdi\n"
	"	mov $12, %eax\n"
	"	syscall\n"
	"	movb $1, -8(%rax)\n"
	"	push %rax\n"
	"	mov $1, %eax\n" /* write */
	"	mov $1, %edi\n"
	"	mov %rsp, %rsi\n"
	"	mov $8, %edx\n"
	"	syscall\n"
	"	mov $9, %eax\n" /* mmap, low and fixed */
	"	mov $0x10000000, %edi\n"
	"	mov $4096, %esi\n"
	"	mov $3, %edx\n"
	"	mov $0x32, %r10d\n"
	"	mov $-1, %r8\n"
	"	xor %r9, %r9\n"
	"	syscall\n"
	"	neg %eax\n"
	"	mov %eax, %edi\n"
	"	mov $60, %eax\n" /* exit */
	"	syscall\n"
	"fixed_path: .asciz \"/proc/self/maps\"\n"
	"fixed_end:\n"
	".popsection\n");
extern const char fixed_start[], fixed_end[];

static int fixed_program(unsigned long address, unsigned long bss)
{
	struct {
		Elf64_Ehdr header;
		Elf64_Phdr segment;
		char text[512];
	} file = {
		.header = {
			.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64,
				     ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_entry = address + sizeof(Elf64_Ehdr) +
				   sizeof(Elf64_Phdr),
			.e_phoff = sizeof(Elf64_Ehdr),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 1,
		},
		.segment = {
			.p_type = PT_LOAD,
			.p_flags = PF_R | PF_W | PF_X,
			.p_vaddr = address,
			.p_filesz = sizeof(file),
			.p_memsz = sizeof(file) + bss,
			.p_align = 4096,
		},
	};
	int fd = memfd_create("fixed", MFD_CLOEXEC);

	memcpy(file.text, fixed_start, fixed_end - fixed_start);
	if (write(fd, &file, sizeof(file)) != sizeof(file))
		bail_out("memfd");
	return fd;
}

/* Runs it as a service; its exit status, or -signal. */
static int run_fixed(int exe, char *output, size_t size, ssize_t *length)
{
	int pipes[2], status;
	ssize_t got;
	pid_t pid;

	if (pipe(pipes))
		bail_out("pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		dup2(pipes[1], 1);
		if (ioctl(device(), RPAL_IOC_NEXT_EXEC, 1))
			bail_out("RPAL_IOC_NEXT_EXEC");
		syscall(SYS_execveat, exe, "", (char *[]){ "fixed", NULL }, environ, AT_EMPTY_PATH);
		_exit(200);
	}
	close(pipes[1]);
	for (*length = 0; (got = read(pipes[0], output + *length, size - *length)) > 0;
	     *length += got)
		;
	close(pipes[0]);
	close(exe);
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_fixed_image(void)
{
	static char output[16384];
	unsigned long break_, slot;
	ssize_t length;
	int status, low = 0, inside_slot = 0, elsewhere = 0;

	status = run_fixed(fixed_program(0x400000, 0), output, sizeof(output) - 1, &length);
	is(status, ENOMEM, "a fixed image runs, and may map nothing low");
	if (length < 8)
		return;
	memcpy(&break_, output + length - 8, 8);
	output[length - 8] = 0;
	slot = SLOT_OF(break_);
	ok(slot >= RPAL_ID_MIN && slot <= RPAL_ID_MAX, "its heap is in a slot");

	for (char *line = strtok(output, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long start = strtoul(line, NULL, 16);

		if (strstr(line, "[vsyscall]"))
			continue;
		if (SLOT_OF(start) == slot)
			inside_slot++;
		else if (start < 0x500000)
			low++;
		else
			elsewhere++;
	}
	ok(low == 1 && inside_slot >= 3 && !elsewhere,
	   "its image is low (%d), the rest in the slot (%d, not %d)", low, inside_slot, elsewhere);

	is(run_fixed(fixed_program(0x400000, 700 * GiB), output, sizeof(output), &length), -SIGSEGV,
	   "an image that reaches into other slots is not run");
	is(run_fixed(fixed_program(200 * SLOT_SIZE, 0), output, sizeof(output), &length), -SIGSEGV,
	   "nor one in another slot");
}

/* A script is run by its interpreter: that is the program which can be marked. */
static void test_marked_interpreter(int interpreter)
{
	char directory[] = "/tmp/rpal-slot-XXXXXX", number[16], count[16];
	struct child child;
	int sockets[2];
	FILE *script;

	/* Its name is the role, where the interpreter looks for one. */
	if (!mkdtemp(directory) || chdir(directory))
		bail_out(directory);
	script = fopen("maps", "w");
	if (!script)
		bail_out("fopen");
	fprintf(script, "#!/proc/self/fd/%d\n", dup(interpreter));
	fchmod(fileno(script), 0700);
	fclose(script);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		bail_out("socketpair");
	child = (struct child){ .pid = vfork(), .socket = sockets[0] };
	if (!child.pid) {
		snprintf(number, sizeof(number), "%d", dup(sockets[1]));
		snprintf(count, sizeof(count), "%d", tap_count);
		execl("maps", "maps", number, count, NULL);
		_exit(97);
	}
	close(sockets[1]);
	ok(SLOT_OF(hear(child.socket)) - 1 < RPAL_ID_MAX - 1, "so is a script that it interprets");
	outcome(&child);
	unlink("maps");
	if (chdir("/") || rmdir(directory))
		bail_out(directory);
}

/* The ELF mark makes a service without any ioctl. */
static void test_mark(void)
{
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int marked = marked_program();
	struct child child;

	child = spawn_file(marked, "maps", false);
	ok(SLOT_OF(hear(child.socket)) - 1 < RPAL_ID_MAX - 1, "a marked program is a service");
	outcome(&child);
	test_marked_interpreter(marked);
	child = spawn_file(exe, "maps", false);
	ok(hear(child.socket) == 0, "without the mark it is none");
	outcome(&child);
}

/* Of the layout of 32 bits, whatever it says of itself: exits with 0. */
static int small_program(unsigned char class, uint16_t machine)
{
	static const unsigned char exit_0[] = {
		0xb8, 60, 0, 0, 0, /* mov $60, %eax: x32 has 64-bit system calls, too */
		0x31, 0xff,	   /* xor %edi, %edi */
		0x0f, 0x05,	   /* syscall */
	};
	struct {
		Elf32_Ehdr header;
		Elf32_Phdr segment;
		unsigned char code[sizeof(exit_0)];
	} program = {
		.header = {
			.e_ident = { 0x7f, 'E', 'L', 'F', class, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = machine,
			.e_version = EV_CURRENT,
			.e_entry = 0x400000 + sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr),
			.e_phoff = sizeof(Elf32_Ehdr),
			.e_ehsize = sizeof(Elf32_Ehdr),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 1,
		},
		.segment = {
			.p_type = PT_LOAD,
			.p_vaddr = 0x400000,
			.p_flags = 7,
			.p_filesz = sizeof(program),
			.p_memsz = sizeof(program),
			.p_align = 4096,
		},
	};
	int exe = memfd_create("compat", MFD_CLOEXEC);

	memcpy(program.code, exit_0, sizeof(exit_0));
	if (write(exe, &program, sizeof(program)) != sizeof(program))
		bail_out("write");
	return exe;
}

static void test_compat(void)
{
	struct child child = spawn_file(small_program(ELFCLASS32, EM_386), "", true);

	is(hear(child.socket), -ENOEXEC, "a 32-bit program is refused");
	outcome(&child);
	child = spawn_file(small_program(ELFCLASS64, EM_386), "", true);
	is(hear(child.socket), -ENOEXEC, "also if its header says that it is none");
	outcome(&child);
	child = spawn_file(small_program(ELFCLASS64, EM_X86_64), "", false);
	is(outcome(&child), 0, "without a slot an x32 program runs");
	/* Exec learns of it too late to go back. */
	child = spawn_file(small_program(ELFCLASS64, EM_X86_64), "", true);
	is(outcome(&child), -SIGSEGV, "as a service it is killed");
}

int main(int argc, char **argv)
{
	int fd;

	RUN_ROLE(argc, argv);
	fd = device();
	me = get_info(fd);
	if (!(me.caps & RPAL_CAP_SERVICE)) {
		if (ioctl(fd, RPAL_IOC_NEXT_EXEC, 1))
			skip_all("services are not supported");
		execv("/proc/self/exe", argv);
		bail_out("exec");
	}

	ok(SLOT_OF(me.slot_start) == me.id && me.slot_end - me.slot_start == SLOT_SIZE,
	   "the slot is %u", me.id);
	ok(all_inside(), "all mappings are inside after exec");
	ok(me.caps & RPAL_CAP_RECEIVE, "a position independent program may serve");
	test_mmap();
	test_mremap();
	test_brk();
	test_shm();
	test_hugetlb();
	test_thread();
	test_vdso();
	test_uprobe();
	test_stack();
	ok(all_inside(), "all mappings are inside at last");
	test_layouts();
	test_fixed_image();
	test_mark();
	test_compat();
	return done();
}
