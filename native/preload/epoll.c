/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into a service, this makes its event loop an RPAL receiver without a change to the
 * loop: epoll_wait() and epoll_pwait() on a descriptor that the thread has named with
 * rpal_preload_watch() become rpal_epoll_wait(). Everything else goes to the kernel as before, so
 * threads that are no receivers, and processes that are no services, notice nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <rpal.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct watch {
  int epfd;
  bool set;
  /* librpal calls epoll_wait() itself, which is this file's. */
  bool inside;
};

static __thread struct watch watch __attribute__((tls_model("initial-exec")));

/*
 * rpal_preload_watch - name the epoll descriptor on which the calling thread waits for calls
 * @epfd: -1: none any more
 * Return: 0; -EPERM the thread is no receiver.
 */
EXPORT int rpal_preload_watch(int epfd) {
  if (epfd >= 0 && !rpal_tid()) return -EPERM;
  watch.epfd = epfd;
  watch.set = epfd >= 0;
  return 0;
}

/*
 * With a mask the wait and the change of the mask must be one step: only the kernel can. But
 * libuv's own, if a profiler runs, does nothing except to save it wake-ups: SIGPROF does no harm.
 */
static bool is_needed(const sigset_t* mask) {
  sigset_t profiler;

  if (__builtin_expect(!mask, 1)) return false;
  sigemptyset(&profiler);
  sigaddset(&profiler, SIGPROF);
  return memcmp(mask, &profiler, _NSIG / 8) != 0;
}

EXPORT int epoll_pwait(int epfd, struct epoll_event* events, int maxevents, int timeout,
                       const sigset_t* mask) {
  int count;

  if (__builtin_expect(!watch.set || watch.inside || epfd != watch.epfd || is_needed(mask), 0))
    return syscall(SYS_epoll_pwait, epfd, events, maxevents, timeout, mask, _NSIG / 8);
  watch.inside = true;
  count = rpal_epoll_wait(epfd, events, maxevents, timeout);
  watch.inside = false;
  return count;
}

EXPORT int epoll_wait(int epfd, struct epoll_event* events, int maxevents, int timeout) {
  return epoll_pwait(epfd, events, maxevents, timeout, NULL);
}

/*
 * Children of a service are no services, and may not even see this file: take it out of
 * LD_PRELOAD, where rpal run has put it first.
 */
static __attribute__((constructor)) void leave_environment(void) {
  const char* ours = getenv("RPAL_PRELOAD");
  const char* all = getenv("LD_PRELOAD");
  size_t length;

  if (!ours || !all) return;
  length = strlen(ours);
  if (strncmp(all, ours, length)) return;
  if (all[length] == ':')
    setenv("LD_PRELOAD", all + length + 1, 1);
  else if (!all[length])
    unsetenv("LD_PRELOAD");
  unsetenv("RPAL_PRELOAD");
}
