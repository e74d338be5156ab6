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
import { machineOfRun, nameOfRun } from '../guest-runs.js';
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

/** What tries everything takes hours at most: a sweep hangs if an event is lost. */
const longest = 4 * 60 * 60;

/** The end of a program that tried everything. */
const inAll = /^# (in all: .*)$/m;

function argvOf({ suite, seconds }: StressRun, seed: number): readonly string[] {
  if ('argv' in suite) return suite.argv;
  return ['--seconds', String(seconds), '--seed', String(seed)];
}

async function runIn(
  guest: Guest,
  run: StressRun,
  seed: number,
): Promise<{ text: string; result: GuestResult }> {
  const output: Buffer[] = [];
  const show = (bytes: Buffer): void => {
    output.push(bytes);
    process.stdout.write(bytes);
  };
  const { program, seconds } = run;
  const result = await guest.run(
    {
      argv: [inRepository('build', 'kernel-tests', program), ...argvOf(run, seed)],
      cwd: repository,
      env: guestEnvironment(process.env),
    },
    { onStdout: show, onStderr: show },
    seconds === undefined ? longest : seconds * patience.factor + patience.seconds,
  );
  return { text: Buffer.concat(output).toString(), result };
}

/** The command that does the same again. */
function again(run: StressRun, { kernel, seed }: StressOptions): string {
  const { suite, program, cpus, seconds } = run;
  if (seconds === undefined) {
    const { append } = machineOfRun({ ...run, kernel, la57: false, append: '' });
    const argv = argvOf(run, seed).join(' ');
    return (
      `npm run vm -- --icount --kernel ${kernel} ${append === '' ? '' : `--append ${append} `}` +
      `-- build/kernel-tests/${program} ${argv}`
    );
  }
  return (
    `npm run stress -- --only ${suite.name} --kernel ${kernel} --cpus ${cpus} ` +
    `--seed ${seed} --minutes ${(seconds / 60).toFixed(2)}`
  );
}

/** Runs one program in a guest of its own, shows what it prints while it runs, and returns its sum. */
async function runSuite(run: StressRun, options: StressOptions, tally: Tally): Promise<string> {
  const { suite, program, seconds } = run;
  const { kernel, seed } = options;
  const name = seconds === undefined ? `${suite.name}, ${program}` : suite.name;
  const inGuest = { ...run, kernel, la57: false, append: '' };
  const where = `${name}, ${nameOfRun({ ...inGuest, kernel: basename(kernel) })}`;
  const time = seconds === undefined ? 'until it is complete' : duration(seconds * 1000);
  process.stdout.write(`\n== ${where}: ${suite.about}, ${time}\n`);
  const started = Date.now();
  const machine = machineOfRun(inGuest);
  const guest = await Guest.boot({
    ...defaultGuest,
    ...machine,
    memory: kernel === 'debug' ? '4G' : '2G',
    append: `${machine.append} ${suite.append ?? ''}`,
  });
  try {
    const { text, result } = await runIn(guest, run, seed);
    const { score, reasons } = judgeTap(text, result);
    const taken = duration(Date.now() - started);
    tally.add(score);
    process.stdout.write(`== ${where}: ${taken}\n`);
    if (score.failed > 0) {
      tally.describe({
        where,
        what: reasons.join('\n'),
        details: `Again: ${again(run, options)}\n--- kernel log\n${result.kernelLog.trimEnd()}`,
      });
    }
    const sum = inAll.exec(text)?.[1];
    return sum === undefined ? '' : `${where}: ${sum}, ${taken}\n`;
  } finally {
    await guest.close();
  }
}

async function main(): Promise<number> {
  const options = new Command('npm run stress --')
    .description('Long runs of the tests that look for faults by chance, or everywhere.')
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
      `${options.only ?? 'Nothing'} does not run in such a guest: fail-nth needs --kernel debug, ` +
        `sweep one CPU.`,
      2,
    );
  }
  await buildNative(['kernel-tests']);
  process.stdout.write(`Seed ${options.seed}\n`);
  const tally = new Tally();
  let sums = '';
  for (const run of runs) sums += await runSuite(run, options, tally);
  process.stdout.write(`\n${sums}`);
  for (const { where, what, details } of tally.failures) {
    process.stderr.write(`\n=== FAILED ${where}\n${what}\n${details}\n`);
  }
  process.stdout.write(`${tally.line}\n`);
  return tally.ok ? 0 : 1;
}

endOnSignals();
await runMain(main);
