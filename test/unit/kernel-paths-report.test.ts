import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  compare,
  kernelPathsMarkdown,
  kernelPathsReport,
  overLimit,
  type MeasuredPath,
} from '../../bench/kernel-paths-report.js';
import { inRepository } from '../../vm/repository.js';

describe('the report of npm run bench:kernel', () => {
  const text = readFileSync(inRepository('bench', 'reports', 'kernel-paths.json'), 'utf8');
  const report = kernelPathsReport.parse(JSON.parse(text));

  it('has every path', () => {
    const program = readFileSync(inRepository('bench', 'c', 'kernel_paths.c'), 'utf8');
    const names = [...program.matchAll(/(?:\.name = |ON_AREA\()"([^"]+)"/g)].map(
      ([, name]) => name,
    );
    expect(names.length).toBeGreaterThan(15);
    expect(report.paths.map(({ path }) => path)).toEqual(names);
  });

  it('is the table in docs/testing.md, which says what costs too much', () => {
    const document = readFileSync(inRepository('docs', 'testing.md'), 'utf8');
    const table = kernelPathsMarkdown(report);
    expect(document.includes(table), `The table in docs/testing.md is to be:\n${table}`).toBe(true);
  });
});

describe('comparing two kernels', () => {
  const measured = (path: string, instructions: number): MeasuredPath => ({
    path,
    cpus: 1,
    rounds: 10,
    instructions,
  });

  it('finds what costs more than 0.5 %, and nothing else', () => {
    const paths = compare(
      [measured('a', 1000), measured('b', 1000), measured('c', 1000)],
      [measured('a', 1005), measured('b', 1006), measured('c', 900)],
    );
    expect(overLimit(paths).map(({ path }) => path)).toEqual(['b']);
  });

  it('does not compare one path with another', () => {
    expect(() => compare([measured('a', 1)], [measured('b', 1)])).toThrow('the same paths');
    expect(() => compare([measured('a', 1)], [])).toThrow('the same paths');
  });
});
