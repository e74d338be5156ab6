/* SPDX-License-Identifier: MIT */
/* Numbers for switch.S and C; thread.c checks them against the structures. */
#ifndef RPAL_CONTROL_OFFSETS_H
#define RPAL_CONTROL_OFFSETS_H

#define CONTROL_STATE			0
#define CONTROL_ENTRY_IP		8
#define CONTROL_SP			16
#define CONTROL_FS_BASE			24
#define CONTROL_CALLER			32
#define CONTROL_PARKED			40
#define CONTROL_PKRU			60
#define CONTROL_NOTIFY_IP		64
#define CONTROL_CALLEE			128
#define CONTROL_CALLEE_RETURNING	132
#define CONTROL_CALL_SP			136
#define CONTROL_CALL_SEQ		144
#define CONTROL_GUARD			156
#define CONTROL_RETURN_IP		160
#define CONTROL_RETURNING		168

#define TARGET_CONTROL			0
#define TARGET_PARKED			8
#define TARGET_TID			16

#define SELF_SENDER			0
#define SELF_RECEIVER			8
#define SELF_LENT			16
#define SELF_SERVED			24
#define SELF_PARKS			32

/* What becomes of a call that the first attempt did not end with an answer. */
#define RPAL_MODE_CALL			0
#define RPAL_MODE_POST			1
#define RPAL_MODE_ONCE			2	/* its caller is told */

/* Results of rpal_switch_park() beside those of the ioctl. */
#define RPAL_SWITCH_CALLED		2
#define RPAL_SWITCH_NOTIFIED		3

#ifdef __ASSEMBLER__
#define RPAL_STATE_ACTIVE		3
#define RPAL_STATE_RETURNING		4
#define RPAL_STATE_TID_SHIFT		32
#define RPAL_IOC_PARK			0x4020b848
#define RPAL_IOC_FINISH			0xb84b
#endif

#endif
