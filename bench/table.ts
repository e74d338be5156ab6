import Table from 'cli-table3';
import type { BenchReport, BenchResult } from './result.js';

const names = { call: 'call', 'one-way': 'one way', 'round-trip': 'round trip' } as const;

function number(value: number, digits = 0): string {
  return value.toLocaleString('en', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** The rival of an RPAL result: the same message over a Unix socket. */
export function rivalOf(result: BenchResult, all: readonly BenchResult[]): BenchResult | undefined {
  if (result.transport !== 'rpal') return undefined;
  return all.find(
    ({ suite, transport, measure }) =>
      transport === 'unix' && suite === result.suite && measure === result.measure,
  );
}

/** The report as people read it. */
export function table(report: BenchReport): string {
  const unit = report.mode === 'icount' ? 'guest instructions' : 'ns';
  const rows = new Table({
    head: [
      '',
      '',
      'bytes',
      'messages',
      `mean, ${unit}`,
      'p50',
      'p99',
      'hand-backs',
      'syscalls',
      '',
    ],
    colAligns: ['left', 'left', ...Array<'right'>(8).fill('right')],
    style: { head: [], border: [] },
  });
  for (const result of report.results) {
    const rival = rivalOf(result, report.results);
    rows.push([
      `${result.suite === 'c' ? 'C' : 'Node.js'}, ${names[result.measure]}`,
      `${result.transport}${result.api === undefined ? '' : ` (${result.api})`}`,
      number(result.bytes),
      number(result.messages),
      number(result.mean),
      number(result.p50),
      number(result.p99),
      number(result.handBacksPerCall, 4),
      result.syscallsPerCall === null ? '?' : number(result.syscallsPerCall, 3),
      rival === undefined ? '' : `× ${number(rival.mean / result.mean, 1)}`,
    ]);
  }
  return `${rows.toString()}\n${report.machine}, ${report.accelerator}; ${report.kernel}; Node.js ${report.node}. Hand-backs and system calls are per message; every message was verified.\n`;
}
