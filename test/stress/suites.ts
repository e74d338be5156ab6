import type { Isolation } from '../declaration.js';

/** A test that `npm test` has only some seconds for. */
interface LongTest {
  name: string;
  /** What it is about, for people. */
  about: string;
  /** Runs only on this kernel; undefined: on any. */
  kernel?: 'debug';
  /** More kernel parameters. */
  append?: string;
}

/** A program that can go on for as long as one likes, and where it does. */
export interface TimedSuite extends LongTest {
  /** In test/kernel; it takes --seconds and --seed. */
  program: string;
  /** Its part of the time, compared with the others. */
  weight: number;
  /** Guests that share its time. */
  cpus: readonly number[];
}

/**
 * Programs that come to an end when they have tried everything, each in guests whose clock counts
 * instructions. They have no part in the time of the others and run only if they are asked for.
 */
export interface CompleteSuite extends LongTest {
  programs: readonly string[];
  /** What makes them try everything. */
  argv: readonly string[];
  isolation: readonly Isolation[];
}

export type Suite = TimedSuite | CompleteSuite;

/** The suites, in the order in which they run. */
export const suites: readonly Suite[] = [
  {
    name: 'fuzz-ioctl',
    program: 'fuzz_ioctl',
    about: 'hostile users of /dev/rpal',
    weight: 2,
    cpus: [1, 2, 4],
  },
  {
    name: 'fuzz-words',
    program: 'fuzz_words',
    about: 'a hostile peer overwrites the shared words',
    weight: 2,
    cpus: [1, 2, 4],
  },
  {
    name: 'chaos',
    program: 'chaos',
    about: 'kills, crashes, stops, signals and tracers under load',
    weight: 4,
    cpus: [1, 2, 3, 4],
  },
  {
    name: 'wait-races',
    program: 'wait_races',
    about: 'kernel events and calls race for a receiver that waits',
    weight: 3,
    cpus: [1, 2, 4],
  },
  {
    name: 'epoll-same',
    program: 'epoll_same',
    about: 'rpal_epoll_wait and epoll_wait, call by call',
    weight: 2,
    cpus: [1, 2],
  },
  {
    name: 'soak',
    program: 'soak',
    about: 'a mixed load, and memory stays flat',
    weight: 3,
    cpus: [2],
  },
  {
    name: 'fail-nth',
    program: 'fail_nth',
    about: 'every allocation and copy fails once',
    weight: 1,
    cpus: [1],
    kernel: 'debug',
    append: 'kmemleak=on',
  },
  {
    name: 'sweep',
    programs: ['sweep_tick', 'sweep_third', 'sweep_sender', 'sweep_receiver'],
    about: 'something happens at every instruction of a call',
    argv: ['--step', '1'],
    isolation: ['mpk', 'none'],
  },
];

/** One guest, one program, and for how long. */
export interface StressRun {
  suite: Suite;
  program: string;
  cpus: number;
  icount: boolean;
  isolation: Isolation;
  /** Undefined: until it has tried everything. */
  seconds?: number;
}

/** What a person can ask for. */
export interface Wanted {
  minutes: number;
  kernel: string;
  only?: string;
  cpus?: number;
}

/**
 * Divides the time among the suites that are wanted, by their weights, and that of each among its
 * guests.
 */
export function planStress(all: readonly Suite[], wanted: Wanted): StressRun[] {
  const { only, cpus: wantedCpus } = wanted;
  const chosen = all.filter(
    ({ name, kernel }) =>
      (only === undefined || name === only) && (kernel === undefined || kernel === wanted.kernel),
  );
  const timed = chosen.filter((suite) => 'weight' in suite);
  const weights = timed.reduce((sum, { weight }) => sum + weight, 0);
  const runs = timed.flatMap((suite) => {
    const { program } = suite;
    const guests = wantedCpus === undefined ? suite.cpus : [wantedCpus];
    const share = (wanted.minutes * 60 * suite.weight) / weights / guests.length;
    const seconds = Math.max(1, Math.round(share));
    return guests.map((cpus): StressRun => ({
      suite,
      program,
      cpus,
      icount: false,
      isolation: 'mpk',
      seconds,
    }));
  });
  if (only === undefined || (wantedCpus ?? 1) !== 1) return runs;
  const complete = chosen.filter((suite) => 'programs' in suite);
  return runs.concat(
    complete.flatMap((suite) =>
      suite.programs.flatMap((program) =>
        suite.isolation.map((isolation) => ({ suite, program, cpus: 1, icount: true, isolation })),
      ),
    ),
  );
}
