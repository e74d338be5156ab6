// SPDX-License-Identifier: MIT
#ifndef RPAL_ADDON_RECEIVER_H
#define RPAL_ADDON_RECEIVER_H

#include <napi.h>
#include <uv.h>

#include "environment.h"

namespace rpal_addon {

// Makes calls appear in the event loop of a JavaScript thread: as readiness of a descriptor that is
// never ready otherwise (an eventfd that nobody writes to). rpal_epoll_wait() reports a call as an
// event of it, libuv calls OnCall(), and that calls the dispatch function in lib/receiver.ts. No
// system call is made on this way.
//
// When a call is answered and the event loop has nothing else to do, the receiver waits for the
// next call by itself instead of going once around the loop. It waits on a second epoll descriptor
// that watches the loop's, so that it takes no event away from the loop. It does so a limited
// number of times, for those who have work in every turn of the loop.
//
// It lives until its environment ends. Its handle never keeps the event loop alive: the server's
// socket does, as long as there is one.
class Receiver {
 public:
  // 0 or a negative errno. The thread must be attached as a receiver.
  static int Open(Environment* environment, Napi::Function dispatch);

 private:
  Receiver(Environment* environment, uv_loop_t* loop, int descriptor, int outer)
      : environment_(environment), loop_(loop), descriptor_(descriptor), outer_(outer) {}
  ~Receiver();

  // Waits for the next call on behalf of the loop. False: the loop has something to do.
  bool WaitForNext(rpal_message* message, uint32_t* caller);
  static void OnCall(uv_poll_t* handle, int status, int events);
  static void OnCleanUp(napi_async_cleanup_hook_handle hook, void* data);
  void Serve(rpal_message* message, uint32_t caller);
  // The status of the reply; fills it if that is 0.
  int Dispatch(rpal_message* message, uint32_t caller);

  Environment* const environment_;
  uv_loop_t* const loop_;
  const int descriptor_;
  // Watches the loop's epoll descriptor.
  const int outer_;
  uv_poll_t poll_{};
  Reference dispatch_;
  Reference resource_;
  napi_async_context context_ = nullptr;
  napi_async_cleanup_hook_handle hook_ = nullptr;
};

// Adds the functions of the receiving side to the addon's exports.
void ExportReceiver(Napi::Env env, Napi::Object exports);

}  // namespace rpal_addon

#endif
