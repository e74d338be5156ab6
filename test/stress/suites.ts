/** A program that can go on for as long as one likes, and where it does. */
export interface Suite {
  name: string;
  /** In test/kernel; it takes --seconds and --seed. */
  program: string;
  /** What it is about, for people. */
  about: string;
  /** Its part of the time, compared with the others. */
  weight: number;
  /** Guests that share its time. */
  cpus: readonly number[];
  /** Runs only on this kernel; undefined: on any. */
  kernel?: 'debug';
  /** More kernel parameters. */
  append?: string;
}

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
];

/** One guest, one program, and for how long. */
export interface StressRun {
  suite: Suite;
  cpus: number;
  seconds: number;
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
  const chosen = all.filter(
    ({ name, kernel }) =>
      (wanted.only === undefined || name === wanted.only) &&
      (kernel === undefined || kernel === wanted.kernel),
  );
  const weights = chosen.reduce((sum, { weight }) => sum + weight, 0);
  return chosen.flatMap((suite) => {
    const guests = wanted.cpus === undefined ? suite.cpus : [wanted.cpus];
    const seconds = (wanted.minutes * 60 * suite.weight) / weights / guests.length;
    return guests.map((cpus) => ({ suite, cpus, seconds: Math.max(1, Math.round(seconds)) }));
  });
}
