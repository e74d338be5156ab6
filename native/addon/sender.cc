// SPDX-License-Identifier: MIT
#include "sender.h"

#include <cerrno>
#include <cstring>

#include "environment.h"
#include "message_format.h"
#include "pull.h"

namespace rpal_addon {
namespace {

// The long payload of a call, given as call()'s argument.
struct Bulk {
  napi_value value = nullptr;
  void* data = nullptr;
  size_t length = 0;

  bool Read(napi_env env, napi_callback_info info) {
    size_t count = 1;
    if (napi_get_cb_info(env, info, &count, &value, nullptr, nullptr) != napi_ok) return false;
    napi_typedarray_type type;
    return count == 1 &&
           napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) ==
               napi_ok &&
           type == napi_uint8_array && length <= UINT32_MAX;
  }
};

void CountKernelHelp(Environment* self, CalledConnection& connection) {
  struct rpal_counters now;
  if (rpal_counters(&now) < 0) return;
  connection.hand_backs += now.handed_back - self->counters.handed_back;
  connection.waits += now.waits - self->counters.waits;
  self->counters = now;
}

CalledConnection* ConnectionAt(Environment* self, uint32_t index) {
  return index < self->called.size() ? self->called[index].get() : nullptr;
}

int Ending(void* environment) { return static_cast<Environment*>(environment)->Ending(); }

// openSender(): makes this thread a sender. Its thread id or a negative errno.
Napi::Value OpenSender(const Napi::CallbackInfo& info) {
  int result = rpal_open();
  if (result >= 0) result = Enable();
  if (result >= 0) result = rpal_attach(RPAL_ROLE_SENDER);
  if (result >= 0) result = rpal_interruptible(Ending, Environment::Of(info.Env()));
  if (result >= 0) result = static_cast<int>(rpal_tid());
  return Napi::Number::New(info.Env(), result);
}

// linkServer(key, receiver, cookie, maxPayload): the connection's index, or a negative errno;
// -ENOTCONN: the other side has not asked for us.
Napi::Value LinkServer(const Napi::CallbackInfo& info) {
  bool exact = true;
  auto connection = std::make_unique<CalledConnection>();
  int error = connection->peer.Request(info[0].As<Napi::BigInt>().Uint64Value(&exact));
  const uint32_t tid = info[1].As<Napi::Number>().Uint32Value();
  connection->cookie = info[2].As<Napi::BigInt>().Uint64Value(&exact);
  connection->max_payload = info[3].As<Napi::Number>().Uint32Value();
  const rpal_peer& peer = connection->peer.peer();
  if (error == 0 && !peer.linked) error = -ENOTCONN;
  if (error == 0 && RPAL_TID_SERVICE(tid) != peer.id) error = -EINVAL;
  if (error == 0) error = rpal_target_init(&connection->target, tid, peer.pkey);
  if (error < 0) return Napi::Number::New(info.Env(), error);
  auto& all = Environment::Of(info.Env())->called;
  return Napi::Number::New(info.Env(), Place(all, std::move(connection)));
}

// unlinkServer(index)
Napi::Value UnlinkServer(const Napi::CallbackInfo& info) {
  auto& all = Environment::Of(info.Env())->called;
  const uint32_t index = info[0].As<Napi::Number>().Uint32Value();
  if (index < all.size()) all[index].reset();
  return info.Env().Undefined();
}

// kernelHelp(index): [handBacks, waits] of a connection.
Napi::Value KernelHelp(const Napi::CallbackInfo& info) {
  const CalledConnection* connection =
      ConnectionAt(Environment::Of(info.Env()), info[0].As<Napi::Number>().Uint32Value());
  auto result = Napi::Array::New(info.Env(), 2);
  result.Set(0u, connection == nullptr ? 0.0 : static_cast<double>(connection->hand_backs));
  result.Set(1u, connection == nullptr ? 0.0 : static_cast<double>(connection->waits));
  return result;
}

}  // namespace

napi_value Call(napi_env env, napi_callback_info info) {
  Environment* self = Environment::Of(env);
  const auto& request = self->exchange->request;
  auto& reply = self->exchange->reply;
  CalledConnection* connection = ConnectionAt(self, request.connection);
  if (connection == nullptr) {
    reply.status = -EOWNERDEAD;
    return nullptr;
  }

  rpal_message message;
  Bulk bulk;
  message.word[0] = connection->cookie;
  if (request.flags & RPAL_REQUEST_BULK) {
    if (!bulk.Read(env, info)) {
      reply.status = -EINVAL;
      return nullptr;
    }
    message.word[1] = rpal_request_word(request.method, request.flags, 0, request.id);
    message.word[2] = reinterpret_cast<uint64_t>(bulk.data);
    message.word[3] = bulk.length;
    message.word[4] = message.word[5] = 0;
  } else {
    message.word[1] = rpal_request_word(request.method, request.flags, request.length, request.id);
    std::memcpy(&message.word[2], request.bytes, RPAL_INLINE_BYTES);
  }

  const int status = request.flags & RPAL_REQUEST_SYNC
                         ? rpal_call(&connection->target, &message, request.timeout)
                         : rpal_post(&connection->target, &message, request.timeout);
  CountKernelHelp(self, *connection);
  reply.status = status;
  if (status < 0) {
    // It may still be read: keep it until that is over.
    if (bulk.value != nullptr && (status == -ETIMEDOUT || status == -EINPROGRESS)) {
      Reference payload;
      if (payload.Set(env, bulk.value)) connection->abandoned.push_back(std::move(payload));
    }
    return nullptr;
  }
  if (!connection->abandoned.empty()) connection->abandoned.clear();

  reply.form = rpal_reply_form(message.word[0]);
  reply.kind = rpal_reply_kind(message.word[0]);
  reply.length = rpal_reply_length(message.word[0]);
  if (reply.form != RPAL_REPLY_BULK) {
    std::memcpy(reply.bytes, &message.word[2], RPAL_INLINE_BYTES);
    return nullptr;
  }
  napi_value payload = nullptr;
  if (int error = Pull(env, connection->peer.peer(), message.word[2], message.word[1],
                       connection->max_payload, &payload);
      error < 0) {
    reply.status = error;
    return nullptr;
  }
  return payload;
}

void ExportSender(Napi::Env env, Napi::Object exports) {
  exports.Set("openSender", Napi::Function::New(env, OpenSender));
  exports.Set("linkServer", Napi::Function::New(env, LinkServer));
  exports.Set("unlinkServer", Napi::Function::New(env, UnlinkServer));
  exports.Set("kernelHelp", Napi::Function::New(env, KernelHelp));
  napi_value call;
  if (napi_create_function(env, "call", NAPI_AUTO_LENGTH, Call, nullptr, &call) == napi_ok) {
    exports.Set("call", Napi::Value(env, call));
  }
}

}  // namespace rpal_addon
