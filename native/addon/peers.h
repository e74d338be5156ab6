// SPDX-License-Identifier: MIT
// The services that this process is linked with. Links belong to the process and connections to
// threads, so this is the addon's only state outside of an environment: it counts the connections
// of each link and releases the link with the last one.
#ifndef RPAL_ADDON_PEERS_H
#define RPAL_ADDON_PEERS_H

#include <rpal.h>

#include <cstdint>

namespace rpal_addon {

// Allows others to request this service. 0 or a negative errno; another thread may have done it.
int Enable();

// One connection's share of a link; releases it when it goes.
class PeerUse {
 public:
  PeerUse() = default;
  ~PeerUse();
  PeerUse(const PeerUse&) = delete;
  PeerUse& operator=(const PeerUse&) = delete;

  // Requests the service with this key. 0 or a negative errno. May be repeated: peer().linked then
  // tells whether the other side has asked meanwhile.
  int Request(uint64_t key);

  const rpal_peer& peer() const { return peer_; }

 private:
  rpal_peer peer_{};
  bool used_ = false;
};

}  // namespace rpal_addon

#endif
