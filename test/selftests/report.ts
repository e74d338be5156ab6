import Table from 'cli-table3';
import { duration } from '../../vm/progress.js';
import { collections, nameOf } from './collections.js';
import { count, type Comparison, type Count, type Observed } from './differences.js';
import type { Pass, Run } from './pass.js';

/** All that ran, and what came of it. */
export interface SelftestReport extends Comparison {
  /** Version of the source that the tests are from. */
  selftests: string;
  cpus: number;
  stock: [Pass, ...Pass[]];
  other: [Pass, ...Pass[]];
}

function sum(runs: readonly Run[]): Count {
  const total: Count = { pass: 0, fail: 0, skip: 0 };
  for (const run of runs) {
    const { pass, fail, skip } = count(run);
    total.pass += pass;
    total.fail += fail;
    total.skip += skip;
  }
  return total;
}

/** Collections and what came of their cases, in the first pass on each kernel. */
function table(stock: Pass, other: Pass): string {
  const rows = new Table({
    head: ['', 'programs', `${stock.kernel}: pass`, 'fail', 'skip', `${other.kernel}: pass`].concat(
      ['fail', 'skip'],
    ),
    colAligns: ['left', ...Array<'right'>(7).fill('right')],
    style: { head: [], border: [] },
  });
  const add = (name: string, within: (run: Run) => boolean): void => {
    const [before, after] = [stock.runs.filter(within), other.runs.filter(within)];
    if (before.length === 0) return;
    const numbers = [sum(before), sum(after)].flatMap(({ pass, fail, skip }) => [pass, fail, skip]);
    rows.push([name, before.length, ...numbers]);
  };
  for (const { name } of collections) add(name, ({ program }) => program.collection === name);
  add('all', () => true);
  return rows.toString();
}

function list(title: string, all: readonly Observed[], kernel: string): string {
  const lines = all.map(
    ({ name, stock, other }) => `  ${name}\n    stock: ${said(stock)}; ${kernel}: ${said(other)}\n`,
  );
  return `${title}: ${all.length}\n${lines.join('')}`;
}

function said(sayings: readonly string[]): string {
  return sayings.map((saying) => (saying === '' ? 'nothing' : saying)).join(', ');
}

function listLeftOut(): string {
  const lines = collections.flatMap(({ name, leftOut }) =>
    Object.entries(leftOut ?? {}).map(([file, reason]) => `  ${name}/${file}: ${reason}\n`),
  );
  return `Left out: ${lines.length}\n${lines.join('')}`;
}

/** Programs that were stopped because they took too long, and how often on which kernel. */
function listTimedOut(passes: readonly Pass[]): string {
  const where = new Map<string, string[]>();
  for (const { kernel, runs } of passes) {
    for (const { program, end } of runs) {
      if (end.kind !== 'timed-out') continue;
      const title = `${nameOf(program)}, ${end.seconds} s`;
      where.set(title, [...(where.get(title) ?? []), kernel]);
    }
  }
  const lines = [...where].map(([title, kernels]) => `  ${title}: ${kernels.join(', ')}\n`);
  return `Timed out: ${lines.length}\n${lines.join('')}`;
}

/** The report as people read it. */
export function describe(report: SelftestReport): string {
  const { selftests, cpus, stock, other, differences, unsteady } = report;
  const passes = [...stock, ...other];
  const kernel = other[0].kernel;
  const times = passes.map((each) => `${each.kernel} ${duration(each.milliseconds)}`);
  return [
    `${table(stock[0], other[0])}\n` +
      [stock[0], other[0]].map((each) => `${each.kernel}: ${each.version}\n`).join('') +
      `Selftests of Linux ${selftests}, ${cpus} CPUs; ${times.join(', ')}\n`,
    listLeftOut(),
    listTimedOut(passes),
    list('Not steady on the stock kernel itself', unsteady, kernel),
    list('Differences', differences, kernel),
  ].join('\n');
}

/** The report as programs read it, with the output of every program. */
export function json(report: SelftestReport): string {
  const plain = (_: string, value: unknown): unknown =>
    value instanceof Map ? Object.fromEntries(value) : value;
  return `${JSON.stringify(report, plain, 1)}\n`;
}
