/**
 * Ends this process in an orderly way when it is told to: exit handlers run, so no guest is left
 * behind.
 */
export function endOnSignals(): void {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.on(signal, () => {
      process.exit(status);
    });
  }
}
