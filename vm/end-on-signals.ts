/** A person, or the system, wants this process to end: what runs in it stops when this aborts. */
const interruption = new AbortController();
let unwinding = 0;
let status = 0;

/**
 * Ends this process in an orderly way when it is told to. Work under `stoppable` is stopped and
 * unwinds, so that it can remove what it has not finished; otherwise, and when told twice, the
 * process ends at once. Exit handlers run in either case, so no guest is left behind.
 */
export function endOnSignals(): void {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.on(signal, () => {
      if (unwinding === 0 || interruption.signal.aborted) process.exit(code);
      status = code;
      interruption.abort();
    });
  }
}

/** Does work that ends soon, and by an exception, once the signal it gets has aborted. */
export async function stoppable<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  unwinding++;
  try {
    return await work(interruption.signal);
  } finally {
    unwinding--;
  }
}

/** Exit status for the signal that ends this process; undefined if none did. */
export function interruptedWith(): number | undefined {
  return interruption.signal.aborted ? status : undefined;
}
