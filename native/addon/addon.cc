// SPDX-License-Identifier: MIT
#include <napi.h>

#include "environment.h"
#include "low_level.h"
#include "receiver.h"
#include "sender.h"
#include "socket.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* environment = new rpal_addon::Environment(env);
  napi_set_instance_data(
      env, environment,
      [](napi_env, void* data, void*) { delete static_cast<rpal_addon::Environment*>(data); },
      nullptr);
  exports.Set("exchange", Napi::Value(env, environment->exchange_buffer.Get()));
  rpal_addon::ExportLowLevel(env, exports);
  rpal_addon::ExportSocket(env, exports);
  rpal_addon::ExportSender(env, exports);
  rpal_addon::ExportReceiver(env, exports);
  return exports;
}

NODE_API_MODULE(rpal, Init)
