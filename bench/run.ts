import { mkdir, rm, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { chooseAccelerator } from '../vm/accelerator.js';
import { buildTypeScript } from '../vm/build.js';
import { endOnSignals } from '../vm/end-on-signals.js';
import { runMain } from '../vm/failure.js';
import { defaultGuest, Guest } from '../vm/guest.js';
import { buildNative } from '../vm/native-build.js';
import { inRepository } from '../vm/repository.js';
import { linesOf } from './guest-lines.js';
import { summarize } from './percentiles.js';
import {
  benchReport,
  measuredResult,
  type BenchReport,
  type BenchResult,
  type MeasuredResult,
} from './result.js';
import { table } from './table.js';

interface BenchOptions {
  icount?: true;
  json?: string;
  messages: number;
  suite: readonly ('c' | 'node')[];
  kernel: string;
  timeout: number;
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('It must be a positive number.');
  return number;
}

/**
 * What runs in the guest, each with the directory for samples, the messages and the mode as
 * arguments, printing a line of JSON for every result. The C programs are started by the guest
 * itself: a waiting Node.js process still does things of its own, and there may be one CPU.
 */
interface Program {
  argv: readonly string[];
  /** What follows the directory, the messages and the mode. */
  plan: readonly string[];
}

function programs(suites: readonly ('c' | 'node')[]): Program[] {
  const built = (name: string, ...plan: string[]): Program => ({
    argv: [join('build', 'bench', name)],
    plan,
  });
  const c = [
    built('rpal_call'),
    built('rpal_message'),
    built('unix_message'),
    built('rpal_message', 'system-call'),
    built('unix_message', 'system-call'),
  ];
  const node = { argv: ['node', join('bench', 'node', 'measure.js')], plan: [] };
  return suites.flatMap((suite) => (suite === 'c' ? c : [node]));
}

async function measure(options: BenchOptions): Promise<BenchReport> {
  const mode = options.icount ? 'icount' : 'wall';
  const directory = inRepository('build', 'bench-samples', String(process.pid));
  await mkdir(directory, { recursive: true });
  const guest = await Guest.boot({
    ...defaultGuest,
    kernel: options.kernel,
    cpus: options.icount ? 1 : 2,
    icount: options.icount === true,
  });
  try {
    const facts: string[] = [];
    await linesOf(
      guest,
      ['sh', '-c', 'uname -rv; node -p process.version'],
      options.timeout,
      (line) => facts.push(line),
    );
    const measured: MeasuredResult[] = [];
    const onResult = (line: string): void => {
      // A program that gives up says why; its exit status fails the run.
      if (!line.startsWith('{')) {
        process.stderr.write(`${line}\n`);
        return;
      }
      const result = measuredResult.parse(JSON.parse(line));
      measured.push(result);
      const { suite, transport, measure: what, mean } = result;
      const brief = mean < 0 ? '' : `: ${mean.toFixed(0)}`;
      process.stderr.write(`measured: ${suite} ${transport} ${what}${brief}\n`);
    };
    for (const { argv, plan } of programs(options.suite)) {
      const all = [...argv, directory, String(options.messages), mode, ...plan];
      await linesOf(guest, all, options.timeout, onResult);
    }
    const results: BenchResult[] = [];
    for (const { samples, mean, syscallsPerCall, ...rest } of measured) {
      const summary = await summarize(join(directory, samples));
      results.push({
        ...rest,
        unit: options.icount ? 'instructions' : 'ns',
        ...summary,
        mean: mean < 0 ? summary.mean : mean,
        syscallsPerCall: syscallsPerCall < 0 ? null : syscallsPerCall,
      });
    }
    const accelerator = options.icount ? 'tcg' : await chooseAccelerator();
    return benchReport.parse({
      machine: `QEMU guest with ${options.icount ? '1 CPU' : '2 CPUs'} on ${cpus()[0]?.model.trim() ?? 'unknown'}`,
      accelerator: `${accelerator}${options.icount ? ', icount' : ''}`,
      kernel: `Linux ${facts[0] ?? ''}`,
      node: facts[1] ?? '',
      mode,
      results,
    });
  } finally {
    await guest.close();
    await rm(directory, { recursive: true, force: true });
  }
}

endOnSignals();
await runMain(async () => {
  const options = new Command('npm run bench --')
    .description('Measures calls by RPAL and over Unix sockets, in the guest.')
    .option('--icount', 'one CPU, guest instructions: exact and repeatable (else 2 CPUs, time)')
    .option('--json <file>', 'write the results there, too')
    .addOption(
      new Option('--messages <n>', 'messages of each measure').argParser(positive).default(100_000),
    )
    .addOption(
      new Option('--suite <suite...>', 'only these')
        .choices(['c', 'node'] as const)
        .default(['c', 'node'] as const),
    )
    .option('--kernel <name>', 'normal, debug, or the path of a bzImage', 'normal')
    .addOption(
      new Option('--timeout <s>', 'seconds that all may take').argParser(positive).default(3000),
    )
    .parse()
    .opts<BenchOptions>();
  const node = options.suite.includes('node');
  await buildNative(node ? ['addon', 'bench'] : ['bench']);
  if (node) await buildTypeScript();
  const report = await measure(options);
  process.stdout.write(table(report));
  if (options.json !== undefined) {
    await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
  }
  return 0;
});
