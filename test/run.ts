import { Command, Option } from 'commander';
import { endOnSignals } from '../vm/end-on-signals.js';
import { runMain } from '../vm/failure.js';
import { kernel, type KernelFlavour } from '../vm/kernel-build.js';
import { buildNative } from '../vm/native-build.js';
import { duration } from '../vm/progress.js';
import { runKernelTests } from './kernel-tests.js';
import { runModelTests } from './model-tests.js';
import { runNodeTests } from './node-tests.js';
import { runRunnerTests } from './runner-tests.js';
import { Tally } from './tally.js';
import { runUnitTests } from './unit-tests.js';

interface TestOptions {
  only?: 'unit' | 'model' | 'runner' | 'c' | 'node';
  filter?: string;
  cpus?: string;
  kernel?: KernelFlavour;
}

async function main(): Promise<number> {
  const options = new Command('npm test --')
    .description('Runs all tests: unit tests here, everything else in the guest.')
    .addOption(
      new Option('--only <kind>', 'only these').choices([
        'unit',
        'model',
        'runner',
        'c',
        'node',
      ] as const),
    )
    .option('--filter <pattern>', 'only files whose name contains this')
    .option('--cpus <n>', 'only guests with this many CPUs')
    .addOption(
      new Option('--kernel <name>', 'only on this kernel').choices([
        'normal',
        'debug',
        'stock',
      ] as const),
    )
    .parse()
    .opts<TestOptions>();
  const { only, filter } = options;
  const wants = (kind: NonNullable<TestOptions['only']>): boolean =>
    only === undefined || only === kind;
  const narrowing = {
    ...(options.cpus === undefined ? {} : { cpus: Number(options.cpus) }),
    ...(options.kernel === undefined ? {} : { kernel: options.kernel }),
  };
  const started = Date.now();
  const tally = new Tally();
  if (wants('unit')) await runUnitTests(tally, filter);
  if (wants('model')) await runModelTests(tally, filter);
  if (only !== 'unit') {
    if (only === undefined && filter === undefined) {
      for (const each of ['normal', 'debug'] as const) await kernel(each);
    }
    if (wants('c')) await buildNative(['kernel-tests']);
    if (wants('node')) await buildNative(['librpal', 'addon', 'samples']);
    if (wants('runner')) await runRunnerTests(tally, filter, narrowing);
    await Promise.all([
      wants('c') && runKernelTests(tally, filter, narrowing),
      wants('node') && runNodeTests(tally, filter, narrowing),
    ]);
  }
  for (const { where, what, details } of tally.failures) {
    process.stderr.write(`\n=== FAILED ${where}\n${what}\n${details}\n`);
  }
  process.stderr.write(`\nThe tests took ${duration(Date.now() - started)}.\n`);
  process.stdout.write(`${tally.line}\n`);
  return tally.ok ? 0 : 1;
}

endOnSignals();
await runMain(main);
