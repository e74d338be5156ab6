import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { chooseAccelerator } from '../vm/accelerator.js';
import { endOnSignals } from '../vm/end-on-signals.js';
import { runMain } from '../vm/failure.js';
import { defaultGuest, Guest } from '../vm/guest.js';
import { buildNative } from '../vm/native-build.js';
import { linesOf } from './guest-lines.js';
import {
  scalingReport,
  scalingResult,
  scalingTable,
  type ScalingReport,
  type ScalingResult,
} from './scaling-report.js';

interface ScalingOptions {
  json?: string;
  seconds: number;
  kernel: string;
}

type Isolation = ScalingResult['isolation'];

const senders = [1, 2, 4, 8, 16, 32, 64];

/** Services that have the receiver's protection key cannot be its peers: 237 of 253 can. */
const servicesWithKeys = 237;
const servicesWithout = 250;

/**
 * For how long so many senders call: two CPUs have to give each of them enough turns to compare, so
 * more than the 64 of the largest group of threads take longer.
 */
function secondsFor(seconds: number, count: number): number {
  return seconds * Math.max(1, count / 64);
}

/** What scaling.c is called with, besides the time. */
function plan(isolation: Isolation): string[][] {
  if (isolation === 'none') return [['services', String(servicesWithout)]];
  return [
    ...senders.map((count) => ['threads', String(count), '1']),
    ...senders.slice(1).map((count) => ['threads', String(count), String(count)]),
    ['services', String(servicesWithKeys)],
  ];
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('It must be a positive number.');
  return number;
}

async function measure(
  options: ScalingOptions,
  isolation: Isolation,
): Promise<{ kernel: string; results: ScalingResult[] }> {
  const guest = await Guest.boot({
    ...defaultGuest,
    kernel: options.kernel,
    append: isolation === 'none' ? 'rpal.isolation=none' : '',
  });
  try {
    let kernel = '';
    const results: ScalingResult[] = [];
    await linesOf(guest, ['uname', '-rv'], 60, (line) => (kernel = `Linux ${line}`));
    for (const what of plan(isolation)) {
      const seconds = secondsFor(options.seconds, Number(what[1]));
      const argv = [join('build', 'bench', 'scaling'), String(seconds), ...what];
      await linesOf(guest, argv, seconds + 300, (line) => {
        // A program that gives up says why; its exit status fails the run.
        if (!line.startsWith('{')) {
          process.stderr.write(`${line}\n`);
          return;
        }
        const result = { ...scalingResult.parse(JSON.parse(line)), isolation };
        results.push(result);
        const { calls, slowest, fastest } = result;
        process.stderr.write(
          `measured: ${what.join(' ')}: ${(calls / result.seconds).toFixed(0)} calls/s, ` +
            `slowest/fastest ${(slowest / fastest).toFixed(2)}\n`,
        );
      });
    }
    return { kernel, results };
  } finally {
    await guest.close();
  }
}

endOnSignals();
await runMain(async () => {
  const options = new Command('npm run bench:scaling --')
    .description('Measures calls by many senders, by the wall clock, in the guest with 2 CPUs.')
    .option('--json <file>', 'write the results there, too')
    .addOption(
      new Option('--seconds <s>', 'how long they call each time').argParser(positive).default(8),
    )
    .option('--kernel <name>', 'normal, debug, or the path of a bzImage', 'normal')
    .parse()
    .opts<ScalingOptions>();
  await buildNative(['bench']);
  const keys = await measure(options, 'mpk');
  const none = await measure(options, 'none');
  const report: ScalingReport = scalingReport.parse({
    machine: `QEMU guest with 2 CPUs on ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    accelerator: await chooseAccelerator(),
    kernel: keys.kernel,
    results: [...keys.results, ...none.results],
  });
  process.stdout.write(scalingTable(report));
  if (options.json !== undefined) {
    await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
  }
  return 0;
});
