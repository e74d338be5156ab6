/** One line of the report, as `--json` writes it. */
export interface BenchResult {
  suite: 'c' | 'node';
  transport: 'rpal' | 'unix';
  /**
   * call: plain rpal_call() there and back, no payload. one-way: from before sending until the
   * receiver has the message. round-trip: until the answer is back.
   */
  measure: 'call' | 'one-way' | 'round-trip';
  /** Node.js: what sent the message. */
  api?: string;
  bytes: number;
  messages: number;
  unit: 'instructions' | 'ns';
  mean: number;
  p50: number;
  p99: number;
  /** Messages whose receiver needed the kernel. */
  handBacksPerCall: number;
  /** System calls of all processes together; null where the kernel cannot count them. */
  syscallsPerCall: number | null;
}

/** The file that `--json` writes. */
export interface BenchReport {
  machine: string;
  kernel: string;
  mode: 'icount' | 'wall';
  /** How the guest ran, and of which state of the repository. */
  accelerator: string;
  node: string;
  results: BenchResult[];
}

/** A line as the programs in the guest print it: percentiles are made of the file of samples. */
export interface MeasuredResult {
  suite: BenchResult['suite'];
  transport: BenchResult['transport'];
  measure: BenchResult['measure'];
  api?: string;
  bytes: number;
  messages: number;
  /** −1: that of the samples. */
  mean: number;
  /** Name of a file of 32-bit numbers. */
  samples: string;
  handBacksPerCall: number;
  syscallsPerCall: number;
}
