import { messageOf } from '../../vm/kernel-log.js';
import {
  describeEnd,
  normalise,
  verdictOfEnd,
  type ProgramResult,
  type Verdict,
} from './results.js';

/** Something that can be compared, and what each run on each kernel said of it. */
export interface Observed {
  name: string;
  stock: string[];
  other: string[];
}

/** What came of a comparison. */
export interface Comparison {
  /** Equal in all runs on the stock kernel, but not the same on the other. */
  differences: Observed[];
  /** Not equal in all runs on the stock kernel, and nothing else on the other. */
  unsteady: Observed[];
}

/** Runs of one program by kernel. */
export interface ProgramRuns {
  name: string;
  stock: readonly ProgramResult[];
  other: readonly ProgramResult[];
}

/** A kernel report without what is different in every kernel: offsets, and lines of its source. */
function report(line: string): string {
  return normalise(
    messageOf(line)
      .replaceAll(/\bCPU: \d+/g, 'CPU: #')
      .replaceAll(/(\.[chS]):\d+/g, '$1')
      .replace(/\+0x.*$/, ''),
  );
}

/** What a run says of each of its parts; of a part that is not there: nothing. */
function sayings(result: ProgramResult): Map<string, string> {
  const all = new Map<string, string>([['', describeEnd(result.end)]]);
  for (const [name, verdict] of result.cases) all.set(name, verdict);
  all.set('kernel log', [...new Set(result.reports.map(report))].sort().join('; '));
  return all;
}

/** Of a case that is missing where the program was stopped or the guest died nothing is known. */
function cutShort({ end }: ProgramResult): boolean {
  return end.kind === 'timed-out' || end.kind === 'guest-died';
}

/** Compares the runs of programs on two kernels: ends, cases by their names, kernel reports. */
export function compare(programs: readonly ProgramRuns[]): Comparison {
  const differences: Observed[] = [];
  const unsteady: Observed[] = [];
  for (const program of programs) {
    const parts = new Set(
      [...program.stock, ...program.other].flatMap((result) => [...sayings(result).keys()]),
    );
    for (const part of parts) {
      const said = (results: readonly ProgramResult[]): string[] =>
        results.flatMap((result) => {
          const saying = sayings(result).get(part);
          return saying === undefined && cutShort(result) ? [] : [saying ?? 'absent'];
        });
      const stock = said(program.stock);
      const other = said(program.other);
      const name = part === '' ? program.name : `${program.name}: ${part}`;
      const steady = new Set(stock).size <= 1;
      // All runs on one kernel may have been cut short before this case.
      const comparable = stock.length > 0 && other.length > 0;
      if (other.some((saying) => comparable && !stock.includes(saying))) {
        differences.push({ name, stock, other });
      } else if (!steady) unsteady.push({ name, stock, other });
    }
  }
  return { differences, unsteady };
}

/** How many cases passed, failed and were skipped. */
export interface Count {
  pass: number;
  fail: number;
  skip: number;
}

/**
 * Counts the cases of one run of a program. One that names none is a case itself, and so is an end
 * that failed although no case did.
 */
export function count(result: ProgramResult): Count {
  const sum: Count = { pass: 0, fail: 0, skip: 0 };
  const add = (verdict: Verdict): void => {
    sum[verdict === 'xfail' ? 'pass' : verdict]++;
  };
  for (const verdict of result.cases.values()) add(verdict);
  const end = verdictOfEnd(result.end);
  if (result.cases.size === 0 || (end === 'fail' && sum.fail === 0)) add(end);
  return sum;
}
