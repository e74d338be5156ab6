// SPDX-License-Identifier: MIT
#ifndef RPAL_ADDON_PROCESS_H
#define RPAL_ADDON_PROCESS_H

#include <napi.h>

namespace rpal_addon {

// Adds what JavaScript cannot do by itself: execve(2) as a service, and to wait for a descriptor
// without the event loop.
void ExportProcess(Napi::Env env, Napi::Object exports);

}  // namespace rpal_addon

#endif
