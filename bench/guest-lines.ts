import { Failure } from '../vm/failure.js';
import { guestEnvironment } from '../vm/guest-environment.js';
import { failureOf, type Guest } from '../vm/guest.js';
import { repository } from '../vm/repository.js';

/** Runs a part of a benchmark in the guest, line by line. Throws if it failed in any way. */
export async function linesOf(
  guest: Guest,
  argv: string[],
  timeout: number,
  onLine: (line: string) => void,
): Promise<void> {
  let rest = '';
  const result = await guest.run(
    { argv, cwd: repository, env: guestEnvironment(process.env) },
    {
      onStdout: (bytes) => {
        const lines = (rest + bytes.toString()).split('\n');
        rest = lines.pop() ?? '';
        lines.forEach(onLine);
      },
      onStderr: (bytes) => process.stderr.write(bytes),
    },
    timeout,
  );
  const failure = failureOf(result);
  if (failure !== undefined) {
    process.stderr.write(`--- kernel log\n${result.kernelLog.trimEnd()}\n---\n`);
    throw new Failure(failure.message, failure.status);
  }
  if (result.outcome.kind !== 'exited' || result.outcome.status !== 0) {
    throw new Failure('A benchmark failed; what it said is above. There is no result.');
  }
}
