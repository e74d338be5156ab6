// SPDX-License-Identifier: MIT
#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <rpal.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

namespace rpal_addon {
namespace {

class StringList {
 public:
  explicit StringList(const Napi::Array& array) {
    for (uint32_t i = 0; i < array.Length(); ++i) {
      strings_.push_back(array.Get(i).As<Napi::String>().Utf8Value());
    }
    for (std::string& string : strings_) pointers_.push_back(string.data());
    pointers_.push_back(nullptr);
  }
  char* const* data() const { return pointers_.data(); }

 private:
  std::vector<std::string> strings_;
  std::vector<char*> pointers_;
};

// execService(path, argv, environment): replaces this process by a service. Returns a negative
// errno if that fails.
Napi::Value ExecService(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>();
  const StringList argv(info[1].As<Napi::Array>());
  const StringList environment(info[2].As<Napi::Array>());

  if (int error = rpal_exec_service(); error < 0) return Napi::Number::New(info.Env(), error);
  // An ignored signal and a signal mask outlive execve; Node.js ignores SIGPIPE.
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // libuv marks every descriptor that it was started with as close-on-exec.
  for (int descriptor = 0; descriptor <= 2; ++descriptor) fcntl(descriptor, F_SETFD, 0);
  execve(path.c_str(), argv.data(), environment.data());
  return Napi::Number::New(info.Env(), -errno);
}

int64_t MillisecondsNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// readSocket(descriptor, timeout): the bytes that come first; empty: the other side has ended;
// undefined: none came in time; or a negative errno.
Napi::Value ReadSocket(const Napi::CallbackInfo& info) {
  constexpr size_t kChunk = 65536;
  pollfd descriptor{info[0].As<Napi::Number>().Int32Value(), POLLIN, 0};
  const int timeout = info[1].As<Napi::Number>().Int32Value();
  const int64_t end = timeout < 0 ? 0 : MillisecondsNow() + timeout;
  std::vector<uint8_t> bytes(kChunk);
  for (;;) {
    const int64_t left = timeout < 0 ? -1 : end - MillisecondsNow();
    const int ready =
        poll(&descriptor, 1, timeout < 0 ? -1 : static_cast<int>(left < 0 ? 0 : left));
    if (ready == 0) return info.Env().Undefined();
    if (ready < 0 && errno != EINTR) return Napi::Number::New(info.Env(), -errno);
    if (ready < 0) continue;
    const ssize_t count = read(descriptor.fd, bytes.data(), bytes.size());
    if (count >= 0) return Napi::Buffer<uint8_t>::Copy(info.Env(), bytes.data(), count);
    if (errno == ECONNRESET) return Napi::Buffer<uint8_t>::New(info.Env(), 0);
    if (errno != EINTR && errno != EAGAIN) return Napi::Number::New(info.Env(), -errno);
  }
}

}  // namespace

void ExportProcess(Napi::Env env, Napi::Object exports) {
  exports.Set("execService", Napi::Function::New(env, ExecService));
  exports.Set("readSocket", Napi::Function::New(env, ReadSocket));
}

}  // namespace rpal_addon
