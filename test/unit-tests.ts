import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { repository } from '../vm/repository.js';
import type { Tally } from './tally.js';
import { readVitestReport } from './vitest-report.js';

/** Runs the unit tests on the host. */
export async function runUnitTests(tally: Tally, filter: string | undefined): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'rpal-unit-'));
  try {
    const report = join(directory, 'report.json');
    const result = await execa(
      process.execPath,
      [
        join('node_modules', 'vitest', 'vitest.mjs'),
        'run',
        '--project=unit',
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${report}`,
        '--passWithNoTests',
        ...(filter === undefined ? [] : [filter]),
      ],
      { cwd: repository, reject: false, stdout: process.stderr, stderr: process.stderr },
    );
    if (!existsSync(report)) {
      if (filter !== undefined && result.exitCode === 0) return;
      tally.add({ passed: 0, failed: 1, skipped: 0 });
      tally.describe({ where: 'host', what: 'vitest', details: 'It ended without a report.' });
      return;
    }
    const { score, failures } = readVitestReport(await readFile(report, 'utf8'), 'host');
    tally.add(score);
    failures.forEach((failure) => {
      tally.describe(failure);
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
