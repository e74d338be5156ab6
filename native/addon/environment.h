// SPDX-License-Identifier: MIT
// What the addon keeps for one JavaScript thread. Made when the addon is loaded there, freed by the
// environment's clean-up hook.
#ifndef RPAL_ADDON_ENVIRONMENT_H
#define RPAL_ADDON_ENVIRONMENT_H

#include <node_api.h>
#include <rpal.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "exchange.h"
#include "peers.h"

namespace rpal_addon {

// A strong reference to a JavaScript value.
class Reference {
 public:
  Reference() = default;
  ~Reference() { Reset(); }
  Reference(Reference&& other) noexcept : env_(other.env_), reference_(other.reference_) {
    other.reference_ = nullptr;
  }
  Reference& operator=(Reference&& other) noexcept {
    std::swap(env_, other.env_);
    std::swap(reference_, other.reference_);
    return *this;
  }

  bool Set(napi_env env, napi_value value) {
    Reset();
    env_ = env;
    return napi_create_reference(env, value, 1, &reference_) == napi_ok;
  }
  void Reset() {
    if (reference_ != nullptr) napi_delete_reference(env_, reference_);
    reference_ = nullptr;
  }
  napi_value Get() const {
    napi_value value = nullptr;
    if (reference_ != nullptr) napi_get_reference_value(env_, reference_, &value);
    return value;
  }

 private:
  napi_env env_ = nullptr;
  napi_ref reference_ = nullptr;
};

// A connection to a receiver that this thread calls.
struct CalledConnection {
  PeerUse peer;
  rpal_target target{};
  uint64_t cookie = 0;
  uint32_t max_payload = 0;
  // Long payloads of calls that were given up: the receiver may still read them.
  std::vector<Reference> abandoned;
  uint64_t hand_backs = 0;
  uint64_t waits = 0;
};

// A connection from a sender that calls this thread.
struct ServedConnection {
  PeerUse peer;
  uint64_t cookie = 0;
  uint32_t max_payload = 0;
  // A long reply, until the next call.
  Reference reply;
};

class Receiver;

struct Environment {
  explicit Environment(napi_env node_env);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  static Environment* Of(napi_env env) {
    void* data = nullptr;
    napi_get_instance_data(env, &data);
    return static_cast<Environment*>(data);
  }

  // The thread shall end (worker.terminate(), process.exit() elsewhere): JavaScript does not run
  // here any more. In a call from JavaScript only.
  bool Ending() const;

  const napi_env env;
  // The memory of `exchange_buffer`.
  Exchange* exchange = nullptr;
  Reference exchange_buffer;
  struct rpal_counters counters{};
  std::vector<std::unique_ptr<CalledConnection>> called;
  std::vector<std::unique_ptr<ServedConnection>> served;
  // Owned by the event loop, see receiver.h.
  Receiver* receiver = nullptr;
};

// Puts a connection into the first free place and returns its index.
template <typename Connection>
uint32_t Place(std::vector<std::unique_ptr<Connection>>& all, std::unique_ptr<Connection> one) {
  for (uint32_t index = 0; index < all.size(); ++index) {
    if (all[index] == nullptr) {
      all[index] = std::move(one);
      return index;
    }
  }
  all.push_back(std::move(one));
  return static_cast<uint32_t>(all.size() - 1);
}

}  // namespace rpal_addon

#endif
