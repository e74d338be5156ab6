/* SPDX-License-Identifier: MIT */
/*
 * What the six words of a call mean between two addons. The one place where
 * that is said; librpal carries the words and does not look at them.
 *
 * Request
 *	word[0]	   cookie of the connection, chosen by the receiver at the
 *		   handshake: 32 random bits, then 32 bits of its index
 *	word[1]	   method (16) | flags (8) | inline length (8) | call id (32)
 *	word[2..5] up to 32 bytes of payload; or, with RPAL_REQUEST_BULK,
 *		   word[2] its address in the sender's slot, word[3] its length
 *
 * Reply (status 0)
 *	word[0]	   form (8) | kind (8) | inline length (8)
 *	word[1]	   with RPAL_REPLY_BULK the length, else 0
 *	word[2..5] up to 32 bytes; or, with RPAL_REPLY_BULK, word[2] the address
 *		   in the receiver's slot
 * A negative status says that the receiver could not make a reply: -EBADMSG an
 * unknown cookie, -EMSGSIZE a payload over its limit, -EFAULT unreadable.
 *
 * Who copies. Each side only ever reads the other's memory: the receiver pulls
 * a long request when it takes the call, the sender pulls a long reply when
 * the call has ended. So nobody can be written to at a bad moment. One copy
 * each way.
 *
 * How long the memory must stay.
 * - A request: until its call has ended. When the sender gives up earlier
 *   (-ETIMEDOUT, -EINPROGRESS) the receiver may not have taken it yet: the
 *   sender keeps the memory until a later call to the same receiver has ended
 *   with a status >= 0 (a receiver takes a call before it waits for the next),
 *   or until the services are no peers any more (then a read fails).
 * - A reply: until the next call with the same cookie, or the end of the
 *   connection. The sender is one thread and has pulled it before it calls
 *   again.
 *
 * A lost reply. An asynchronous call (no RPAL_REQUEST_SYNC) does not wait when
 * it is handed back; the kernel drops its reply then. The sender asks for it
 * over the socket, by the call's id, and makes no other asynchronous call with
 * this cookie until it has come, so the receiver keeps only the last one.
 */
#ifndef RPAL_MESSAGE_FORMAT_H
#define RPAL_MESSAGE_FORMAT_H

#include <stdint.h>

#define RPAL_INLINE_BYTES 32

#define RPAL_REQUEST_SYNC 0x01 /* the caller's thread waits for the answer */
#define RPAL_REQUEST_BULK 0x02

#define RPAL_REPLY_INLINE 0
#define RPAL_REPLY_BULK 1
#define RPAL_REPLY_DEFERRED 2 /* the answer comes over the socket */

static inline uint64_t rpal_request_word(uint32_t method, uint32_t flags, uint32_t inline_length,
                                         uint32_t id) {
  return (uint64_t)(method & 0xffff) << 48 | (uint64_t)(flags & 0xff) << 40 |
         (uint64_t)(inline_length & 0xff) << 32 | id;
}

static inline uint32_t rpal_request_method(uint64_t word) { return word >> 48; }
static inline uint32_t rpal_request_flags(uint64_t word) { return word >> 40 & 0xff; }
static inline uint32_t rpal_request_length(uint64_t word) { return word >> 32 & 0xff; }
static inline uint32_t rpal_request_id(uint64_t word) { return (uint32_t)word; }

static inline uint64_t rpal_reply_word(uint32_t form, uint32_t kind, uint32_t inline_length) {
  return form | kind << 8 | inline_length << 16;
}

static inline uint32_t rpal_reply_form(uint64_t word) { return word & 0xff; }
static inline uint32_t rpal_reply_kind(uint64_t word) { return word >> 8 & 0xff; }
static inline uint32_t rpal_reply_length(uint64_t word) { return word >> 16 & 0xff; }

#endif
