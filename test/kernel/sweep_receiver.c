/* guest: icount timeout=600 */
// SPDX-License-Identifier: MIT
/*
 * A signal to the receiver, and its death by SIGKILL, at every instruction of
 * a call that runs on the sender's task.
 *
 * The server sets a timer on itself in one call; the next call comes at a
 * distance that the client measures. After a signal the answer must be right
 * and the handler must have run in the server's own task; after a kill the
 * client gets an answer or -EOWNERDEAD, lives, and can call the next server.
 */
#include "sweep.h"
#include <sched.h>

static volatile sig_atomic_t handled, foreign;
static pid_t server_pid;

static void on_signal(int signal)
{
	signal_time = now_tsc();
	handled++;
	if (getpid() != server_pid || gettid() != server_pid)
		foreign++;
}

/* An extra call tells how many signals were handled, and how. */
static void serve(int signal)
{
	struct sched_param first = { .sched_priority = 1 };

	/* Woken by its signal, it interrupts the client at once. */
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		die("sched_setscheduler", errno);
	server_pid = getpid();
	if (signal != SIGKILL) {
		struct sigaction action = { .sa_handler = on_signal };

		sigaction(signal, &action, NULL);
	}
	serve_adds(signal);
}

static struct side new_server(int signal, pid_t *pid)
{
	char number[16], *args[] = { number };
	struct side side;

	snprintf(number, sizeof(number), "%d", signal);
	side = start_peer("--own-server", 1, args, pid);
	meet_receiver(&side);
	/* Both sides of the call path are warm. */
	for (int i = 0; i < 20; i++)
		MUST(add_once(&side.target, ADD, i));
	return side;
}

struct hit {
	long distance;	/* from arming to the call */
	long signal;	/* from arming to the signal, if one was handled */
	long length;	/* of the call */
	int error;
};

static uint64_t last_signal(const struct rpal_target *target)
{
	struct rpal_message m = { { ADD } };

	return rpal_call(target, &m, -1) ? 0 : m.word[1];
}

static struct hit try_once(const struct rpal_target *target, int kind, long d,
			   unsigned int nops)
{
	struct rpal_message m = { { ARM, d } };
	uint64_t start;
	struct hit hit;

	MUST(rpal_call(target, &m, -1));
	sled(nops);
	start = now_tsc();
	hit.error = add_once(target, kind, d * SLED + nops);
	hit.length = now_tsc() - start;
	hit.distance = start - m.word[0];
	hit.signal = hit.error ? 0 : last_signal(target) - m.word[0];
	return hit;
}

static void end_server(struct side *side, pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(side->socket);
}

/* Where the signals met the call: the kills need not be swept further. */
static long first_inside, last_inside;

static void sweep_signals(int kind, long margin)
{
	struct rpal_counters before, after;
	long wrong = 0, tried = 0, inside = 0;
	struct side side;
	struct hit hit;
	pid_t pid;

	side = new_server(SIGUSR1, &pid);
	/* Far away: how far is the call, undisturbed? */
	for (int i = 0; i < 5; i++)
		hit = try_once(&side.target, kind, 500000000, 0);
	printf("# call at %ld, %ld long\n", hit.distance, hit.length);
	rpal_counters(&before);
	for (long d = hit.distance - margin; d < hit.distance + hit.length + 64;
	     d += 16) {
		for (unsigned int nops = 0; nops < SLED; nops++) {
			struct hit now = try_once(&side.target, kind, d, nops);

			if (now.signal > now.distance &&
			    now.signal < now.distance + now.length) {
				if (!inside++)
					first_inside = d;
				last_inside = d;
			}
			tried++;
			if (now.error && !wrong++)
				printf("# offset %ld+%u: %s\n", d, nops,
				       strerror(-now.error));
		}
	}
	rpal_counters(&after);
	ok(wrong == 0, "kind %d: %ld signals to the receiver, %ld wrong", kind,
	   tried, wrong);
	printf("# handed back %lu, retried %lu\n",
	       after.handed_back - before.handed_back - tried,
	       after.retries - before.retries);
	ok(inside > 100, "%ld fell into the call", inside);
	end_server(&side, pid);
}

static void sweep_kills(int kind)
{
	long wrong = 0, tried = 0, dead = 0, alive = 0;
	struct side side;
	pid_t pid;

	for (long d = first_inside - 64; d <= last_inside + 64; d += 16) {
		for (unsigned int nops = 0; nops < SLED; nops++) {
			struct hit now;
			int error;

			side = new_server(SIGKILL, &pid);
			for (int i = 0; i < 3; i++)
				try_once(&side.target, kind, 500000000, 0);
			now = try_once(&side.target, kind, d, nops);
			tried++;
			dead += now.error == -EOWNERDEAD;
			alive += !now.error;
			if (now.error && now.error != -EOWNERDEAD && !wrong++)
				printf("# offset %ld+%u: %s\n", d, nops,
				       strerror(-now.error));
			waitpid(pid, NULL, 0);
			error = add_once(&side.target, kind, 1);
			if (error != -EOWNERDEAD && !wrong++)
				printf("# offset %ld+%u, later: %s\n", d, nops,
				       strerror(-error));
			close(side.socket);
		}
	}
	ok(wrong == 0, "kind %d: %ld kills of the receiver, %ld wrong", kind,
	   tried, wrong);
	ok(dead && alive, "before (%ld) and after (%ld) the answer", dead,
	   alive);
}

static void server(struct side *side, int argc, char **argv)
{
	pause();
}

static int client(struct side *side, int argc, char **argv)
{
	long margin = argc > 1 ? atol(argv[1]) : 900;

	sweep_signals(SLOW_ADD, margin);
	sweep_signals(ADD, margin);
	sweep_kills(ADD);
	return tap_end();
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "--own-server")) {
		struct side side = become_peers(atoi(argv[2]));

		introduce_receiver(&side, RPAL_ROLE_RECEIVER);
		serve(atoi(argv[3]));
		return 0;
	}
	return two_services(argc, argv, server, client);
}
