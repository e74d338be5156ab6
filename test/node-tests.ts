import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { buildTypeScript } from '../vm/build.js';
import { defaultGuest, failureOf, Guest } from '../vm/guest.js';
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
import { readVitestReport } from './vitest-report.js';

interface NodeTest {
  file: string;
  declaration: Declaration;
}

async function nodeTests(filter: string | undefined): Promise<NodeTest[]> {
  const directory = inRepository('test', 'guest');
  if (!existsSync(directory)) return [];
  const tests: NodeTest[] = [];
  for (const name of (await readdir(directory, { recursive: true })).sort()) {
    if (!name.endsWith('.test.ts')) continue;
    if (filter !== undefined && !name.includes(filter)) continue;
    const file = join('test', 'guest', name);
    const declared = parseDeclaration(await readFile(inRepository(file), 'utf8'));
    const source = await readFile(inRepository(file), 'utf8');
    // Node.js under KASAN takes minutes and shows no more of the kernel than the C tests do: only
    // files that ask for it run there.
    const debug = declared.debug && /guest:.*\bdebug\b/.test(source);
    tests.push({ file, declaration: { ...declared, debug } });
  }
  return tests;
}

/** Runs the vitest files that belong into the guest: those that want the same guest in one boot. */
export async function runNodeTests(
  tally: Tally,
  filter: string | undefined,
  narrowing: Narrowing,
): Promise<void> {
  const tests = await nodeTests(filter);
  // The programs that they start use the package as its users do, compiled.
  if (tests.length > 0) await buildTypeScript();
  const runs = planGuestRuns(tests, narrowing);
  await Promise.all(runs.map((run) => onHostCores(run.cpus, () => runIn(run, tally))));
}

async function runIn(run: GuestRun<NodeTest>, tally: Tally): Promise<void> {
  const where = nameOfRun(run);
  const reports = inRepository('build', 'reports');
  await mkdir(reports, { recursive: true });
  // Guests that differ in one of these only may run beside each other.
  const parts = [process.pid, run.kernel, run.cpus, run.isolation, run.append];
  const report = join(reports, `${parts.map(String).join('-')}.json`);
  const seconds = run.tests.reduce((sum, test) => sum + test.declaration.timeout, 120);
  const guest = await Guest.boot({
    ...defaultGuest,
    ...machineOfRun(run),
    memory: '3G',
  });
  // In one piece at the end: other tests run beside these.
  const output: Buffer[] = [];
  const collect = (bytes: Buffer): void => {
    output.push(bytes);
  };
  try {
    const result = await guest.run(
      {
        argv: [
          'node',
          join('node_modules', 'vitest', 'vitest.mjs'),
          'run',
          '--project=guest',
          '--reporter=default',
          '--reporter=json',
          `--outputFile.json=${report}`,
          ...run.tests.map((test) => test.file),
        ],
        cwd: repository,
        env: guestEnvironment(process.env),
      },
      { onStdout: collect, onStderr: collect },
      seconds * (run.kernel === 'debug' ? debugSlowness : 1),
    );
    process.stderr.write(`\nNode.js tests, ${where}\n${Buffer.concat(output).toString()}`);
    const failure = failureOf(result);
    if (failure !== undefined) {
      tally.add({ passed: 0, failed: 1, skipped: 0 });
      tally.describe({
        where: `Node.js tests, ${where}`,
        what: failure.message,
        details: `--- kernel log\n${result.kernelLog.trimEnd()}`,
      });
    }
    if (existsSync(report)) {
      const { score, failures } = readVitestReport(await readFile(report, 'utf8'), where);
      tally.add(score);
      failures.forEach((each) => {
        tally.describe(each);
      });
    } else if (failure === undefined) {
      tally.add({ passed: 0, failed: 1, skipped: 0 });
      tally.describe({ where, what: 'vitest', details: 'It ended without a report.' });
    }
  } finally {
    await guest.close();
    await rm(report, { force: true });
  }
}
