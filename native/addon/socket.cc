// SPDX-License-Identifier: MIT
#include "socket.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "environment.h"

namespace rpal_addon {
namespace {

int64_t MillisecondsNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// Longest wait in ms until a thread that shall end notices.
constexpr int64_t kPatience = 1000;

// readSocket(descriptor, timeout): the bytes that come first; empty: the other side has ended;
// undefined: none came in time; or a negative errno; -ECANCELED: this thread shall end.
Napi::Value ReadSocket(const Napi::CallbackInfo& info) {
  constexpr size_t kChunk = 65536;
  const Environment* self = Environment::Of(info.Env());
  pollfd descriptor{info[0].As<Napi::Number>().Int32Value(), POLLIN, 0};
  const int timeout = info[1].As<Napi::Number>().Int32Value();
  const int64_t end = timeout < 0 ? 0 : MillisecondsNow() + timeout;
  std::vector<uint8_t> bytes(kChunk);
  for (;;) {
    const int64_t left = timeout < 0 ? kPatience : std::max<int64_t>(end - MillisecondsNow(), 0);
    const int ready = poll(&descriptor, 1, static_cast<int>(std::min(left, kPatience)));
    if (ready < 0 && errno != EINTR) return Napi::Number::New(info.Env(), -errno);
    if (ready <= 0) {
      if (self->Ending()) return Napi::Number::New(info.Env(), -ECANCELED);
      if (ready == 0 && left < kPatience) return info.Env().Undefined();
      continue;
    }
    const ssize_t count = read(descriptor.fd, bytes.data(), bytes.size());
    if (count >= 0) return Napi::Buffer<uint8_t>::Copy(info.Env(), bytes.data(), count);
    if (errno == ECONNRESET) return Napi::Buffer<uint8_t>::New(info.Env(), 0);
    if (errno != EINTR && errno != EAGAIN) return Napi::Number::New(info.Env(), -errno);
  }
}

}  // namespace

void ExportSocket(Napi::Env env, Napi::Object exports) {
  exports.Set("readSocket", Napi::Function::New(env, ReadSocket));
}

}  // namespace rpal_addon
