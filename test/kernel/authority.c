// SPDX-License-Identifier: MIT
/* guest: cpus=1 debug timeout=60 */
/*
 * Who may become whose peer: who knows the other's key and may trace it, both
 * ways. An open /dev/rpal is of no use to others. Whoever is refused sees
 * nothing.
 */
#include "marked_program.h"
#include "peer.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/random.h>

#define PAGE  4096UL
#define USER  1000
#define OTHER 1001

static void must(int ret, const char *what)
{
	if (ret)
		bail_out(what);
}

#define MUST(call) must(call, #call)

static void become(uid_t uid, gid_t gid)
{
	MUST(setgroups(0, NULL));
	MUST(setresgid(gid, gid, gid));
	MUST(setresuid(uid, uid, uid));
}

/* Every change of identity takes it away. */
static int traceable_peer(int socket)
{
	MUST(prctl(PR_SET_DUMPABLE, 1));
	return peer_role(socket);
}

static int user_role(int socket)
{
	become(USER, USER);
	return traceable_peer(socket);
}

static int other_user_role(int socket)
{
	become(OTHER, USER);
	return traceable_peer(socket);
}

static int other_group_role(int socket)
{
	become(USER, OTHER);
	return traceable_peer(socket);
}

static int other_saved_user_role(int socket)
{
	MUST(setgroups(0, NULL));
	MUST(setresgid(USER, USER, USER));
	MUST(setresuid(USER, USER, OTHER));
	return traceable_peer(socket);
}

static int not_dumpable_role(int socket)
{
	become(USER, USER);
	MUST(prctl(PR_SET_DUMPABLE, 0));
	return peer_role(socket);
}

static int capable_role(int socket)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { .permitted = 1 << CAP_NET_RAW } };

	MUST(prctl(PR_SET_KEEPCAPS, 1));
	become(USER, USER);
	MUST(syscall(SYS_capset, &header, data));
	return traceable_peer(socket);
}

static int namespace_role(int socket)
{
	become(USER, USER);
	MUST(prctl(PR_SET_DUMPABLE, 1));
	MUST(unshare(CLONE_NEWUSER));
	return traceable_peer(socket);
}

static void filter(uint32_t request_action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RPAL_IOC_REQUEST, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, request_action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static int filtered_role(int socket)
{
	become(USER, USER);
	filter(SECCOMP_RET_ERRNO | EPERM);
	return traceable_peer(socket);
}

static int harmlessly_filtered_role(int socket)
{
	become(USER, USER);
	filter(SECCOMP_RET_ALLOW);
	return traceable_peer(socket);
}

static uint64_t new_page(struct child *owner, uint64_t value)
{
	uint64_t page = tell(owner, MAP, PAGE, 0, 0);

	store(owner, owner, page, value);
	return page;
}

static long ask(struct child *who, struct child *whom)
{
	return tell(who, REQUEST, whom->info.key, 0, 0);
}

/* What the user and the other one may do, and so whether they can be peers. */
static void test_pair(struct child *user, struct child *other, long to, long from, const char *who)
{
	uint64_t page = new_page(other, 0xb0b), mine = new_page(user, 0xa11ce);
	bool linked = !to && !from;

	for (int turn = 0; turn < 2; turn++) {
		long got_from = turn ? ask(other, user) : 0;
		long got_to = ask(user, other);

		if (!turn)
			got_from = ask(other, user);
		ok(got_to == to && got_from == from, "%s: %ld and %ld", who, got_to, got_from);
		ok(load(user, other, page) == (linked ? 0xb0b : NO_MEMORY) &&
			   load(other, user, mine) == (linked ? 0xa11ce : NO_MEMORY),
		   "%s", linked ? "both see the other's memory" : "neither sees anything");
		if (linked)
			tell(user, RELEASE, other->info.id, 0, 0);
	}
}

static void test_rights(void)
{
	static const struct {
		const char *role;
		long to, from;
	} cases[] = {
		{ "user", 0, 0 },
		{ "other user", -EPERM, -EPERM },
		{ "other group", -EPERM, -EPERM },
		{ "other saved user", -EPERM, 0 },
		{ "root", -EPERM, 0 },
		{ "not dumpable", -EPERM, 0 },
		{ "capable", -EPERM, 0 },
		{ "namespace", 0, -EPERM },
		{ "filtered", 0, -EPERM },
		{ "harmlessly filtered", 0, 0 },
	};
	struct child user = spawn("user", true), other;

	meet(&user);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		other = spawn(cases[i].role, true);
		meet(&other);
		test_pair(&user, &other, cases[i].to, cases[i].from, cases[i].role);
		end(&other);
	}
	end(&user);
}

/* A copy of this program that runs as root, whoever starts it. */
#define SET_UID_PROGRAM "/set-uid-program"

static void make_set_uid_program(bool marked)
{
	int to = open(SET_UID_PROGRAM, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);

	copy_program(to);
	if (marked)
		mark_program(to);
	MUST(fchmod(to, 04755));
	close(to);
}

/* In a service of the user. */
static int starts_set_uid_role(int socket)
{
	int exe = open(SET_UID_PROGRAM, O_RDONLY | O_CLOEXEC);
	struct child root;

	become(USER, USER);
	root = spawn_file(exe, "peer", true);
	is(hear(root.socket), -EPERM, "a set-uid program is not made a service");
	is(outcome(&root), 97, "its execve fails");
	return tell_counts(socket);
}

static int starts_marked_set_uid_role(int socket)
{
	int exe = open(SET_UID_PROGRAM, O_RDONLY | O_CLOEXEC);
	struct child user, root;

	become(USER, USER);
	MUST(prctl(PR_SET_DUMPABLE, 1));
	user = spawn("peer", true);
	meet(&user);
	root = spawn_file(exe, "peer", false);
	meet(&root);
	ok(root.info.caps & RPAL_CAP_SERVICE, "but it is one, if it is marked");
	test_pair(&user, &root, -EPERM, 0, "set-uid program");
	tell(&root, SET_UID, USER, 0, 0);
	ask(&root, &user);
	is(ask(&user, &root), -EPERM, "nor when it is as the user again");
	outcome(&user);
	outcome(&root);
	return tell_counts(socket);
}

static void test_guesses(void)
{
	struct child a = start_peer(), b = start_peer();
	uint64_t page = new_page(&b, 1), key = b.info.key;
	int found = 0;

	ask(&b, &a);
	for (int i = 0; i < 64; i++)
		found += tell(&a, REQUEST, key ^ 1UL << i, 0, 0) != -ENOENT;
	is(found, 0, "a key with one wrong bit is nobody's");
	for (int i = 0; i < 10000; i++) {
		uint64_t guess;

		if (getrandom(&guess, sizeof(guess), 0) != sizeof(guess))
			bail_out("getrandom");
		found += tell(&a, REQUEST, guess, 0, 0) != -ENOENT;
	}
	is(found, 0, "10,000 guesses neither");
	is(load(&a, &b, page), NO_MEMORY, "nothing is to be seen");
	is(tell(&a, REQUEST, key, 0, 0), 0, "with the key");
	is(load(&a, &b, page), 1, "it is");
	end(&b);
	is(tell(&a, REQUEST, key, 0, 0), -ENOENT, "the key ends with its service");
	end(&a);
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message))
		bail_out("recvmsg");
	return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
}

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { "f", 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (sendmsg(socket, &message, 0) != 1)
		bail_out("sendmsg");
}

/* Sends its descriptor, then is a peer. */
static int lender_role(int socket)
{
	int fd = device();

	send_fd(socket, fd);
	return peer_role(socket);
}

/* Tries all there is with a descriptor of somebody else. */
static int borrower_role(int socket)
{
	int fd = receive_fd(socket);
	uint64_t key = hear(socket), meta = 0;
	struct rpal_info info = { .size = sizeof(info) };
	struct rpal_request request = { .key = key };
	struct rpal_register registration = { .roles = RPAL_ROLE_SENDER };
	struct rpal_park park = { .epfd = -1 };
	struct rpal_wait_reply reply = { .seq = 1 };
	struct rpal_wait_parked parked = { .tid = 1 };
	struct rpal_peer_fd other_end = { .fd = socket, .id = 1, .peer_fd = -1 };
	struct pollfd gone = { .fd = fd, .events = POLLIN };
	const struct {
		unsigned long command;
		const void *argument;
	} calls[] = {
		{ RPAL_IOC_INFO, &info },	    { RPAL_IOC_NEXT_EXEC, (void *)1 },
		{ RPAL_IOC_ENABLE, &meta },	    { RPAL_IOC_DISABLE, NULL },
		{ RPAL_IOC_REQUEST, &request },	    { RPAL_IOC_RELEASE, (void *)1 },
		{ RPAL_IOC_REGISTER, &registration }, { RPAL_IOC_UNREGISTER, (void *)1 },
		{ RPAL_IOC_PARK, &park },	    { RPAL_IOC_WAIT_REPLY, &reply },
		{ RPAL_IOC_WAIT_PARKED, &parked },  { RPAL_IOC_FINISH, (void *)1 },
		{ RPAL_IOC_DETACH, NULL },	    { RPAL_IOC_PEER_FD, &other_end },
		{ RPAL_IOC_WAKE, (void *)1 },	    { _IO(RPAL_IOC_MAGIC, 0x7f), NULL },
	};
	size_t refused = 0;

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		refused += result(ioctl(fd, calls[i].command, calls[i].argument)) == -EPERM;
	refused += result(read(fd, &meta, sizeof(meta))) == -EPERM;
	refused += poll(&gone, 1, 0) == 1 && gone.revents == POLLERR;
	say(socket, refused == sizeof(calls) / sizeof(calls[0]) + 2 && !info.abi &&
			    other_end.peer_fd == -1);
	pause();
	return 0;
}

static void test_borrowed(bool service, const char *who)
{
	struct child lender = spawn("lender", true), victim = start_peer(), borrower;
	int fd = receive_fd(lender.socket);
	uint64_t page = new_page(&victim, 1);

	meet(&lender);
	ask(&victim, &lender);
	borrower = spawn("borrower", service);
	send_fd(borrower.socket, fd);
	say(borrower.socket, victim.info.key);
	is(hear(borrower.socket), true, who);
	is(load(&lender, &victim, page), NO_MEMORY, "and nothing has happened");
	close(fd);
	end(&borrower);
	end(&victim);
	end(&lender);
}

/* A descriptor that was opened before a process became a service. */
static int older_fd_role(int socket)
{
	struct rpal_info info = { .size = sizeof(info) };

	say(socket, result(ioctl(hear(socket), RPAL_IOC_INFO, &info)));
	return 0;
}

static void test_older_fd(void)
{
	struct child service;
	int fd = dup(device());

	service = spawn("older fd", true);
	say(service.socket, fd);
	is(hear(service.socket), -EPERM, "a descriptor from before the execve is another's");
	is(outcome(&service), 0, "the service ends");
	close(fd);
}

const struct role roles[] = {
	{ "user", user_role },
	{ "other user", other_user_role },
	{ "other group", other_group_role },
	{ "other saved user", other_saved_user_role },
	{ "root", peer_role },
	{ "peer", peer_role },
	{ "not dumpable", not_dumpable_role },
	{ "capable", capable_role },
	{ "namespace", namespace_role },
	{ "filtered", filtered_role },
	{ "harmlessly filtered", harmlessly_filtered_role },
	{ "starts set-uid", starts_set_uid_role },
	{ "starts marked set-uid", starts_marked_set_uid_role },
	{ "lender", lender_role },
	{ "borrower", borrower_role },
	{ "older fd", older_fd_role },
	{},
};

int main(int argc, char **argv)
{
	RUN_ROLE(argc, argv);
	close(device());
	if (geteuid())
		skip_all("not root");
	test_rights();
	make_set_uid_program(false);
	test_in_service("starts set-uid");
	make_set_uid_program(true);
	test_in_service("starts marked set-uid");
	unlink(SET_UID_PROGRAM);
	test_guesses();
	test_borrowed(true, "another service can do nothing with a descriptor");
	test_borrowed(false, "nor can a process that is none");
	test_older_fd();
	return done();
}
