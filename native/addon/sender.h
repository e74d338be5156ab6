// SPDX-License-Identifier: MIT
#ifndef RPAL_ADDON_SENDER_H
#define RPAL_ADDON_SENDER_H

#include <napi.h>

namespace rpal_addon {

// call(payload?): makes the call that the exchange block describes; see exchange.h. Plain Node-API:
// it is the hot path.
napi_value Call(napi_env env, napi_callback_info info);

// Adds the set-up functions of the sending side to the addon's exports.
void ExportSender(Napi::Env env, Napi::Object exports);

}  // namespace rpal_addon

#endif
