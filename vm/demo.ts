import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { summarize } from '../bench/percentiles.js';
import type { MeasuredResult } from '../bench/result.js';
import { buildTypeScript } from './build.js';
import { endOnSignals } from './end-on-signals.js';
import { Failure, runMain } from './failure.js';
import { guestEnvironment } from './guest-environment.js';
import { defaultGuest, failureOf, Guest } from './guest.js';
import { buildNative } from './native-build.js';
import { inRepository, repository } from './repository.js';

/** Messages of each measure: enough for the just-in-time compiler, and done within a minute. */
const messages = 10_000;

/** Starts the example's two services and shows what they say. */
const example = `
bin/rpal run -- node examples/sidecar/sidecar.js &
while [ ! -S /tmp/rpal-example.sock ]; do sleep 0.1; kill -0 $! || exit 1; done
bin/rpal run -- node examples/sidecar/app.js
status=$?
kill $!
exit $status
`;

async function run(guest: Guest, argv: string[], onStdout: (text: string) => void): Promise<void> {
  const result = await guest.run(
    { argv, cwd: repository, env: guestEnvironment(process.env) },
    {
      onStdout: (bytes) => {
        onStdout(bytes.toString());
      },
      onStderr: (bytes) => process.stderr.write(bytes),
    },
    600,
  );
  const failure = failureOf(result);
  if (failure) {
    process.stderr.write(`--- kernel log\n${result.kernelLog.trimEnd()}\n---\n`);
    throw new Failure(failure.message, failure.status);
  }
  if (result.outcome.kind !== 'exited' || result.outcome.status !== 0) {
    throw new Failure('The demo failed in the guest; what it said is above.');
  }
}

/** The same message by RPAL and over a Unix socket, in guest instructions. */
async function compare(guest: Guest, directory: string): Promise<string> {
  let output = '';
  await run(
    guest,
    ['node', join('bench', 'node', 'measure.js'), directory, String(messages), 'icount'],
    (text) => (output += text),
  );
  const lines: string[] = [];
  const means: number[] = [];
  for (const line of output.trim().split('\n')) {
    const { transport, measure, samples, handBacksPerCall, syscallsPerCall, mean } = JSON.parse(
      line,
    ) as MeasuredResult;
    if (measure !== 'round-trip') continue;
    const { p50 } = await summarize(join(directory, samples));
    means.push(mean);
    lines.push(
      `  ${transport === 'rpal' ? 'RPAL       ' : 'Unix socket'}  ${mean.toFixed(0).padStart(7)} guest instructions (median ${p50.toFixed(0)}), ${syscallsPerCall.toFixed(2)} system calls, ${handBacksPerCall.toFixed(4)} hand-backs`,
    );
  }
  const [rpal = 1, unix = 0] = means;
  return `${lines.join('\n')}\n  RPAL takes ${(unix / rpal).toFixed(1)} times fewer instructions. More: npm run bench -- --icount\n`;
}

endOnSignals();
await runMain(async () => {
  await buildNative(['addon', 'bench']);
  await buildTypeScript();
  const directory = inRepository('build', 'bench-samples', `demo-${String(process.pid)}`);
  await mkdir(directory, { recursive: true });
  const guest = await Guest.boot({ ...defaultGuest, cpus: 1, icount: true });
  try {
    process.stdout.write('Two Node.js services in the guest, one calls the other:\n');
    await run(guest, ['sh', '-c', example], (text) => process.stdout.write(`  ${text}`));
    process.stdout.write(
      `\n${messages.toLocaleString('en')} calls there and back with 32 bytes, each verified:\n`,
    );
    process.stdout.write(await compare(guest, directory));
  } finally {
    await guest.close();
    if (existsSync(directory)) await rm(directory, { recursive: true });
  }
  return 0;
});
