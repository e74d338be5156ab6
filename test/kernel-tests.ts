import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { defaultGuest, Guest } from '../vm/guest.js';
import { guestEnvironment } from '../vm/guest-environment.js';
import { inRepository, repository } from '../vm/repository.js';
import { parseDeclaration, type Declaration } from './declaration.js';
import {
  debugSlowness,
  machineOfRun,
  nameOfRun,
  planGuestRuns,
  type GuestRun,
  type Narrowing,
} from './guest-runs.js';
import { onHostCores } from './host-cores.js';
import type { Tally } from './tally.js';
import { judgeTap } from './tap-verdict.js';

interface KernelTest {
  name: string;
  program: string;
  declaration: Declaration;
}

/**
 * The C tests: every test/kernel/*.c with a line `guest:` is one program, built under the same
 * name; others are parts of programs.
 */
async function kernelTests(filter: string | undefined): Promise<KernelTest[]> {
  const directory = inRepository('test', 'kernel');
  const tests: KernelTest[] = [];
  for (const file of existsSync(directory) ? (await readdir(directory)).sort() : []) {
    if (!file.endsWith('.c')) continue;
    const source = await readFile(join(directory, file), 'utf8');
    if (!/^\s*(\/\*|\/\/)\s*guest:/m.test(source)) continue;
    const name = basename(file, '.c');
    if (filter !== undefined && !name.includes(filter)) continue;
    tests.push({
      name,
      program: inRepository('build', 'kernel-tests', name),
      declaration: parseDeclaration(source),
    });
  }
  return tests;
}

/** Runs the C tests, each in every guest that it declares. */
export async function runKernelTests(
  tally: Tally,
  filter: string | undefined,
  narrowing: Narrowing,
): Promise<void> {
  const runs = planGuestRuns(await kernelTests(filter), narrowing);
  await Promise.all(runs.map((run) => onHostCores(run.cpus, () => runIn(run, tally))));
}

async function runIn(run: GuestRun<KernelTest>, tally: Tally): Promise<void> {
  const where = nameOfRun(run);
  let guest: Guest | undefined;
  try {
    for (const test of run.tests) {
      if (guest?.alive !== true) {
        guest = await Guest.boot({
          ...defaultGuest,
          ...machineOfRun(run),
          memory: run.kernel === 'debug' ? '3G' : '2G',
        });
      }
      const output: Buffer[] = [];
      const collect = (bytes: Buffer): void => {
        output.push(bytes);
      };
      const started = Date.now();
      const result = await guest.run(
        {
          argv: [test.program],
          cwd: repository,
          env: guestEnvironment(process.env),
        },
        { onStdout: collect, onStderr: collect },
        test.declaration.timeout * (run.kernel === 'debug' ? debugSlowness : 1),
      );
      const text = Buffer.concat(output).toString();
      const { score, reasons } = judgeTap(text, result);
      tally.add(score);
      const seconds = ((Date.now() - started) / 1000).toFixed(1);
      const word = score.failed > 0 ? 'FAILED' : score.passed === 0 ? 'skipped' : 'ok';
      process.stderr.write(`  ${word.padEnd(8)}${test.name} (${seconds} s), ${where}\n`);
      if (score.failed > 0) {
        tally.describe({
          where: `C test ${test.name}, ${where}`,
          what: reasons.join('\n'),
          details: `${text.trimEnd()}\n--- kernel log\n${result.kernelLog.trimEnd()}`,
        });
        // Lockdep reports once and then is off; a kernel that reported a fault proves no more.
        if (result.reports.length > 0) await guest.close();
      }
    }
  } finally {
    await guest?.close();
  }
}
