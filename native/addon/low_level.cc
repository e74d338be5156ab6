// SPDX-License-Identifier: MIT
#include "low_level.h"

#include <rpal.h>
#include <sys/epoll.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace rpal_addon {
namespace {

Napi::Value Result(const Napi::CallbackInfo& info, int result) {
  return Napi::Number::New(info.Env(), result);
}

uint32_t Uint32(const Napi::Value& value) { return value.As<Napi::Number>().Uint32Value(); }
int Int32(const Napi::Value& value) { return value.As<Napi::Number>().Int32Value(); }

uint64_t Uint64(const Napi::Value& value) {
  bool exact = true;
  return value.As<Napi::BigInt>().Uint64Value(&exact);
}

// The six words of a message in a BigUint64Array of at least that length.
rpal_message* Message(const Napi::Value& value) {
  return reinterpret_cast<rpal_message*>(value.As<Napi::BigUint64Array>().Data());
}

Napi::Object Describe(Napi::Env env, const rpal_info& service) {
  auto object = Napi::Object::New(env);
  object.Set("abi", service.abi);
  object.Set("caps", static_cast<double>(service.caps));
  object.Set("id", service.id);
  object.Set("pkey", service.pkey);
  object.Set("key", Napi::BigInt::New(env, static_cast<uint64_t>(service.key)));
  object.Set("slotStart", Napi::BigInt::New(env, static_cast<uint64_t>(service.slot_start)));
  object.Set("slotEnd", Napi::BigInt::New(env, static_cast<uint64_t>(service.slot_end)));
  object.Set("tickLimit", service.tick_limit_ms);
  return object;
}

// probe(): what the kernel offers, or a negative errno.
Napi::Value Probe(const Napi::CallbackInfo& info) {
  rpal_info kernel{};
  const int error = rpal_probe(&kernel);
  return error < 0 ? Result(info, error) : Describe(info.Env(), kernel);
}

// service(): this service, or undefined.
Napi::Value Service(const Napi::CallbackInfo& info) {
  const rpal_info* service = rpal_service();
  return service == nullptr ? info.Env().Undefined() : Describe(info.Env(), *service);
}

Napi::Value Open(const Napi::CallbackInfo& info) { return Result(info, rpal_open()); }
Napi::Value Enable(const Napi::CallbackInfo& info) {
  return Result(info, rpal_enable(Uint64(info[0])));
}
Napi::Value Disable(const Napi::CallbackInfo& info) { return Result(info, rpal_disable()); }

Napi::Value PeerRequest(const Napi::CallbackInfo& info) {
  rpal_peer peer{};
  const int error = rpal_peer_request(Uint64(info[0]), &peer);
  if (error < 0) return Result(info, error);
  auto object = Napi::Object::New(info.Env());
  object.Set("id", peer.id);
  object.Set("pkey", peer.pkey);
  object.Set("meta", Napi::BigInt::New(info.Env(), static_cast<uint64_t>(peer.meta)));
  object.Set("linked", peer.linked != 0);
  return object;
}

Napi::Value PeerRelease(const Napi::CallbackInfo& info) {
  return Result(info, rpal_peer_release(Uint32(info[0])));
}
Napi::Value Attach(const Napi::CallbackInfo& info) {
  const int error = rpal_attach(Uint32(info[0]));
  return Result(info, error < 0 ? error : static_cast<int>(rpal_tid()));
}
Napi::Value Detach(const Napi::CallbackInfo& info) { return Result(info, rpal_detach()); }

// rpalCall(tid, pkey, words, timeout)
Napi::Value RpalCall(const Napi::CallbackInfo& info) {
  rpal_target target{};
  const int error = rpal_target_init(&target, Uint32(info[0]), Uint32(info[1]));
  if (error < 0) return Result(info, error);
  // The words lie in memory that JavaScript can move: the call gets its own.
  rpal_message message = *Message(info[2]);
  const int status = rpal_call(&target, &message, Int32(info[3]));
  *Message(info[2]) = message;
  return Result(info, status);
}

// rpalEpollWait(epfd, maxEvents, timeout): [data, events, …] or a negative errno.
Napi::Value RpalEpollWait(const Napi::CallbackInfo& info) {
  std::vector<epoll_event> events(Uint32(info[1]));
  const int count = rpal_epoll_wait(Int32(info[0]), events.data(), static_cast<int>(events.size()),
                                    Int32(info[2]));
  if (count < 0) return Result(info, -errno);
  auto result = Napi::Array::New(info.Env(), 2 * count);
  for (int i = 0; i < count; ++i) {
    result.Set(2 * i, events[i].data.fd);
    result.Set(2 * i + 1, events[i].events);
  }
  return result;
}

// rpalTake(words): the caller's thread id, 0 if it is unknown, -1 if there is no call.
Napi::Value RpalTake(const Napi::CallbackInfo& info) {
  uint32_t caller = 0;
  return Result(info, rpal_take(Message(info[0]), &caller) == 1 ? static_cast<int>(caller) : -1);
}

// rpalReply(status, words)
Napi::Value RpalReply(const Napi::CallbackInfo& info) {
  return Result(info, rpal_reply(Int32(info[0]), Message(info[1])));
}

// epollCreate(): a new epoll descriptor.
Napi::Value EpollCreate(const Napi::CallbackInfo& info) {
  const int descriptor = epoll_create1(EPOLL_CLOEXEC);
  return Result(info, descriptor < 0 ? -errno : descriptor);
}

Napi::Value Counters(const Napi::CallbackInfo& info) {
  struct rpal_counters counters{};
  const int error = rpal_counters(&counters);
  if (error < 0) return Result(info, error);
  auto object = Napi::Object::New(info.Env());
  object.Set("calls", static_cast<double>(counters.calls));
  object.Set("handedBack", static_cast<double>(counters.handed_back));
  object.Set("retries", static_cast<double>(counters.retries));
  object.Set("waits", static_cast<double>(counters.waits));
  object.Set("served", static_cast<double>(counters.served));
  object.Set("parks", static_cast<double>(counters.parks));
  return object;
}

}  // namespace

void ExportLowLevel(Napi::Env env, Napi::Object exports) {
  exports.Set("probe", Napi::Function::New(env, Probe));
  exports.Set("service", Napi::Function::New(env, Service));
  exports.Set("open", Napi::Function::New(env, Open));
  exports.Set("enable", Napi::Function::New(env, Enable));
  exports.Set("disable", Napi::Function::New(env, Disable));
  exports.Set("peerRequest", Napi::Function::New(env, PeerRequest));
  exports.Set("peerRelease", Napi::Function::New(env, PeerRelease));
  exports.Set("attach", Napi::Function::New(env, Attach));
  exports.Set("detach", Napi::Function::New(env, Detach));
  exports.Set("rpalCall", Napi::Function::New(env, RpalCall));
  exports.Set("rpalEpollWait", Napi::Function::New(env, RpalEpollWait));
  exports.Set("rpalTake", Napi::Function::New(env, RpalTake));
  exports.Set("rpalReply", Napi::Function::New(env, RpalReply));
  exports.Set("epollCreate", Napi::Function::New(env, EpollCreate));
  exports.Set("counters", Napi::Function::New(env, Counters));
}

}  // namespace rpal_addon
