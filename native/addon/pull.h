// SPDX-License-Identifier: MIT
#ifndef RPAL_ADDON_PULL_H
#define RPAL_ADDON_PULL_H

#include <node_api.h>
#include <rpal.h>

namespace rpal_addon {

// Copies a long payload out of a peer's memory into a new Uint8Array. 0 or a negative errno:
// -EMSGSIZE it is longer than `limit`.
int Pull(napi_env env, const rpal_peer& peer, uint64_t address, uint64_t length, uint32_t limit,
         napi_value* payload);

}  // namespace rpal_addon

#endif
