// SPDX-License-Identifier: MIT
#ifndef RPAL_ADDON_SOCKET_H
#define RPAL_ADDON_SOCKET_H

#include <napi.h>

namespace rpal_addon {

// Adds what JavaScript cannot do by itself: to wait for a descriptor without the event loop.
void ExportSocket(Napi::Env env, Napi::Object exports);

}  // namespace rpal_addon

#endif
