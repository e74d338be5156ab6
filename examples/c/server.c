// SPDX-License-Identifier: MIT
/*
 * An epoll server that can be called: besides connections it gets messages of
 * 32 bytes by RPAL, and answers each with the same words, inverted.
 *
 *	rpal run -- ./server /tmp/sample.sock
 */
#include "greet.h"

enum { A_CALL, A_CONNECTION };

int main(int argc, char **argv)
{
	struct epoll_event call = { .events = EPOLLIN, .data.u64 = A_CALL };
	struct epoll_event connection = {
		.events = EPOLLIN,
		.data.u64 = A_CONNECTION,
	};
	struct sockaddr_un address = address_of(argc > 1 ? argv[1] : "sample.sock");
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	check("rpal_open", rpal_open());
	check("rpal_enable", rpal_enable(0));
	check("rpal_attach", rpal_attach(RPAL_ROLE_RECEIVER));
	check("rpal_call_event", rpal_call_event(&call));

	unlink(address.sun_path);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 16) ||
	    epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &connection))
		check(address.sun_path, -errno);

	for (;;) {
		struct epoll_event events[16];
		struct rpal_message message;
		struct rpal_peer peer;
		int n = rpal_epoll_wait(epfd, events, 16, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.u64 == A_CONNECTION) {
				/* The connection stays open as long as the peer. */
				become_peers(accept(listener, NULL, NULL),
					     rpal_tid(), &peer);
				continue;
			}
			while (rpal_take(&message, NULL)) {
				for (int w = 2; w < RPAL_WORDS; w++)
					message.word[w] = ~message.word[w];
				rpal_reply(0, &message);
			}
		}
	}
}
