/* SPDX-License-Identifier: MIT */
/*
 * The state machine of a call, for spin. docs/call-model.md explains it and
 * says what is not in it; ../model-tests.ts has the configurations.
 *
 * A task is a process of this model. What it does in user mode is not in its
 * control flow but in ip[], fs[], sp[], reg[]: these are the registers, which
 * the kernel may put onto another task. A step of user mode is one "atomic"
 * that touches at most one shared word; a hook may come before each.
 *
 * Names are those of the kernel (arch/x86/rpal) and of librpal (switch.S).
 * BREAK_*: a deliberate fault, that spin has to find. FAULT_*: one that the
 * code had, found with this model.
 */
#ifndef SENDERS
#define SENDERS	1
#endif
#ifndef CALLS
#define CALLS	2	/* of sender 0; others make one */
#endif
/* How often each of these may happen; tick: to a short loan. */
#ifndef TICKS
#define TICKS	0
#endif
#ifndef SIGNALS
#define SIGNALS	0	/* to a sender */
#endif
#ifndef EVENTS
#define EVENTS	0	/* for the receiver's epoll descriptor */
#endif
#ifndef RECEIVER_SIGNALS
#define RECEIVER_SIGNALS 0
#endif
#ifndef RECEIVER_TIMEOUTS
#define RECEIVER_TIMEOUTS 0
#endif
#ifndef SYSCALLS
#define SYSCALLS 0	/* of the handler */
#endif
#ifndef KILLS
#define KILLS	0	/* of a sender or of the receiver */
#endif
#ifndef UNLINKS
#define UNLINKS	0	/* of sender 0's service and the receiver's */
#endif
/* Defined or not: TIMED calls, CRASHES, LONG or RECALLED handlers, RELINK. */

#define RECEIVER	SENDERS		/* its task */
#define UNLINKER	(SENDERS + 1)	/* tasks that part the services */
#define TASKS		(SENDERS + 3)

/* ------------------------------------------------------------------------
 * The words that both sides and the kernel share.
 */

/* The receiver's state word: state, flags and the sender's id + 1, or 0. */
#define RUN		0
#define PARKED		1
#define LENT		2
#define ACTIVE		3
#define RETURNING	4
byte state = RUN, tid;	/* PARKED has the receiver's own id: here 0 */
bit wanted, contended;

byte caller;			/* sender + 1 */
bit callee[SENDERS];		/* there is one receiver: is it named? */
bit callee_returning[SENDERS];
byte call_sp[SENDERS];		/* the call whose frame it points to */
byte call_seq[SENDERS];

/* ------------------------------------------------------------------------
 * The kernel's own.
 */
bit registered[TASKS];		/* in the table of threads */
bit bound[SENDERS];		/* calls may be in progress with the receiver */
bit mapped[TASKS];		/* the task sees the receiver's slot */
bit parked, dead;		/* of the receiver */
bit parted;			/* sender 0's service and the receiver's, once */
byte nr_callers;
bit queued[SENDERS];		/* on the wait queue of callers */
bit polite[SENDERS];		/* will not claim before it is woken */
bit turn[SENDERS];		/* was woken to claim */
byte owes;			/* the call that the receiver owes the answer to */
#define NOT_BACK	0
#define BACK_PARKED	1
#define BACK_DEPOSITED	2
byte back;
byte box_ip, box_reg;		/* the mailbox; box_ip 0: empty */

#define UNKNOWN		0
#define EXPECTED	1
#define ANSWERED	2
#define OWNER_DEAD	3
byte reply[SENDERS * CALLS + 1];	/* of handed-back calls, by call */

/* Who sleeps on which wait queue. */
#define AWAKE		0
#define OWN		1	/* of the thread itself */
#define CALLERS		2	/* of the receiver */
#define LOAN_ENDS	3
byte asleep[TASKS];

bit notify[TASKS];		/* TIF_NOTIFY_SIGNAL, TIF_NOTIFY_RESUME */
bit passed[2];			/* sender 0, since an unlinker has recalled it */
bit sig[TASKS];
bit killed[TASKS];
bit ready, poked;		/* the receiver's file; it was told so */

/* ------------------------------------------------------------------------
 * Registers.
 */
byte ip[TASKS];
/* FS base; stack pointer and PKRU, which matter together. 1: the receiver's. */
bit fs[TASKS], sp[TASKS];
byte reg[TASKS];		/* the words of a message: a call and its answer */

/* Sender's text. */
#define S_IDLE		1
#define S_SP		2
#define S_CALLEE	3
#define S_CLAIM		4
#define S_BUSY		5
#define S_CALLER	6
#define S_WAIT_PARKED	7
#define S_WAIT_REPLY	8
#define S_RETURN	10	/* rpal_at_return */
#define S_ADOPT		11
#define S_STORE		12
#define S_RETURNING	13
#define S_RELEASE	14
#define S_FINISH	15
#define S_CLEAR		16
#define S_AT_FINISH	17
#define S_DONE		18	/* also rpal_at_released */
#define S_OWNER_DEAD	19
#define S_TIMED_OUT	20
/* Receiver's text: the entry stub, ... */
#define R_ENTRY		30
#define R_ADOPT		31
#define R_ACTIVE	32
/* ... what runs as its context, live in registers, ... */
#define R_POP		39
#define R_HANDLER	40
#define R_SYSCALL	41
#define R_CRASH		42
#define R_LONG		43
#define R_AFTER_PARK	44
#define R_SAVE		45
#define R_END_LOAN	46
#define R_CMPXCHG	47
#define R_PARK		48
/* ... and the way back to the sender's text. */
#define R_BACK		50
#define IN_PARK		60	/* the task; its context is on its stack */
#define GONE		61

#define IS_LIVE(i)	((i) >= R_POP && (i) <= R_PARK)
#define IN_RECEIVERS_TEXT(i) ((i) >= R_ENTRY && (i) <= R_BACK)
/* The instructions of a sender's task that need the receiver's slot. */
#define NEEDS_PEER(i)	(IN_RECEIVERS_TEXT(i) || (i) == S_CLAIM || \
			 (i) == S_CALLER || (i) == S_RELEASE)

/* ------------------------------------------------------------------------
 * Memory of the two processes, and what is only here to be checked.
 */
bit flagged[SENDERS];		/* the claim expects CONTENDED */
byte answer[SENDERS];		/* where the reply is stored */
bit frame;			/* a whole context is saved at the receiver's sp */
byte current;			/* the call that the handler works on */
bit executed[SENDERS * CALLS + 1];

#define CALLS_OF(s)	((s) == 0 -> CALLS : 1)
#define CALL(s)		((s) * CALLS + call_seq[s])
#define SENDER_OF(call)	(((call) - 1) / CALLS)

/* The receiver's context is in one place: live on one task, deposited, saved. */
#define LIVE	(IS_LIVE(ip[RECEIVER]) + IS_LIVE(ip[0]) + \
		 (SENDERS > 1 && IS_LIVE(ip[SENDERS - 1])) + (box_ip != 0))
#define CHECK_ONE_CONTEXT assert(LIVE <= 1 && (LIVE == 1 || frame || dead))

/* Budgets. */
byte ticks = TICKS, signals = SIGNALS, events = EVENTS, kills = KILLS;
byte receiver_signals = RECEIVER_SIGNALS, syscalls = SYSCALLS;
byte receiver_timeouts = RECEIVER_TIMEOUTS;

/* ------------------------------------------------------------------------
 * Kernel: park.c, reply.c. Each inline runs inside an atomic: a section under
 * the receiver's lock. What user mode does to the state word meanwhile makes
 * the kernel's cmpxchg fail and be repeated.
 */
inline wake(task, queue)
{
	if
	:: asleep[task] == queue -> asleep[task] = AWAKE
	:: else
	fi
}

inline wake_callers()
{
	wake(0, CALLERS);
	wake(SENDERS - 1, CALLERS)
}

/*
 * The first of the queue, which may be awake already, and is still the first
 * then. Here: any, so that nothing depends on who it is.
 */
inline wake_a_caller()
{
	if
	:: queued[0] -> polite[0] = 0; wake(0, CALLERS)
	:: SENDERS > 1 && queued[SENDERS - 1] ->
		polite[SENDERS - 1] = 0;
		wake(SENDERS - 1, CALLERS)
	:: else
	fi
}

inline pass_turn()
{
#ifdef BREAK_TURN_KEPT
	skip
#else
	if
	:: state == PARKED -> wake_a_caller()
	:: else
	fi
#endif
}

inline wake_loan_ends()
{
	wake(RECEIVER, LOAN_ENDS);
	wake(UNLINKER, LOAN_ENDS);
	wake(UNLINKER + 1, LOAN_ENDS)
}

inline publish_parked()
{
	state = PARKED;
	tid = 0;
	wanted = 0;
#ifdef BREAK_CONTENDED_LOST
	contended = 0;
#else
	contended = (nr_callers > 0);
	wake_a_caller();
#endif
	wake_loan_ends()
}

/* rpal_run_word(): CONTENDED with RUN tells the receiver that senders wait. */
inline set_state_run()
{
	state = RUN;
	tid = 0;
	wanted = 0;
	contended = (nr_callers > 0)
}

inline end_park(how)
{
	parked = 0;
	back = how;
	wake(RECEIVER, OWN);
	wake_loan_ends()
}

#define LENT_TO(id)	(parked && state >= LENT && tid == (id))

/* rpal_end_loan() */
inline end_loan(s)
{
	if
	:: LENT_TO(s + 1) ->
		assert(state != ACTIVE);	/* it would be lost */
		if
#ifndef BREAK_WANTED_UNSEEN
		:: wanted ->
			set_state_run();
			end_park(BACK_PARKED)
#endif
		:: else -> publish_parked()
		fi
	:: else
	fi
}

inline take_back()
{
	atomic {
		if
		:: parked && state == PARKED ->
			set_state_run();
			end_park(BACK_PARKED)
		:: parked && state >= LENT -> wanted = 1
		:: parked && state == RUN -> assert(false)	/* lost */
		:: else
		fi
	}
}

/* The receiver's answer to a call that was handed back, or that it is dead. */
inline reply_complete(call, how)
{
	if
	:: call && reply[call] == EXPECTED ->
		reply[call] = how;
		wake(SENDER_OF(call), OWN)
	:: else	/* nothing is owed, or nobody waits any more */
	fi
}

/* ------------------------------------------------------------------------
 * Kernel: hand_back.c. The hooks run in the sender's own task.
 */
#define CAUSE_SYSCALL	1
#define CAUSE_FAULT	2
#define CAUSE_SIGNAL	3

inline condemn()
{
	assert(false)	/* the words of honest processes always make sense */
}

/* To a place of its own: FS base, sp, PKRU are the sender's again. */
inline resume_sender(s, to)
{
	assert(call_sp[s] == call_seq[s]);
	fs[s] = 0;
	sp[s] = 0;
	ip[s] = to;
	callee[s] = 0
}

/* EAGAIN: librpal calls again, without CONTENDED. */
inline call_again(s)
{
	flagged[s] = 0;
	resume_sender(s, S_SP)
}

/* settle_without_receiver() */
inline without_receiver(s)
{
	if
	:: callee_returning[s] && !fs[s] -> resume_sender(s, S_DONE)
	:: !callee_returning[s] && !fs[s] && cause == CAUSE_SIGNAL ->
		call_again(s)
	:: else -> resume_sender(s, S_OWNER_DEAD)
	fi
}

/*
 * Uses "cause", "found" and "word" of the sender's process, and sets "changed".
 * Four steps, because the receiver's task, or whoever parts the services, can
 * come between any two of them.
 */
inline settle(s)
{
	atomic {
		changed = 1;
		found = 0;
		if
		:: !fs[s] && cause == CAUSE_SYSCALL -> changed = 0
#ifdef BREAK_NO_SYSCALL_HOOK
		:: fs[s] && cause == CAUSE_SYSCALL -> changed = 0
#endif
#ifdef BREAK_FS_DECIDES
		:: !fs[s] && cause != CAUSE_SYSCALL -> changed = 0
#endif
		:: else ->
			if
			:: callee[s] ->
				found = registered[RECEIVER] && bound[s];
				if
				:: !found -> without_receiver(s)
				:: else
				fi
			:: else ->
				assert(!fs[s]);
				changed = 0
			fi
		fi
	}
	if
	:: found ->
		/* The word is read. */
		word = (tid == s + 1 -> state : RUN);
		/* ... and acted on. */
		atomic {
#ifdef BREAK_FS_DECIDES
			word = ACTIVE;
#endif
			if
			:: word == LENT ->
				end_loan(s);
				if
				:: cause == CAUSE_FAULT ->
					resume_sender(s, S_OWNER_DEAD)
				:: else -> call_again(s)
				fi
			:: word == ACTIVE ->
				hand_back(s)
			:: word == RETURNING ->
				end_loan(s);
				if
				:: callee_returning[s] ->
					resume_sender(s, S_DONE)
				:: else -> resume_sender(s, S_AT_FINISH)
				fi
			:: else ->
				if
				:: fs[s] ->
#ifndef FAULT_DYING_RECEIVER
					if
					:: dead -> without_receiver(s)
					:: else -> condemn()
					fi
#else
					condemn()
#endif
				:: !fs[s] && callee_returning[s] ->
#ifndef FAULT_RELEASE_SKIPPED
					resume_sender(s, S_DONE)
#else
					callee[s] = 0;
					changed = 0
#endif
				:: !fs[s] && !callee_returning[s] ->
					if
					:: cause == CAUSE_FAULT ->
						resume_sender(s, S_OWNER_DEAD)
					:: else -> call_again(s)
					fi
				fi
			fi
		}
		if
		:: deposited ->
			atomic {
				box_ip = ip[s];
				box_reg = reg[s];
				reg[s] = 0;
				resume_sender(s, S_WAIT_REPLY);
				end_park(BACK_DEPOSITED);
				deposited = 0;
				CHECK_ONE_CONTEXT
			}
		:: else
		fi
	:: else
	fi;
	atomic {
		found = 0;
		word = 0
	}
}

/* The section under the lock; "deposited" makes settle() do the rest. */
inline hand_back(s)
{
	if
	:: fs[s] && LENT_TO(s + 1) && state == ACTIVE ->
		set_state_run();
		parked = 0;
		assert(!owes && reply[CALL(s)] == UNKNOWN);
		owes = CALL(s);
		reply[CALL(s)] = EXPECTED;
		deposited = 1
#ifndef FAULT_DYING_RECEIVER
	:: dead -> without_receiver(s)
#endif
	:: else -> condemn()
	fi
}

/* ------------------------------------------------------------------------
 * Kernel: the system calls of a sender.
 */
inline finish(s)
{
	found = registered[RECEIVER] && bound[s];
	atomic {
		if
		:: found -> turn[s] = 0; end_loan(s)
		:: else
		fi;
		found = 0;
		ip[s] = S_CLEAR
	}
}

#ifdef FAULT_CONTENDED_NOT_SET
#define MARKED	LENT
#else
#define MARKED	RUN
#endif

#define MAY_CLAIM(s)	((state == PARKED && !polite[s]) || dead)
#define INTERRUPTED(s)	(sig[s] || killed[s] || notify[s])

inline wait_parked(s)
{
	atomic {
		assert(!callee[s]);
		found = registered[RECEIVER] && bound[s];
		if
		:: !found -> ip[s] = S_OWNER_DEAD
#ifdef TIMED
		:: found -> timed = 1
#endif
		:: found
		fi
	};
	if
	:: found ->
		atomic {
			nr_callers++;
			if
			:: state >= MARKED -> contended = 1
			:: else
			fi
		};
		/* queue_up(), with RPAL_WAIT_TURN or without it */
		atomic {
			if
			:: SENDERS > 1 && queued[SENDERS - 1 - s] ->
				polite[s] = 1
			:: true
			fi;
			turn[s] = 0;
			queued[s] = 1
		};
		do
		:: atomic { MAY_CLAIM(s) || INTERRUPTED(s) -> break }
		:: atomic { !MAY_CLAIM(s) && !INTERRUPTED(s) ->
			asleep[s] = CALLERS
		   };
		   if
		   :: atomic { !asleep[s] || INTERRUPTED(s) ->
			asleep[s] = AWAKE
		      }
		   :: atomic { timed ->
			asleep[s] = AWAKE;
			ip[s] = S_TIMED_OUT;
			break
		      }
		   fi
		od;
		atomic {
			queued[s] = 0;
			polite[s] = 0
		};
		atomic {
			nr_callers--;
			turn[s] = !INTERRUPTED(s) && ip[s] != S_TIMED_OUT
		};
		atomic {
			if
			:: !turn[s] -> pass_turn()
			:: else
			fi;
			if
			:: ip[s] == S_TIMED_OUT
			:: ip[s] != S_TIMED_OUT && dead -> ip[s] = S_OWNER_DEAD
			:: ip[s] != S_TIMED_OUT && !dead -> ip[s] = S_SP
			fi;
			timed = 0;
			found = 0
		}
	:: else
	fi
}

inline wait_reply(s)
{
	atomic {
		assert(!callee[s] && reply[CALL(s)] != UNKNOWN);
		if
#ifdef TIMED
		:: timed = 1
#endif
		:: true
		fi
	};
	do
	:: atomic { reply[CALL(s)] == ANSWERED ->
		answer[s] = CALL(s);
		ip[s] = S_DONE;
		break
	   }
	:: atomic { reply[CALL(s)] == OWNER_DEAD ->
		ip[s] = S_OWNER_DEAD;
		break
	   }
	/* The signal comes first, then the wait is started again. */
	:: atomic { reply[CALL(s)] == EXPECTED && INTERRUPTED(s) -> break }
	:: atomic { reply[CALL(s)] == EXPECTED && !INTERRUPTED(s) ->
		asleep[s] = OWN
	   };
	   if
	   :: atomic { !asleep[s] || INTERRUPTED(s) -> asleep[s] = AWAKE }
	   :: atomic { timed && reply[CALL(s)] == EXPECTED ->
		asleep[s] = AWAKE;
		ip[s] = S_TIMED_OUT;
		break
	      }
	   fi
	od;
	atomic {
		timed = 0;
		if
		:: ip[s] != S_WAIT_REPLY -> reply[CALL(s)] = UNKNOWN
		:: else
		fi
	}
}

/* ------------------------------------------------------------------------
 * User mode of the receiver, on whichever task it is. "t" is the task.
 */
#define RECEIVER_STEPS(t)						\
	:: atomic { ip[t] == R_POP && mapped[t] ->			\
		BROKEN_POP						\
		assert((sp[t] || t == RECEIVER) && frame);		\
		frame = 0;						\
		current = reg[t];					\
		reg[t] = 0;						\
		assert(!executed[current]);				\
		executed[current] = 1;					\
		ip[t] = R_HANDLER;					\
		CHECK_ONE_CONTEXT					\
	}								\
	:: atomic { ip[t] == R_SAVE && mapped[t] ->			\
		assert(sp[t] || t == RECEIVER);				\
		reg[t] = current;					\
		current = 0;						\
		frame = 1;						\
		ip[t] = R_END_LOAN					\
	}								\
	:: atomic { ip[t] == R_END_LOAN && mapped[t] ->		\
		if							\
		:: state == ACTIVE -> ip[t] = R_CMPXCHG			\
		:: else -> ip[t] = R_PARK				\
		fi							\
	}								\
	:: atomic { ip[t] == R_CMPXCHG && mapped[t] ->			\
		if							\
		:: state == ACTIVE ->					\
			state = RETURNING;				\
			ip[t] = R_BACK;					\
			CHECK_ONE_CONTEXT				\
		:: else -> ip[t] = R_END_LOAN				\
		fi							\
	}								\
	:: atomic { ip[t] == R_HANDLER && mapped[t] ->			\
		assert(sp[t] || t == RECEIVER);				\
		if							\
		:: ip[t] = R_SAVE					\
		:: syscalls > 0 -> syscalls--; ip[t] = R_SYSCALL	\
		CRASHING(t)						\
		LASTING(t)						\
		fi							\
	}

#ifdef BREAK_FLAGS_IGNORED
#define UNFLAGGED true
#else
#define UNFLAGGED (!wanted && !contended)
#endif

#ifdef BREAK_POKE_UNSEEN
#define POKED	false
#else
#define POKED	poked
#endif

#ifdef BREAK_POP_BEFORE_ACTIVE
#define BROKEN_POP	frame = 1;
#else
#define BROKEN_POP
#endif
#ifdef CRASHES
#define CRASHING(t)	:: ip[t] = R_CRASH
#else
#define CRASHING(t)
#endif
/*
 * A long handler ends on its own task only. The tick takes it there; or, to see
 * that a recall does, too, there is no tick but something for the receiver.
 */
#ifdef LONG
#define ALWAYS_ENDS(t)	(ip[t] == R_LONG)
#define LASTING(t)	:: t != RECEIVER -> ip[t] = R_LONG
#elif defined(RECALLED)
#define ALWAYS_ENDS(t)	false
#define LASTING(t)	:: t != RECEIVER && (receiver_signals > 0 ||	\
			   events > 0 || sig[RECEIVER] || ready) ->	\
				ip[t] = R_LONG
#else
#define ALWAYS_ENDS(t)	false
#define LASTING(t)
#endif

/* ------------------------------------------------------------------------
 * A sender.
 */
proctype sender(byte s)
{
	byte cause, word;
	bit changed, found, deposited, timed;

	do
	/* rpal_call(), rpal_switch_call() */
	:: atomic { ip[s] == S_IDLE && call_seq[s] < CALLS_OF(s) ->
		call_seq[s]++;
		flagged[s] = 0;
		ip[s] = S_SP
	}
#ifdef BREAK_CALLEE_BEFORE_SP
	:: atomic { ip[s] == S_SP ->
		callee_returning[s] = 0;
		callee[s] = 1;
		ip[s] = S_CALLEE
	}
	:: atomic { ip[s] == S_CALLEE ->
		call_sp[s] = call_seq[s];
		ip[s] = S_CLAIM
	}
#else
	:: atomic { ip[s] == S_SP ->
		call_sp[s] = call_seq[s];
#ifdef BREAK_CALLEE_AFTER_CLAIM
		ip[s] = S_CLAIM
#else
		ip[s] = S_CALLEE
#endif
	}
	:: atomic { ip[s] == S_CALLEE ->
		callee_returning[s] = 0;
		callee[s] = 1;
#ifdef BREAK_CALLEE_AFTER_CLAIM
		ip[s] = S_CALLER
#else
		ip[s] = S_CLAIM
#endif
	}
#endif
	:: atomic { ip[s] == S_CLAIM && mapped[s] ->
		if
		:: state == PARKED && !wanted && contended == flagged[s] ->
			state = LENT;
			tid = s + 1;
#ifdef BREAK_CALLEE_AFTER_CLAIM
			ip[s] = S_CALLEE
#else
			ip[s] = S_CALLER
#endif
		:: else -> ip[s] = S_BUSY
		fi
	}
	:: atomic { ip[s] == S_BUSY ->
		callee[s] = 0;
		if
		:: flagged[s] -> flagged[s] = 0; ip[s] = S_WAIT_PARKED
		:: else -> flagged[s] = 1; ip[s] = S_SP
		fi
	}
	:: atomic { ip[s] == S_CALLER && mapped[s] ->
		caller = s + 1;
		reg[s] = CALL(s);
		ip[s] = R_ENTRY
	}

	/* rpal_at_entry, in the receiver's text */
#ifdef BREAK_ACTIVE_BEFORE_ADOPTION
	:: atomic { ip[s] == R_ENTRY && mapped[s] ->
		state = ACTIVE;
		ip[s] = R_ADOPT
	}
	:: atomic { ip[s] == R_ADOPT && mapped[s] ->
		fs[s] = 1;
		sp[s] = 1;
		ip[s] = R_POP
	}
#else
	:: atomic { ip[s] == R_ENTRY && mapped[s] ->
		fs[s] = 1;
		ip[s] = R_ADOPT
	}
	:: atomic { ip[s] == R_ADOPT && mapped[s] ->
		sp[s] = 1;
#ifdef BREAK_POP_BEFORE_ACTIVE
		frame = 0;
#endif
		ip[s] = R_ACTIVE
	}
	:: atomic { ip[s] == R_ACTIVE && mapped[s] ->
		state = ACTIVE;		/* a byte: the flags survive */
		ip[s] = R_POP
	}
#endif
	RECEIVER_STEPS(s)
	:: atomic { ip[s] == R_BACK && mapped[s] ->
		assert(caller == s + 1);
		ip[s] = S_RETURN
	}

	/* rpal_at_return */
	:: atomic { ip[s] == S_RETURN ->
		fs[s] = 0;
		ip[s] = S_ADOPT
	}
	:: atomic { ip[s] == S_ADOPT ->
		assert(call_sp[s] == call_seq[s]);
		sp[s] = 0;
		ip[s] = S_STORE
	}
	:: atomic { ip[s] == S_STORE ->
		assert(!sp[s]);
		answer[s] = reg[s];
#ifdef BREAK_RETURNING_BEFORE_REPLY
		answer[s] = 0;
#endif
		ip[s] = S_RETURNING
	}
	:: atomic { ip[s] == S_RETURNING ->
		callee_returning[s] = 1;
		ip[s] = S_RELEASE
	}
	:: atomic { ip[s] == S_RELEASE && mapped[s] ->
#ifdef BREAK_RETURNING_BEFORE_REPLY
		answer[s] = reg[s];
#endif
		if
		:: state == RETURNING && tid == s + 1 && UNFLAGGED ->
			state = PARKED;
			tid = 0;
			ip[s] = S_CLEAR
		:: else -> ip[s] = S_FINISH
		fi
	}
	:: atomic { ip[s] == S_CLEAR ->
		callee[s] = 0;
		ip[s] = S_DONE
	}

	/* What comes of it. */
	:: atomic { ip[s] == S_AT_FINISH ->
		answer[s] = reg[s];
		ip[s] = S_DONE
	}
	:: atomic { ip[s] == S_DONE ->
		assert(!fs[s] && !sp[s] && !callee[s]);
		assert(answer[s] == CALL(s) && executed[CALL(s)]);
		answer[s] = 0;
		reg[s] = 0;
		ip[s] = S_IDLE
	}
	:: atomic { ip[s] == S_OWNER_DEAD ->
		assert(!fs[s] && !sp[s] && !callee[s]);
		assert(killed[RECEIVER] || (s == 0 && parted));
		answer[s] = 0;
		reg[s] = 0;
		ip[s] = S_IDLE
	}
	:: atomic { ip[s] == S_TIMED_OUT -> ip[s] = S_IDLE }

	/*
	 * Into the kernel: a system call; a fault, because the peer's memory is
	 * gone or the handler is wrong; an interrupt, and there is something to
	 * do before user mode. Of all this the hook comes first.
	 */
	:: atomic {
		if
		:: ip[s] == R_SYSCALL || ip[s] == R_PARK || ip[s] == S_FINISH ->
			cause = CAUSE_SYSCALL
		/* Would only be interrupted at once. */
		:: (ip[s] == S_WAIT_PARKED || ip[s] == S_WAIT_REPLY) &&
		   !INTERRUPTED(s) ->
			cause = CAUSE_SYSCALL
		:: (NEEDS_PEER(ip[s]) && !mapped[s]) || ip[s] == R_CRASH ->
			cause = CAUSE_FAULT
		:: notify[s] || sig[s] || killed[s] -> cause = CAUSE_SIGNAL
		fi
	   };
	   settle(s);
	   if
	   :: cause == CAUSE_SIGNAL ->
		atomic {
			cause = 0;
			notify[s] = 0;
			/* The end of __rpal_exit_to_user() */
			if
			:: s == 0 -> passed[0] = 1; passed[1] = 1
			:: else
			fi;
			wake_loan_ends();
			if
			:: killed[s] -> break
			:: !killed[s] && sig[s] ->
				/* A frame is pushed, a handler runs. */
				assert(!fs[s] && !sp[s] && !callee[s]);
				sig[s] = 0
			:: else
			fi
		}
	   :: cause != CAUSE_SIGNAL && changed -> cause = 0
	   :: cause != CAUSE_SIGNAL && !changed ->
		/* s does as s what its own context asks for. */
		assert(cause == CAUSE_SYSCALL && !IN_RECEIVERS_TEXT(ip[s]));
		assert(!fs[s] && !sp[s]);
		cause = 0;
		if
		:: ip[s] == S_FINISH -> finish(s)
		:: ip[s] == S_WAIT_PARKED -> wait_parked(s)
		:: ip[s] == S_WAIT_REPLY -> wait_reply(s)
		fi
	   fi

	/* The tick, while a loan lasts. It always ends a long one. */
	:: atomic { fs[s] && !notify[s] && (ticks > 0 || ALWAYS_ENDS(s)) ->
		if
		:: ip[s] != R_LONG -> ticks--
		:: else
		fi;
		notify[s] = 1
	}
	od;

	/* __rpal_leave_thread() */
	atomic {
		assert(!fs[s] && !sp[s] && !callee[s]);
		registered[s] = 0;
		if
		:: call_seq[s] -> reply[CALL(s)] = UNKNOWN
		:: else
		fi;
		answer[s] = 0;
		reg[s] = 0;
		ip[s] = GONE;
		if
		:: turn[s] && registered[RECEIVER] && bound[s] -> pass_turn()
		:: else
		fi;
		turn[s] = 0;
		wake_loan_ends()
	};
	/* rpal_exit_mmap(): rpal_end_loan_to() has nothing to do. */
	atomic {
		mapped[s] = 0;
		bound[s] = 0;
		assert(!(registered[RECEIVER] && state >= LENT && tid == s + 1))
	}
}

/* ------------------------------------------------------------------------
 * The receiver's own task.
 */
proctype receiver()
{
	byte owed, who;
	bit urgent;

	do
	RECEIVER_STEPS(RECEIVER)
	:: atomic { ip[RECEIVER] == R_SYSCALL || ip[RECEIVER] == R_LONG ->
		ip[RECEIVER] = R_SAVE
	}
	:: atomic { ip[RECEIVER] == R_CRASH ->
		killed[RECEIVER] = 1;
		break
	}
	:: atomic { ip[RECEIVER] == R_AFTER_PARK ->
		ready = 0;		/* epoll_wait() */
		ip[RECEIVER] = R_SAVE
	}
	:: atomic { sig[RECEIVER] -> sig[RECEIVER] = 0 }
	:: killed[RECEIVER] -> break

	/* rpal_park() */
	:: ip[RECEIVER] == R_PARK ->
#ifdef BREAK_PARKED_AFTER_STATE
		atomic {
			ip[RECEIVER] = IN_PARK;
			publish_parked()
		};
#endif
#ifdef BREAK_REPLY_AFTER_PUBLICATION
		atomic {
			back = NOT_BACK;
			parked = 1;
			ip[RECEIVER] = IN_PARK;
			publish_parked()
		};
		atomic {
			owed = owes;
			owes = 0
		};
#else
		atomic {
			owed = owes;
			owes = 0;
			back = NOT_BACK;
			parked = 1;
#ifndef BREAK_PARKED_AFTER_STATE
			ip[RECEIVER] = IN_PARK;
			publish_parked()
#endif
		};
#endif
		atomic {
			/* The answer is to the call that was handed back. */
			assert(owed == reg[RECEIVER]);
			reply_complete(owed, ANSWERED);
			owed = 0;
			reg[RECEIVER] = 0;
			CHECK_ONE_CONTEXT
		};
		/* park_until() */
		do
		:: atomic {
			poked = 0;
			if
			:: ready -> break
			:: back && !ready -> break
			:: (sig[RECEIVER] || killed[RECEIVER]) && !back &&
			   !ready ->
				urgent = 1;
				break
			:: else
			fi
		   };
		   /* sleep_once() */
		   atomic {
			if
			:: POKED || back || sig[RECEIVER] || killed[RECEIVER]
			:: else -> asleep[RECEIVER] = OWN
			fi
		   };
		   if
		   :: atomic { !asleep[RECEIVER] || sig[RECEIVER] ||
			       killed[RECEIVER] ->
			asleep[RECEIVER] = AWAKE
		   }
		   :: atomic { receiver_timeouts > 0 ->
			receiver_timeouts--;
			asleep[RECEIVER] = AWAKE;
			break
		   }
		   fi
		od;
		/* get_back() */
		take_back();
		do
		:: atomic { back || urgent -> break }
		:: atomic { !back && !urgent &&
			    (sig[RECEIVER] || killed[RECEIVER]) ->
			urgent = 1;
			break
		   }
		:: atomic { !back && !urgent && !sig[RECEIVER] &&
			    !killed[RECEIVER] ->
			asleep[RECEIVER] = OWN
		   };
		   if
		   :: atomic { !asleep[RECEIVER] || sig[RECEIVER] ||
			       killed[RECEIVER] ->
			asleep[RECEIVER] = AWAKE
		      }
		   /* It lasts longer than the limit. */
		   :: atomic { !back ->
			asleep[RECEIVER] = AWAKE;
			urgent = 1
		      }
		   fi
		od;
		urgent = 0;
		do
		:: atomic { back || killed[RECEIVER] -> break }
		/* It is being deposited. */
		:: atomic { !back && !killed[RECEIVER] && !parked ->
			asleep[RECEIVER] = OWN
		   };
		   atomic { !asleep[RECEIVER] || killed[RECEIVER] ->
			asleep[RECEIVER] = AWAKE
		   }
		:: atomic { !back && !killed[RECEIVER] && parked ->
			/* Parked, but WANTED has kept it from that. */
			assert(state != PARKED)
		   };
		   take_back();
		   /* rpal_recall() */
		   who = (state >= LENT -> tid : 0);
		   atomic {
			if
			:: who && registered[who - 1] && bound[who - 1]
#ifndef BREAK_NO_RECALL
			   -> notify[who - 1] = 1
#endif
			:: else ->
				/* rpal_end_loan() */
				assert(!who || !LENT_TO(who));
				who = 0
			fi
		   };
		   do
		   :: atomic { !who || !LENT_TO(who) || !registered[who - 1] ||
			       killed[RECEIVER] ->
			break
		      }
		   :: atomic { who && LENT_TO(who) && registered[who - 1] &&
			       !killed[RECEIVER] ->
			asleep[RECEIVER] = LOAN_ENDS
		      };
		      atomic { !asleep[RECEIVER] || killed[RECEIVER] ->
			asleep[RECEIVER] = AWAKE
		      }
		   od;
		   who = 0
		od;
		atomic {
			if
			:: killed[RECEIVER] -> break
			:: !killed[RECEIVER] && back == BACK_DEPOSITED ->
				ip[RECEIVER] = box_ip;
				reg[RECEIVER] = box_reg;
				box_ip = 0;
				box_reg = 0
			:: !killed[RECEIVER] && back == BACK_PARKED ->
				assert(frame);
				frame = 0;
				ip[RECEIVER] = R_AFTER_PARK
			fi;
			back = NOT_BACK;
			sig[RECEIVER] = 0;
			CHECK_ONE_CONTEXT
		}
	od;

	/* __rpal_leave_thread() */
	atomic {
		ip[RECEIVER] = GONE;
		dead = 1;
		parked = 0;
		box_ip = 0;
		box_reg = 0;
#ifdef FAULT_STALE_WORD
	};
	atomic {
#endif
		who = (state >= LENT -> tid : 0);
		set_state_run();
		contended = 0
	};
	atomic {
		if
		:: who && registered[who - 1] && bound[who - 1] ->
			notify[who - 1] = 1
		:: else
		fi;
		who = 0
	};
	atomic {
		registered[RECEIVER] = 0
	};
	atomic {
		wake_loan_ends();
		wake_callers()
	};
	atomic {
		owed = owes;
		owes = 0
	};
	atomic {
		reply_complete(owed, OWNER_DEAD);
		owed = 0
	};
	/* rpal_exit_mmap() */
	atomic {
		mapped[0] = 0;
		bound[0] = 0;
		mapped[SENDERS - 1] = 0;
		bound[SENDERS - 1] = 0
	}
}

/* ------------------------------------------------------------------------
 * RPAL_IOC_RELEASE: a third task parts the services of sender 0 and of the
 * receiver.
 */
#define LENT_TO_0	LENT_TO(1)
#define LINKED		mapped[0]

/* Linked again, sender 0 may have another loan: but it has passed a hook. */
#ifdef FAULT_WAITS_THOUGH_LINKED
#define SETTLED	(!LENT_TO_0 || !registered[0])
#else
#define SETTLED	(!LENT_TO_0 || !registered[0] || passed[me - UNLINKER])
#endif

#ifdef FAULT_UNBOUND_EARLY
#define MAY_UNBIND	true
#elif defined(FAULT_UNBOUND_BY_ANOTHER)
#define MAY_UNBIND	(!interrupted && !LINKED)
#else
#define MAY_UNBIND	(!interrupted && !LINKED &&			\
			 (!LENT_TO_0 || !registered[0]))
#endif

proctype unlinker(byte me)
{
	bit lent, interrupted;

	/* hide() and its TLB flush, under the mutex */
	atomic {
		mapped[0] = 0;
		parted = 1
	};
	/* rpal_settle_loan() */
	lent = LENT_TO_0;
	atomic {
		if
		:: lent && registered[0] && bound[0] ->
			passed[me - UNLINKER] = 0;
			notify[0] = 1
		:: else -> lent = 0
		fi
	};
	do
	:: atomic { !lent || SETTLED -> break }
	:: atomic { lent && !SETTLED -> asleep[me] = LOAN_ENDS };
	   if
	   :: !asleep[me]
#ifdef KILLED_UNLINKER
	   :: atomic { asleep[me] = AWAKE; interrupted = 1; break }
#endif
	   fi
	od;
	/* settle_loans(), under the mutex again */
	atomic {
		if
		:: MAY_UNBIND -> bound[0] = 0
		:: else
		fi
	}
}

/* Both services ask for each other again. */
proctype relinker()
{
	atomic { parted && !LINKED && registered[0] && registered[RECEIVER] ->
		mapped[0] = 1;
		bound[0] = 1
	}
}

/* ------------------------------------------------------------------------
 * The rest of the world.
 */
#define ALIVE(task)	(ip[task] != GONE && !killed[task])

#define WORLD_AND_SENDER(s)						\
	:: atomic { signals > 0 && !sig[s] && ALIVE(s) ->		\
		signals--;						\
		sig[s] = 1						\
	}								\
	:: atomic { kills > 0 && ALIVE(s) ->				\
		kills--;						\
		killed[s] = 1						\
	}

proctype world()
{
	do
	WORLD_AND_SENDER(0)
#if SENDERS > 1
	WORLD_AND_SENDER(1)
#endif
	:: atomic { receiver_signals > 0 && ALIVE(RECEIVER) ->
		receiver_signals--;
		sig[RECEIVER] = 1
	}
	:: atomic { kills > 0 && ALIVE(RECEIVER) ->
		kills--;
		killed[RECEIVER] = 1
	}
	:: atomic { events > 0 && ALIVE(RECEIVER) ->
		events--;
		ready = 1;
		poked = 1;
		wake(RECEIVER, OWN)
	}
	od
}

/* When nothing can happen any more, nothing may be left to be done. */
inline sender_at_rest(s)
{
	if
	:: ip[s] == GONE
	:: else ->
		/* All calls have come back; none sleeps for ever. */
		assert(ip[s] == S_IDLE && call_seq[s] == CALLS_OF(s));
		assert(!callee[s] && !asleep[s])
	fi
}

inline receiver_at_rest()
{
	if
	:: ip[RECEIVER] == GONE
	:: else ->
		/* It can be called; it does not wait for its own context. */
		assert(ip[RECEIVER] == IN_PARK && asleep[RECEIVER] == OWN);
		assert(parked && state == PARKED && !tid && !wanted);
		assert(frame && !box_ip && !back);
		assert(!sig[RECEIVER] && !ready)
	fi
}

init
{
	byte i;

	atomic {
		ip[RECEIVER] = R_SAVE;
		registered[RECEIVER] = 1;
		mapped[RECEIVER] = 1;
		for (i : 0 .. SENDERS - 1) {
			ip[i] = S_IDLE;
			registered[i] = 1;
			bound[i] = 1;
			mapped[i] = 1;
			run sender(i)
		}
		run receiver();
		run world();
#if UNLINKS > 0
		run unlinker(UNLINKER);
#endif
#if UNLINKS > 1
		run unlinker(UNLINKER + 1);
#endif
#ifdef RELINK
		run relinker();
#endif
	};
	timeout;
	atomic {
		sender_at_rest(0);
		sender_at_rest(SENDERS - 1);
		receiver_at_rest();
		assert(!asleep[UNLINKER] && !asleep[UNLINKER + 1]);
		assert(!nr_callers && !owes);
		for (i : 1 .. SENDERS * CALLS) {
			assert(reply[i] == UNKNOWN)
		}
	}
}
