// SPDX-License-Identifier: MIT
#include "peers.h"

#include <cerrno>
#include <mutex>
#include <unordered_map>

namespace rpal_addon {
namespace {

struct Links {
  std::mutex mutex;
  std::unordered_map<uint32_t, unsigned> uses;  // by service id
};

// Never destroyed: threads may still use it while the process exits.
Links& links() {
  static Links& all = *new Links;
  return all;
}

}  // namespace

int Enable() {
  const int error = rpal_enable(0);
  return error == -EALREADY ? 0 : error;
}

int PeerUse::Request(uint64_t key) {
  std::lock_guard lock(links().mutex);
  rpal_peer answer{};
  if (int error = rpal_peer_request(key, &answer); error < 0) return error;
  peer_ = answer;
  if (!used_) ++links().uses[peer_.id];
  used_ = true;
  return 0;
}

PeerUse::~PeerUse() {
  if (!used_) return;
  std::lock_guard lock(links().mutex);
  auto use = links().uses.find(peer_.id);
  if (use == links().uses.end() || --use->second > 0) return;
  links().uses.erase(use);
  rpal_peer_release(peer_.id);
}

}  // namespace rpal_addon
