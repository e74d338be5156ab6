// SPDX-License-Identifier: MIT
/*
 * Sends a million messages of 32 bytes to the server and verifies each answer.
 *
 *	rpal run -- ./client /tmp/sample.sock
 */
#include "greet.h"

int main(int argc, char **argv)
{
	struct sockaddr_un address = address_of(argc > 1 ? argv[1] : "sample.sock");
	long messages = argc > 2 ? atol(argv[2]) : MESSAGES, wrong = 0;
	int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct rpal_counters counters;
	struct rpal_target target;
	struct rpal_peer peer;
	uint32_t tid;

	check("rpal_open", rpal_open());
	check("rpal_enable", rpal_enable(0));
	check("rpal_attach", rpal_attach(RPAL_ROLE_SENDER));
	if (connect(connection, (struct sockaddr *)&address, sizeof(address)))
		check(address.sun_path, -errno);
	tid = become_peers(connection, 0, &peer);
	check("rpal_target_init", rpal_target_init(&target, tid, peer.pkey));

	for (long i = 0; i < messages; i++) {
		/* Two words of ours, 32 bytes of message. */
		struct rpal_message message = {
			{ 1, 32, i, i * 3, i ^ 0x5a5a, ~i }
		};

		check("rpal_call", rpal_call(&target, &message, -1));
		wrong += message.word[2] != ~(uint64_t)i ||
			 message.word[3] != ~(uint64_t)(i * 3) ||
			 message.word[4] != ~(uint64_t)(i ^ 0x5a5a) ||
			 message.word[5] != (uint64_t)i;
	}
	rpal_counters(&counters);
	printf("%ld messages, %ld wrong; %lu handed back, %lu retried\n",
	       messages, wrong, counters.handed_back, counters.retries);
	return wrong != 0;
}
