// SPDX-License-Identifier: MIT
#include "receiver.h"

#include <dlfcn.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "message_format.h"
#include "pull.h"

namespace rpal_addon {
namespace {

// Tells the shim which epoll descriptor is the event loop's; absent where it is not preloaded.
using Watch = int (*)(int epoll_descriptor);
Watch shim() { return reinterpret_cast<Watch>(dlsym(RTLD_DEFAULT, "rpal_preload_watch")); }

// Calls that are answered before the event loop gets its turn although it seems idle.
constexpr int kCallsPerTurn = 64;

ServedConnection* ConnectionOf(const Environment& self, uint64_t cookie, uint32_t caller) {
  const auto index = static_cast<uint32_t>(cookie);
  if (index >= self.served.size()) return nullptr;
  ServedConnection* connection = self.served[index].get();
  if (connection == nullptr || connection->cookie != cookie) return nullptr;
  // A call that was handed back before it was taken does not show its caller any more.
  const bool other = caller != 0 && RPAL_TID_SERVICE(caller) != connection->peer.peer().id;
  return other ? nullptr : connection;
}

}  // namespace

Receiver::~Receiver() {
  if (context_ != nullptr) napi_async_destroy(environment_->env, context_);
  close(descriptor_);
  close(outer_);
}

int Receiver::Open(Environment* environment, Napi::Function dispatch) {
  const napi_env env = environment->env;
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return -EINVAL;
  const Watch watch = shim();
  if (watch == nullptr) return -ENOEXEC;

  const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) return -errno;
  const int outer = epoll_create1(EPOLL_CLOEXEC);
  if (outer < 0) {
    close(descriptor);
    return -EMFILE;
  }
  auto* self = new Receiver(environment, loop, descriptor, outer);
  napi_value name;
  const auto resource = Napi::Object::New(env);
  if (napi_create_string_utf8(env, "RPAL", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_async_init(env, resource, name, &self->context_) != napi_ok ||
      !self->dispatch_.Set(env, dispatch) || !self->resource_.Set(env, resource) ||
      uv_poll_init(loop, &self->poll_, descriptor) != 0) {
    delete self;
    return -ENOMEM;
  }
  // From here on the loop owns it: OnCleanUp() closes the handle and then deletes it.
  self->poll_.data = self;
  uv_unref(reinterpret_cast<uv_handle_t*>(&self->poll_));
  napi_add_async_cleanup_hook(env, OnCleanUp, self, &self->hook_);
  environment->receiver = self;

  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = uv_backend_fd(loop);
  if (epoll_ctl(outer, EPOLL_CTL_ADD, event.data.fd, &event) != 0) return -errno;
  event.data.fd = descriptor;
  int error = uv_poll_start(&self->poll_, UV_READABLE, OnCall);
  if (error == 0) error = rpal_call_event(&event);
  if (error == 0) error = rpal_epoll_same(outer, uv_backend_fd(loop));
  if (error == 0) error = watch(uv_backend_fd(loop));
  return error;
}

void Receiver::OnCleanUp(napi_async_cleanup_hook_handle hook, void* data) {
  auto* self = static_cast<Receiver*>(data);
  if (const Watch watch = shim(); watch != nullptr) watch(-1);
  rpal_epoll_same(-1, -1);
  self->environment_->receiver = nullptr;
  self->dispatch_.Reset();
  self->resource_.Reset();
  if (self->context_ != nullptr) {
    napi_async_destroy(self->environment_->env, self->context_);
    self->context_ = nullptr;
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&self->poll_), [](uv_handle_t* handle) {
    auto* closed = static_cast<Receiver*>(handle->data);
    napi_async_cleanup_hook_handle done = closed->hook_;
    delete closed;
    napi_remove_async_cleanup_hook(done);
  });
}

void Receiver::OnCall(uv_poll_t* handle, int, int) {
  auto* self = static_cast<Receiver*>(handle->data);
  const napi_env env = self->environment_->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value payload = nullptr;
  // The descriptor itself is not read: this event was made by librpal.
  if (self->Take(&payload)) {
    self->left_ = kCallsPerTurn;
    if (napi_make_callback(env, self->context_, self->resource_.Get(), self->dispatch_.Get(),
                           payload != nullptr, &payload, nullptr) != napi_ok) {
      // The dispatch function catches what handlers and their microtasks throw: this is the end of
      // the environment.
      bool pending = false;
      napi_value error;
      if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
          napi_get_and_clear_last_exception(env, &error) == napi_ok) {
        napi_fatal_exception(env, error);
      }
    }
    if (self->taken_ >= 0) rpal_reply(-ECANCELED, nullptr);
    self->taken_ = -1;
  }
  napi_close_handle_scope(env, scope);
}

napi_value Receiver::Next(napi_env env, napi_callback_info info) {
  Environment* environment = Environment::Of(env);
  Receiver* self = environment->receiver;
  environment->exchange->served_request.present = 0;
  if (self == nullptr) return nullptr;
  napi_value payload = nullptr;
  size_t count = 1;
  if (environment->exchange->served_reply.form == RPAL_REPLY_BULK) {
    napi_get_cb_info(env, info, &count, &payload, nullptr, nullptr);
  }
  if (self->taken_ >= 0) self->Answer(payload);
  payload = nullptr;
  while (--self->left_ >= 0 && self->Wait()) {
    if (self->Take(&payload)) return payload;
  }
  return nullptr;
}

bool Receiver::Wait() {
  if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&poll_))) return false;
  int timeout = uv_backend_timeout(loop_);
  if (timeout > 0) {
    // Since the loop has looked at the clock, the handler has taken its time.
    uv_update_time(loop_);
    timeout = uv_backend_timeout(loop_);
  }
  if (timeout == 0) return false;
  epoll_event event;
  return rpal_epoll_wait(outer_, &event, 1, timeout) == 1 && event.data.fd == descriptor_;
}

bool Receiver::Take(napi_value* payload) {
  rpal_message message;
  uint32_t caller;
  if (rpal_take(&message, &caller) != 1) return false;
  // Timers that the handler starts count from now.
  uv_update_time(loop_);
  const int status = Accept(message, caller, payload);
  if (status == 0) return true;
  rpal_reply(status, nullptr);
  return false;
}

int Receiver::Accept(const rpal_message& message, uint32_t caller, napi_value* payload) {
  auto& request = environment_->exchange->served_request;
  ServedConnection* connection = ConnectionOf(*environment_, message.word[0], caller);
  if (connection == nullptr) return -EBADMSG;
  connection->reply.Reset();
  request.connection = static_cast<uint32_t>(message.word[0]);
  request.method = rpal_request_method(message.word[1]);
  request.flags = rpal_request_flags(message.word[1]);
  request.id = rpal_request_id(message.word[1]);
  request.length = rpal_request_length(message.word[1]);
  if (request.flags & RPAL_REQUEST_BULK) {
    if (int error = Pull(environment_->env, connection->peer.peer(), message.word[2],
                         message.word[3], connection->max_payload, payload);
        error < 0) {
      return error;
    }
  } else {
    if (request.length > RPAL_INLINE_BYTES) return -EBADMSG;
    std::memcpy(request.bytes, &message.word[2], RPAL_INLINE_BYTES);
  }
  request.present = 1;
  taken_ = request.connection;
  return 0;
}

void Receiver::Answer(napi_value payload) {
  rpal_message message;
  const int status = Reply(&message, payload);
  taken_ = -1;
  rpal_reply(status, status == 0 ? &message : nullptr);
}

int Receiver::Reply(rpal_message* message, napi_value payload) {
  const auto& reply = environment_->exchange->served_reply;
  if (reply.form != RPAL_REPLY_BULK) {
    message->word[0] = rpal_reply_word(reply.form, reply.kind, reply.length);
    message->word[1] = 0;
    std::memcpy(&message->word[2], reply.bytes, RPAL_INLINE_BYTES);
    return 0;
  }
  // Handlers can close connections.
  const auto index = static_cast<size_t>(taken_);
  ServedConnection* connection =
      index < environment_->served.size() ? environment_->served[index].get() : nullptr;
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (connection == nullptr ||
      napi_get_typedarray_info(environment_->env, payload, &type, &length, &data, nullptr,
                               nullptr) != napi_ok ||
      !connection->reply.Set(environment_->env, payload)) {
    return -ECANCELED;
  }
  *message = {};
  message->word[0] = rpal_reply_word(reply.form, reply.kind, 0);
  message->word[1] = length;
  message->word[2] = reinterpret_cast<uint64_t>(data);
  return 0;
}

namespace {

// openReceiver(dispatch): makes this thread a receiver. Its thread id or a negative errno;
// -ENOEXEC: the shim is not loaded.
Napi::Value OpenReceiver(const Napi::CallbackInfo& info) {
  Environment* self = Environment::Of(info.Env());
  int result = rpal_open();
  if (result >= 0) result = Enable();
  if (result >= 0 && shim() == nullptr) result = -ENOEXEC;
  if (result >= 0) result = rpal_attach(RPAL_ROLE_RECEIVER);
  if (result >= 0 && self->receiver == nullptr) {
    result = Receiver::Open(self, info[0].As<Napi::Function>());
  }
  if (result >= 0) result = static_cast<int>(rpal_tid());
  return Napi::Number::New(info.Env(), result);
}

// reportUncaught(error): as if nobody had caught it.
Napi::Value ReportUncaught(const Napi::CallbackInfo& info) {
  napi_fatal_exception(info.Env(), info[0]);
  return info.Env().Undefined();
}

// linkClient(key, maxPayload): the connection's cookie, or a negative errno as a number.
Napi::Value LinkClient(const Napi::CallbackInfo& info) {
  bool exact = true;
  auto connection = std::make_unique<ServedConnection>();
  int error = connection->peer.Request(info[0].As<Napi::BigInt>().Uint64Value(&exact));
  uint32_t random = 0;
  if (error == 0 && getrandom(&random, sizeof(random), 0) != sizeof(random)) error = -EIO;
  if (error < 0) return Napi::Number::New(info.Env(), error);
  connection->max_payload = info[1].As<Napi::Number>().Uint32Value();
  auto& all = Environment::Of(info.Env())->served;
  const uint32_t index = Place(all, std::move(connection));
  all[index]->cookie = static_cast<uint64_t>(random) << 32 | index;
  return Napi::BigInt::New(info.Env(), all[index]->cookie);
}

// clientLinked(index, key): has the client requested us, too?
Napi::Value ClientLinked(const Napi::CallbackInfo& info) {
  bool exact = true;
  auto& all = Environment::Of(info.Env())->served;
  const uint32_t index = info[0].As<Napi::Number>().Uint32Value();
  const bool linked =
      index < all.size() && all[index] != nullptr &&
      all[index]->peer.Request(info[1].As<Napi::BigInt>().Uint64Value(&exact)) == 0 &&
      all[index]->peer.peer().linked;
  return Napi::Boolean::New(info.Env(), linked);
}

// unlinkClient(index)
Napi::Value UnlinkClient(const Napi::CallbackInfo& info) {
  auto& all = Environment::Of(info.Env())->served;
  const uint32_t index = info[0].As<Napi::Number>().Uint32Value();
  if (index < all.size()) all[index].reset();
  return info.Env().Undefined();
}

}  // namespace

void ExportReceiver(Napi::Env env, Napi::Object exports) {
  exports.Set("openReceiver", Napi::Function::New(env, OpenReceiver));
  exports.Set("reportUncaught", Napi::Function::New(env, ReportUncaught));
  napi_value next;
  if (napi_create_function(env, "next", NAPI_AUTO_LENGTH, Receiver::Next, nullptr, &next) ==
      napi_ok) {
    exports.Set("next", Napi::Value(env, next));
  }
  exports.Set("linkClient", Napi::Function::New(env, LinkClient));
  exports.Set("clientLinked", Napi::Function::New(env, ClientLinked));
  exports.Set("unlinkClient", Napi::Function::New(env, UnlinkClient));
}

}  // namespace rpal_addon
