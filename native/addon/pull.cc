// SPDX-License-Identifier: MIT
#include "pull.h"

#include <cerrno>

namespace rpal_addon {

int Pull(napi_env env, const rpal_peer& peer, uint64_t address, uint64_t length, uint32_t limit,
         napi_value* payload) {
  if (length > limit) return -EMSGSIZE;
  void* data = nullptr;
  napi_value buffer;
  if (napi_create_arraybuffer(env, length, &data, &buffer) != napi_ok) return -ENOMEM;
  if (int error =
          rpal_read_peer(peer.id, peer.pkey, data, reinterpret_cast<const void*>(address), length);
      error < 0) {
    return error;
  }
  if (napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, payload) != napi_ok) {
    return -ENOMEM;
  }
  return 0;
}

}  // namespace rpal_addon
