// SPDX-License-Identifier: MIT
#include "environment.h"

#include <cstring>

namespace rpal_addon {

Environment::Environment(napi_env node_env) : env(node_env) {
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_create_arraybuffer(env, sizeof(Exchange), &data, &buffer) != napi_ok ||
      !exchange_buffer.Set(env, buffer)) {
    napi_fatal_error("rpal", NAPI_AUTO_LENGTH, "There is no memory for the addon.",
                     NAPI_AUTO_LENGTH);
  }
  exchange = static_cast<Exchange*>(data);
  std::memset(data, 0, sizeof(Exchange));
}

Environment::~Environment() {
  // The thread ends or the addon's environment goes: nobody may call or be called here any more.
  called.clear();
  served.clear();
  rpal_detach();
}

bool Environment::Ending() const {
  // Any function that could run JavaScript says so.
  bool there = false;
  return napi_has_named_property(env, exchange_buffer.Get(), "byteLength", &there) != napi_ok;
}

}  // namespace rpal_addon
