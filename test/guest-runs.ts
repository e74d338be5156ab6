import type { GuestOptions } from '../vm/guest.js';
import { isolations, type Declaration, type Isolation } from './declaration.js';

/** One kind of guest, and the tests that run in it, in one boot. */
export interface GuestRun<T> {
  kernel: string;
  cpus: number;
  icount: boolean;
  la57: boolean;
  isolation: Isolation;
  /** One more parameter of the kernel; '': none. */
  append: string;
  tests: T[];
}

/** The kernel's parameters for each. */
const parameters: Readonly<Record<Isolation, string>> = {
  mpk: '',
  none: 'rpal.isolation=none',
  keyless: 'nopku',
  'none-keyless': 'nopku rpal.isolation=none',
};

/** What a guest has to be booted with for this. */
export function machineOfRun(
  run: Omit<GuestRun<unknown>, 'tests'>,
): Pick<GuestOptions, 'kernel' | 'cpus' | 'icount' | 'la57' | 'append'> {
  const { kernel, cpus, icount, la57, isolation } = run;
  const append = [parameters[isolation], run.append].filter((word) => word !== '').join(' ');
  return { kernel, cpus, icount, la57, append };
}

/** Choices for development that narrow what runs. */
export interface Narrowing {
  cpus?: number;
  kernel?: string;
}

/** A debug kernel runs the same test this much slower. */
export const debugSlowness = 6;

/**
 * Groups tests by the guests they want, in a fixed order: normal kernel before debug kernel, few
 * CPUs before many, because those can run beside each other. On the debug kernel each runs once,
 * with the most CPUs it declares.
 */
export function planGuestRuns<T extends { declaration: Declaration }>(
  tests: readonly T[],
  narrowing: Narrowing = {},
): GuestRun<T>[] {
  const runs = new Map<string, GuestRun<T>>();
  const want = (kernel: string, cpus: number, isolation: Isolation, test: T, append = ''): void => {
    const { icount, la57 } = test.declaration;
    if (narrowing.cpus !== undefined && narrowing.cpus !== cpus) return;
    if (narrowing.kernel !== undefined && narrowing.kernel !== kernel) return;
    const key = JSON.stringify([kernel, icount, la57, cpus, isolation, append]);
    const run = runs.get(key) ?? { kernel, cpus, icount, la57, isolation, append, tests: [] };
    run.tests.push(test);
    runs.set(key, run);
  };
  for (const test of tests) {
    const { cpus, isolation, append, debug, stock } = test.declaration;
    const most = Math.max(...cpus);
    for (const way of isolation) {
      for (const count of cpus) want(stock ? 'stock' : 'normal', count, way, test);
      if (debug && !stock) want('debug', most, way, test);
    }
    for (const parameter of append) want('normal', most, 'mpk', test, parameter);
  }
  const rank = (run: GuestRun<T>): number[] => [
    ['normal', 'stock', 'debug'].indexOf(run.kernel),
    run.cpus,
    run.icount ? 1 : 0,
    run.la57 ? 1 : 0,
    isolations.indexOf(run.isolation),
    run.append === '' ? 0 : 1,
  ];
  return [...runs.values()].sort((a, b) => {
    const [left, right] = [rank(a), rank(b)];
    const at = left.findIndex((value, index) => value !== right[index]);
    return at < 0 ? 0 : (left[at] ?? 0) - (right[at] ?? 0);
  });
}

/** How a run is called in headings and failures. */
export function nameOfRun(run: Omit<GuestRun<unknown>, 'tests'>): string {
  const cpus = `${String(run.cpus)} CPU${run.cpus === 1 ? '' : 's'}`;
  const icount = run.icount ? ', icount' : '';
  const la57 = run.la57 ? ', 5 levels' : '';
  const isolation = run.isolation === 'mpk' ? '' : `, isolation=${run.isolation}`;
  const append = run.append === '' ? '' : `, ${run.append}`;
  return `${run.kernel} kernel, ${cpus}${icount}${la57}${isolation}${append}`;
}
