/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * RPAL: Run Process As Library.
 *
 * A service lives in one 512 GiB slot of the address space. Two services that
 * asked for each other (peers) see each other's slot, and a sender thread of
 * one may switch, in user mode, onto the parked context of a receiver thread
 * of the other. While it runs there, that context is on loan to the sender's
 * kernel task. The moment the context needs its own kernel identity, the
 * kernel hands it back to the receiver's own task.
 *
 * The words that both sides and the kernel use are in struct rpal_control.
 */
#ifndef _UAPI_LINUX_RPAL_H
#define _UAPI_LINUX_RPAL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define RPAL_ABI_VERSION	1

/* Geometry. Slot n covers [n << 39, (n + 1) << 39); service id n lives there. */
#define RPAL_SLOT_SHIFT		39
#define RPAL_ID_MIN		1
#define RPAL_ID_MAX		254

/*
 * The control area: one sealed mapping per service, made by the kernel at
 * exec, at this offset in the slot, readable and writable by every peer (key
 * 0). It is an array of struct rpal_control, one per registered thread.
 */
#define RPAL_CONTROL_OFFSET	0x200000UL
#define RPAL_CONTROL_SIZE	0x10000UL
#define RPAL_THREADS_MAX	256

/*
 * Thread ids: generation << 16 | service id << 8 | index in the control area.
 * Never 0. The generation makes a stale id fail instead of naming another, until
 * 65,536 threads more were registered in the slot.
 */
#define RPAL_TID_INDEX(tid)	((tid) & 0xff)
#define RPAL_TID_SERVICE(tid)	(((tid) >> 8) & 0xff)

/*
 * struct rpal_control::state, the receiver's state word:
 *
 *   bits  0..7   one of RPAL_STATE_*
 *   bits  8..15  RPAL_FLAG_*
 *   bits 32..63  thread id of the sender (LENT, ACTIVE, RETURNING); of the
 *                receiver itself (PARKED), so that a stale id claims nobody
 *
 * The word alone decides whose context a task is running; FS base is only
 * checked against it. Transitions:
 *
 *   RUN -> PARKED         kernel, inside RPAL_IOC_PARK, after the
 *                         kernel-private "parked" has become true
 *   PARKED -> LENT(s)     sender s, cmpxchg: the claim. s has published
 *                         call_sp and then callee before. It then fills
 *                         caller and jumps to entry_ip or notify_ip
 *   LENT(s) -> ACTIVE(s)  receiver's entry stub, byte store (the flags
 *                         survive), after FS base, sp and PKRU are the
 *                         receiver's and before anything is popped
 *   ACTIVE(s) -> RETURNING(s)
 *                         receiver's park stub, cmpxchg, after its context
 *                         is complete in memory and sp is published; from
 *                         here on it uses registers and the two control
 *                         blocks, and jumps to the return_ip of caller
 *   RETURNING(s) -> PARKED
 *                         sender s, cmpxchg, on its own stack, after it has
 *                         stored the reply and set RPAL_CALLEE_RETURNING.
 *                         With a flag set it calls RPAL_IOC_FINISH instead
 *   PARKED -> RUN         kernel: an event, a signal or a timeout for the
 *                         receiver
 *   ACTIVE(s) -> RUN      kernel: hand-back
 *   LENT(s) -> PARKED     kernel: roll-back, the sender sees -EAGAIN
 *   RETURNING(s) -> PARKED or RUN
 *                         kernel: finishes the return for the sender
 *
 * Flags are set by the kernel only, at any time, by cmpxchg:
 *   WANTED     the receiver's own task wants its context back
 *   CONTENDED  senders sleep in RPAL_IOC_WAIT_PARKED. With RUN: the receiver
 *              should park for them although it has other things to do
 *
 * Everything here can be written by every peer at any time. The kernel treats
 * it as a hint: it never decides more than which of two peers runs which of
 * their two contexts.
 */
#define RPAL_STATE_RUN		0
#define RPAL_STATE_PARKED	1
#define RPAL_STATE_LENT		2
#define RPAL_STATE_ACTIVE	3
#define RPAL_STATE_RETURNING	4

#define RPAL_FLAG_WANTED	0x100
#define RPAL_FLAG_CONTENDED	0x200

#define RPAL_STATE_TID_SHIFT	32

/* struct rpal_control::callee: a thread id, and this once the sender is back. */
#define RPAL_CALLEE_RETURNING	0x100000000ULL

/*
 * One per registered thread, RPAL_CONTROL_STRIDE bytes apart. The first half
 * belongs to the receiver role (written by the thread and its callers), the
 * second to the sender role (written by the thread only). fs_base, pkru and
 * tid are the thread's in either role; the kernel writes them, and parked, at
 * registration.
 */
#define RPAL_CONTROL_STRIDE	256

struct rpal_control {
	__u64 state;		/*   0 */
	__u64 entry_ip;		/*   8 where a sender jumps to */
	__u64 sp;		/*  16 of the parked context */
	__u64 fs_base;		/*  24 */
	__u64 caller;		/*  32 the control block of the sender */
	__u64 parked;		/*  40 the state word for that: PARKED, tid */
	__u32 reserved0[3];	/*  48 */
	__u32 pkru;		/*  60 */
	__u64 notify_ip;	/*  64 as entry_ip, for a call that says nothing */
	__u64 reserved1[7];	/*  72 */

	__u64 callee;		/* 128 */
	__u64 call_sp;		/* 136 of the saved caller context */
	__u64 call_seq;		/* 144 counts calls; names a reply */
	__u32 tid;		/* 152 */
	__u32 guard;		/* 156 peer service id during a guarded copy */
	__u64 return_ip;	/* 160 where a receiver jumps back to */
	__u64 returning;	/* 168 the state word for that: RETURNING by tid */
	__u64 reserved2[10];	/* 176 */
};

/* What a call carries in registers, each way. */
#define RPAL_WORDS		6

struct rpal_message {
	__u64 word[RPAL_WORDS];
};

/* RPAL_IOC_INFO */
#define RPAL_CAP_MPK		(1ULL << 0)
#define RPAL_CAP_SERVICE	(1ULL << 1)	/* the caller is a service */
#define RPAL_CAP_RECEIVE	(1ULL << 2)	/* ... and may serve (not ET_EXEC) */

struct rpal_info {
	__u32 size;		/* in: sizeof; out: what the kernel knows */
	__u32 abi;
	__u64 caps;
	__u32 id;		/* the rest is 0 if the caller is no service */
	__u32 pkey;
	__u64 key;
	__u64 slot_start;
	__u64 slot_end;
	__u32 pkru;		/* default PKRU of the service's threads */
	__u32 tick_limit_ms;	/* longest loan before a hand-back */
};

/* RPAL_IOC_REGISTER */
#define RPAL_ROLE_SENDER	1
#define RPAL_ROLE_RECEIVER	2

struct rpal_register {
	__u32 roles;		/* in: bits to add */
	__u32 tid;		/* out */
	__u64 control;		/* out: address of the thread's control block */
	/*
	 * In: where the kernel resumes this thread, always with sp = call_sp
	 * (sender) or sp = sp (receiver). See native/librpal for the stubs.
	 */
	__u64 resume_ip;	/* sender: call ended, status in rax */
	__u64 finish_ip;	/* sender: reply still in registers, released */
	__u64 released_ip;	/* sender: reply stored, released */
	__u64 park_ip;		/* receiver: park ended, status in rax */
	__u64 copy_ip;		/* guarded copy failed; sp untouched */
};

/* RPAL_IOC_REQUEST. Set reserved to 0. */
#define RPAL_PEER_LINKED	1	/* both asked: the slots are mapped */

struct rpal_request {
	__u64 key;		/* in */
	__u32 id;		/* out */
	__u32 pkey;		/* out */
	__u32 flags;		/* out: RPAL_PEER_LINKED or 0 */
	__u32 reserved;
	__u64 meta;		/* out: what the peer said in RPAL_IOC_ENABLE */
};

/* RPAL_IOC_PARK */
#define RPAL_PARK_REPLY		1	/* message is the reply to a handed-back call */

struct rpal_park {
	__s32 epfd;		/* -1: none */
	__u32 flags;
	__s64 timeout_ns;	/* relative; < 0: for ever */
	__u64 message;		/* in: reply, struct rpal_message */
	__s64 status;		/* in: status of the reply */
};

/* Results of a park, in rax at park_ip. A call is no result: it is a return. */
#define RPAL_PARK_EVENT		1	/* epfd is readable */
#define RPAL_PARK_TIMEOUT	0

/* RPAL_IOC_WAIT_REPLY */
struct rpal_wait_reply {
	__u64 seq;		/* in: call_seq of the call */
	__s64 timeout_ns;	/* in: relative; < 0: for ever */
	__u64 message;		/* in: where the reply goes */
	__s64 status;		/* out: status given by the receiver */
};

/* RPAL_IOC_WAIT_PARKED */
#define RPAL_WAIT_TURN		1	/* not before those who wait already */

struct rpal_wait_parked {
	__u32 tid;
	__u32 flags;
	__s64 timeout_ns;
};

/* RPAL_IOC_PEER_FD. Set reserved to 0. */
struct rpal_peer_fd {
	__s32 fd;		/* in: own end of a Unix socket */
	__u32 id;		/* in: service id of the peer with the other end */
	__s32 peer_fd;		/* out: its lowest descriptor of that end */
	__u32 reserved;
};

/*
 * /dev/rpal. An open file can be used only by the service that opened it, or by
 * processes that are none if the opener was none.
 *
 * poll: readable while peers that have gone (or have released the pair) were
 * not read. read: their ids, as an array of __u32; it never waits.
 *
 * Errors of all commands: ENOTTY for what is no command, EPERM for a file of
 * another service, EFAULT for bad pointers, ESRCH if the caller is no service
 * (not of INFO and NEXT_EXEC). In all cases nothing has happened.
 */
#define RPAL_IOC_MAGIC		0xB8

/* EINVAL: size does not reach caps. */
#define RPAL_IOC_INFO		_IOWR(RPAL_IOC_MAGIC, 0x40, struct rpal_info)
/*
 * arg 1: the next successful execve of this thread makes a service; 0 takes it
 * back. EINVAL: other arg; EOPNOTSUPP: this machine cannot have services.
 *
 * That execve fails with EAGAIN if there are 254 services, ENOEXEC if it would
 * execute something else than a 64-bit ELF image, EPERM if a set-uid one,
 * EOPNOTSUPP.
 */
#define RPAL_IOC_NEXT_EXEC	_IO(RPAL_IOC_MAGIC, 0x41)
/*
 * Let others request this service; arg: pointer to a u64 they are told (meta).
 * EALREADY: it is enabled.
 */
#define RPAL_IOC_ENABLE		_IOW(RPAL_IOC_MAGIC, 0x42, __u64)
/* The reverse, which also releases all peers. EINVAL: it is not enabled. */
#define RPAL_IOC_DISABLE	_IO(RPAL_IOC_MAGIC, 0x43)
/*
 * Ask for the service with a key. When both have asked for each other they are
 * linked, and both requests are used up when that ends. To ask again is
 * allowed and tells whether they are linked by now.
 * ENOENT: there is none (any more); ECONNREFUSED: it is not enabled; EPERM: the
 * caller may not ptrace it; EADDRINUSE: both have the same protection key, they
 * cannot be peers; EXDEV: it has another time namespace; EINVAL: it is the
 * caller.
 */
#define RPAL_IOC_REQUEST	_IOWR(RPAL_IOC_MAGIC, 0x44, struct rpal_request)
/*
 * arg: service id. Takes back a request; ends the link.
 * EINVAL: not a service id; ENOTCONN: the caller has not asked for it.
 */
#define RPAL_IOC_RELEASE	_IO(RPAL_IOC_MAGIC, 0x45)
#define RPAL_IOC_REGISTER	_IOWR(RPAL_IOC_MAGIC, 0x46, struct rpal_register)
/* arg: roles to give up */
#define RPAL_IOC_UNREGISTER	_IO(RPAL_IOC_MAGIC, 0x47)
#define RPAL_IOC_PARK		_IOW(RPAL_IOC_MAGIC, 0x48, struct rpal_park)
#define RPAL_IOC_WAIT_REPLY	_IOWR(RPAL_IOC_MAGIC, 0x49, struct rpal_wait_reply)
#define RPAL_IOC_WAIT_PARKED	_IOW(RPAL_IOC_MAGIC, 0x4a, struct rpal_wait_parked)
/* Ends the call in progress whose receiver has a flag set; arg: its tid */
#define RPAL_IOC_FINISH		_IO(RPAL_IOC_MAGIC, 0x4b)
/* Does nothing: a context on loan gets back to its own task by any ioctl. */
#define RPAL_IOC_DETACH		_IO(RPAL_IOC_MAGIC, 0x4c)
/*
 * What descriptor does a linked peer have for the other end of a socket?
 * EBADF: fd is not open; ENOTSOCK: it is no socket; EPROTONOSUPPORT: no AF_UNIX
 * socket of type stream or seqpacket; ENOTCONN: it is not connected; ESRCH: the
 * caller is not linked with that service; ENOENT: that has no such descriptor
 * (any more, or not yet: it has not accepted); EINVAL: reserved is not 0.
 */
#define RPAL_IOC_PEER_FD	_IOWR(RPAL_IOC_MAGIC, 0x4d, struct rpal_peer_fd)
/*
 * Ends the park that a linked peer's receiver is in, or, if it is in none, its
 * next, as if its epoll file had become readable; arg: its tid. Never waits.
 * ESRCH: there is no such receiver.
 */
#define RPAL_IOC_WAKE		_IO(RPAL_IOC_MAGIC, 0x4e)

#endif /* _UAPI_LINUX_RPAL_H */
