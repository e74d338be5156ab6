import { randomInt } from 'node:crypto';
import { basename } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { endOnSignals } from '../../vm/end-on-signals.js';
import { Failure, runMain } from '../../vm/failure.js';
import { defaultGuest, Guest, type GuestResult } from '../../vm/guest.js';
import { guestEnvironment } from '../../vm/guest-environment.js';
import { buildNative } from '../../vm/native-build.js';
import { duration } from '../../vm/progress.js';
import { inRepository, repository } from '../../vm/repository.js';
import { Tally } from '../tally.js';
import { judgeTap } from '../tap-verdict.js';
import { planStress, suites, type StressRun } from './suites.js';

interface StressOptions {
  minutes: number;
  only?: string;
  kernel: string;
  cpus?: number;
  seed: number;
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('It must be a positive number.');
  return number;
}

/** What starts, ends and checks takes time besides: much of it with a debug kernel. */
const patience = { factor: 3, seconds: 900 };

async function runIn(
  guest: Guest,
  { suite, seconds }: StressRun,
  seed: number,
): Promise<{ text: string; result: GuestResult }> {
  const output: Buffer[] = [];
  const show = (bytes: Buffer): void => {
    output.push(bytes);
    process.stdout.write(bytes);
  };
  const result = await guest.run(
    {
      argv: [
        inRepository('build', 'kernel-tests', suite.program),
        '--seconds',
        String(seconds),
        '--seed',
        String(seed),
      ],
      cwd: repository,
      env: guestEnvironment(process.env),
    },
    { onStdout: show, onStderr: show },
    seconds * patience.factor + patience.seconds,
  );
  return { text: Buffer.concat(output).toString(), result };
}

/** Runs one suite in a guest of its own, and shows what it prints while it runs. */
async function runSuite(run: StressRun, options: StressOptions, tally: Tally): Promise<void> {
  const { suite, cpus, seconds } = run;
  const { kernel, seed } = options;
  const where = `${suite.name}, kernel ${basename(kernel)}, ${cpus} CPU${cpus === 1 ? '' : 's'}`;
  process.stdout.write(`\n== ${where}: ${suite.about}, ${duration(seconds * 1000)}\n`);
  const started = Date.now();
  const guest = await Guest.boot({
    ...defaultGuest,
    kernel,
    cpus,
    memory: kernel === 'debug' ? '4G' : '2G',
    append: suite.append ?? '',
  });
  try {
    const { text, result } = await runIn(guest, run, seed);
    const { score, reasons } = judgeTap(text, result);
    tally.add(score);
    process.stdout.write(`== ${where}: ${duration(Date.now() - started)}\n`);
    if (score.failed === 0) return;
    tally.describe({
      where,
      what: reasons.join('\n'),
      details:
        `Again: npm run stress -- --only ${suite.name} --kernel ${kernel} --cpus ${cpus} ` +
        `--seed ${seed} --minutes ${(seconds / 60).toFixed(2)}\n` +
        `--- kernel log\n${result.kernelLog.trimEnd()}`,
    });
  } finally {
    await guest.close();
  }
}

async function main(): Promise<number> {
  const options = new Command('npm run stress --')
    .description('Long runs of the tests that look for faults by chance.')
    .addOption(
      new Option('--minutes <n>', 'for all of them together').argParser(positive).default(10),
    )
    .addOption(new Option('--only <name>', 'only this one').choices(suites.map(({ name }) => name)))
    .option('--kernel <name>', 'normal, debug, or the path of a bzImage', 'normal')
    .addOption(new Option('--cpus <n>', 'only guests with this many CPUs').argParser(positive))
    .addOption(
      new Option('--seed <n>', 'the same numbers again (default: new ones)')
        .argParser(positive)
        .default(randomInt(1, 1_000_000_000), 'a new one'),
    )
    .parse()
    .opts<StressOptions>();
  const runs = planStress(suites, options);
  if (runs.length === 0) {
    throw new Failure(
      `${options.only ?? 'Nothing'} does not run on the ${options.kernel} kernel. ` +
        `Try --kernel debug.`,
      2,
    );
  }
  await buildNative(['kernel-tests']);
  process.stdout.write(`Seed ${options.seed}\n`);
  const tally = new Tally();
  for (const run of runs) await runSuite(run, options, tally);
  for (const { where, what, details } of tally.failures) {
    process.stderr.write(`\n=== FAILED ${where}\n${what}\n${details}\n`);
  }
  process.stdout.write(`${tally.line}\n`);
  return tally.ok ? 0 : 1;
}

endOnSignals();
await runMain(main);
