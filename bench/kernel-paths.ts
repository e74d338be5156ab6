import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { endOnSignals } from '../vm/end-on-signals.js';
import { Failure, runMain } from '../vm/failure.js';
import { defaultGuest, Guest } from '../vm/guest.js';
import { buildNative } from '../vm/native-build.js';
import { linesOf } from './guest-lines.js';
import {
  compare,
  kernelPathsReport,
  kernelPathsTable,
  measuredPath,
  overLimit,
  type MeasuredPath,
} from './kernel-paths-report.js';

/** Seconds that the paths of one guest may take. */
const timeout = 900;

interface Measured {
  kernel: string;
  paths: MeasuredPath[];
}

/** Runs kernel_paths.c in one guest, whose kernel has to be what it is said to be. */
async function measure(kernel: 'stock' | 'normal', cpuCount: number): Promise<Measured> {
  const guest = await Guest.boot({ ...defaultGuest, kernel, cpus: cpuCount, icount: true });
  try {
    const facts: string[] = [];
    const ask = 'uname -rv; test -e /dev/rpal && echo patched || echo stock';
    await linesOf(guest, ['sh', '-c', ask], timeout, (line) => facts.push(line));
    if (facts[1] !== (kernel === 'stock' ? 'stock' : 'patched')) {
      throw new Failure(`The kernel "${kernel}" is ${facts[1] ?? 'unknown'}.`);
    }
    const paths: MeasuredPath[] = [];
    const argv = [join('build', 'bench', 'kernel_paths'), String(cpuCount)];
    await linesOf(guest, argv, timeout, (line) => {
      const path = measuredPath.parse(JSON.parse(line));
      paths.push(path);
      process.stderr.write(
        `measured: ${kernel}, ${cpuCount} CPUs, ${path.path}: ${path.instructions}\n`,
      );
    });
    return { kernel: `Linux ${facts[0] ?? ''}`, paths };
  } finally {
    await guest.close();
  }
}

/** One CPU first; on two, what has to tell the other CPU. */
async function measureAll(kernel: 'stock' | 'normal'): Promise<Measured> {
  const one = await measure(kernel, 1);
  const two = await measure(kernel, 2);
  return { kernel: one.kernel, paths: [...one.paths, ...two.paths] };
}

endOnSignals();
await runMain(async () => {
  const options = new Command('npm run bench:kernel --')
    .description(
      'Counts the guest instructions of ordinary paths of the kernel, without and with the patches, ' +
        'where there is no service.',
    )
    .option('--json <file>', 'write the results there, too')
    .parse()
    .opts<{ json?: string }>();
  await buildNative(['bench']);
  const stock = await measureAll('stock');
  const normal = await measureAll('normal');
  const report = kernelPathsReport.parse({
    machine: `QEMU guests without KVM, icount, on ${cpus()[0]?.model.trim() ?? 'unknown'}`,
    kernels: { stock: stock.kernel, normal: normal.kernel },
    paths: compare(stock.paths, normal.paths),
  });
  process.stdout.write(kernelPathsTable(report));
  if (options.json !== undefined) {
    await writeFile(options.json, `${JSON.stringify(report, null, 2)}\n`);
  }
  return overLimit(report.paths).length === 0 ? 0 : 1;
});
