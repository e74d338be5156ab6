import { markdownGrid, terminalGrid } from './grid.js';
import type { BenchReport, BenchResult } from './result.js';

const names = {
  call: 'call',
  'one-way': 'one way',
  'round-trip': 'round trip',
  'system-call': 'round trip, handler makes a system call',
} as const;

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
  const head = [
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
  ];
  const rows = report.results.map((result) => {
    const rival = rivalOf(result, report.results);
    return [
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
    ];
  });
  return `${terminalGrid(head, rows, 2)}\n${report.machine}, ${report.accelerator}; ${report.kernel}; Node.js ${report.node}. Hand-backs and system calls are per message; every message was verified.\n`;
}

/** The report as a Markdown table for the README: one row for each RPAL result and its rival. */
export function markdownTable(report: BenchReport): string {
  const unit = report.mode === 'icount' ? 'guest instructions' : 'µs';
  const shown = (value: number): string =>
    report.mode === 'icount' ? number(value) : number(value / 1000, 1);
  const rows = report.results
    .filter(({ transport }) => transport === 'rpal')
    .map((result) => {
      const rival = rivalOf(result, report.results);
      return [
        describe(result),
        shown(result.mean),
        rival === undefined ? '' : shown(rival.mean),
        rival === undefined ? '' : `× ${number(rival.mean / result.mean, 1)}`,
        result.syscallsPerCall === null ? '?' : number(result.syscallsPerCall, 2),
        number(result.handBacksPerCall, 4),
      ];
    });
  const head = [`mean, ${unit}`, 'RPAL', 'Unix socket', '', 'system calls', 'hand-backs'];
  return markdownGrid(head, rows);
}

function describe({ suite, measure, bytes, api }: BenchResult): string {
  if (measure === 'call') return 'C, `rpal_call` there and back';
  const how = suite === 'c' ? 'through `rpal_epoll_wait`' : `\`${api ?? ''}\``;
  return `${suite === 'c' ? 'C' : 'Node.js'}, ${number(bytes)} bytes ${names[measure]}, ${how}`;
}
