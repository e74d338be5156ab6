import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { scalingMarkdown, scalingReport } from '../../bench/scaling-report.js';
import { inRepository } from '../../vm/repository.js';

describe('the report of npm run bench:scaling', () => {
  const text = readFileSync(inRepository('bench', 'reports', 'scaling.json'), 'utf8');
  const report = scalingReport.parse(JSON.parse(text));

  it('has 1 to 64 senders on one receiver and on as many', () => {
    const threads = report.results.filter(({ kind }) => kind === 'threads');
    const powers = [1, 2, 4, 8, 16, 32, 64];
    const sendersOn = (many: boolean): number[] =>
      threads
        .filter(({ senders, receivers }) => senders === 1 || receivers > 1 === many)
        .map(({ senders }) => senders);
    expect(sendersOn(false)).toEqual(powers);
    expect(sendersOn(true)).toEqual(powers);
  });

  it('has 250 services on one receiver', () => {
    const services = report.results.filter(({ kind }) => kind === 'services');
    expect(Math.max(...services.map(({ senders }) => senders))).toBe(250);
  });

  it('is the table in docs/testing.md, which says what is unfair', () => {
    const document = readFileSync(inRepository('docs', 'testing.md'), 'utf8');
    const table = scalingMarkdown(report);
    expect(document.includes(table), `The table in docs/testing.md is to be:\n${table}`).toBe(true);
  });
});
