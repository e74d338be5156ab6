// SPDX-License-Identifier: MIT
// A block of memory that the addon and lib/exchange.ts share, one per JavaScript thread. Through it
// go the small values of a call, because reading and writing a typed array costs JavaScript a few
// instructions where an argument or result of a Node-API function costs hundreds.
#ifndef RPAL_ADDON_EXCHANGE_H
#define RPAL_ADDON_EXCHANGE_H

#include <cstddef>
#include <cstdint>

#include "message_format.h"

namespace rpal_addon {

struct Exchange {
  // Out, filled before call(): a call that this thread makes.
  struct {
    uint32_t connection;
    uint32_t method;
    uint32_t flags;
    uint32_t id;
    uint32_t length;
    int32_t timeout;
    uint32_t unused[2];
    uint8_t bytes[RPAL_INLINE_BYTES];
  } request;
  // In, when call() has returned. With RPAL_REPLY_BULK it has returned the bytes.
  struct {
    int32_t status;
    uint32_t form;
    uint32_t kind;
    uint32_t length;
    uint32_t unused[4];
    uint8_t bytes[RPAL_INLINE_BYTES];
  } reply;
  // In, when the serve function is called and when next() returns: a call that this thread takes,
  // if `present`. With RPAL_REQUEST_BULK the bytes are the argument or the result.
  struct {
    uint32_t connection;
    uint32_t method;
    uint32_t flags;
    uint32_t id;
    uint32_t length;
    uint32_t present;
    uint32_t unused[2];
    uint8_t bytes[RPAL_INLINE_BYTES];
  } served_request;
  // Out, when next() is called. With RPAL_REPLY_BULK the bytes are its argument.
  struct {
    uint32_t form;
    uint32_t kind;
    uint32_t length;
    uint32_t unused[5];
    uint8_t bytes[RPAL_INLINE_BYTES];
  } served_reply;
};

// lib/exchange.ts has these numbers, too.
static_assert(offsetof(Exchange, reply) == 64 && offsetof(Exchange, served_request) == 128 &&
              offsetof(Exchange, served_reply) == 192 && sizeof(Exchange) == 256);

}  // namespace rpal_addon

#endif
