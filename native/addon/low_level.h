// SPDX-License-Identifier: MIT
#ifndef RPAL_ADDON_LOW_LEVEL_H
#define RPAL_ADDON_LOW_LEVEL_H

#include <napi.h>

namespace rpal_addon {

// Adds librpal's functions, one to one, to the addon's exports. lib/low-level.ts documents them.
void ExportLowLevel(Napi::Env env, Napi::Object exports);

}  // namespace rpal_addon

#endif
