import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { benchReport } from '../../bench/result.js';
import { markdownTable } from '../../bench/table.js';
import { inRepository } from '../../vm/repository.js';

const directory = inRepository('bench', 'reports');

describe.each(['icount.json', 'wall.json'])('the report %s', (name) => {
  const text: unknown = JSON.parse(readFileSync(join(directory, name), 'utf8'));

  it('has the form that is promised', () => {
    expect(benchReport.safeParse(text).error).toBeUndefined();
  });

  it('has every measure of every suite, and its rival', () => {
    const { results } = benchReport.parse(text);
    const names = results.map(({ suite, transport, measure }) =>
      [suite, transport, measure].join(' '),
    );
    expect(names).toEqual(
      expect.arrayContaining([
        'c rpal call',
        'c rpal one-way',
        'c rpal round-trip',
        'c unix one-way',
        'c unix round-trip',
        'node rpal one-way',
        'node rpal round-trip',
        'node unix one-way',
        'node unix round-trip',
      ]),
    );
  });

  it('is the table in the README', () => {
    const readme = readFileSync(inRepository('README.md'), 'utf8');
    const table = markdownTable(benchReport.parse(text));
    expect(readme.includes(table), `The table in README.md is to be:\n${table}`).toBe(true);
  });
});

describe('the form of reports', () => {
  const good = {
    machine: 'm',
    kernel: 'k',
    mode: 'icount',
    accelerator: 'tcg',
    node: 'v20.0.0',
    results: [
      {
        suite: 'c',
        transport: 'rpal',
        measure: 'call',
        bytes: 0,
        messages: 10,
        unit: 'instructions',
        mean: 100,
        p50: 100,
        p99: 101,
        handBacksPerCall: 0,
        syscallsPerCall: null,
      },
    ],
  };

  it('takes a report', () => {
    expect(benchReport.safeParse(good).success).toBe(true);
  });

  it.each([
    ['no results', { results: [] }],
    ['the unit of the other mode', { mode: 'wall' }],
    ['an unknown field', { extra: 1 }],
    ['a mean of 0', { results: [{ ...good.results[0], mean: 0 }] }],
    ['a missing percentile', { results: [{ ...good.results[0], p99: undefined }] }],
    ['no messages', { results: [{ ...good.results[0], messages: 0 }] }],
  ])('refuses %s', (_, change) => {
    expect(benchReport.safeParse({ ...good, ...change }).success).toBe(false);
  });
});
