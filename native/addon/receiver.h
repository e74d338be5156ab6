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
// From there on JavaScript takes the calls: the dispatch function (lib/receiver.ts) answers one and
// gets the next by next(), until the event loop has something else to do, or for a limited number
// of calls, for those who have work in every turn of the loop. So a call costs one entry into the
// addon, not one from there into JavaScript, which takes thousands of instructions. It waits on a
// second epoll descriptor that watches the loop's, so that it takes no event away from the loop.
//
// It lives until its environment ends. Its handle never keeps the event loop alive: the server's
// socket does, as long as there is one.
class Receiver {
 public:
  // 0 or a negative errno. The thread must be attached as a receiver.
  static int Open(Environment* environment, Napi::Function dispatch);

  // Answers the call that was taken and waits for the next one on behalf of the loop, which is then
  // in the exchange block. Returns its bytes if they are not there. Plain Node-API: the hot path.
  static napi_value Next(napi_env env, napi_callback_info info);

 private:
  Receiver(Environment* environment, uv_loop_t* loop, int descriptor, int outer)
      : environment_(environment), loop_(loop), descriptor_(descriptor), outer_(outer) {}
  ~Receiver();

  // Waits for a call on behalf of the loop. False: the loop has something to do.
  bool Wait();
  // Takes the call that has arrived, if there is one, into the exchange block. False: there is
  // none, or it was answered with an error.
  bool Take(napi_value* payload);
  // 0 or the status of its answer.
  int Accept(const rpal_message& message, uint32_t caller, napi_value* payload);
  // Answers the call that was taken, with what is in the exchange block.
  void Answer(napi_value payload);
  int Reply(rpal_message* message, napi_value payload);
  static void OnCall(uv_poll_t* handle, int status, int events);
  static void OnCleanUp(napi_async_cleanup_hook_handle hook, void* data);

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
  // Index of the connection whose call was taken and not answered; -1: none.
  int64_t taken_ = -1;
  // Calls until the event loop gets its turn.
  int left_ = 0;
};

// Adds the functions of the receiving side to the addon's exports.
void ExportReceiver(Napi::Env env, Napi::Object exports);

}  // namespace rpal_addon

#endif
