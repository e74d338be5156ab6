import { z } from 'zod';

const share = z.number().nonnegative();

/** One line of the report, as `--json` writes it. */
const benchResult = z.strictObject({
  suite: z.enum(['c', 'node']),
  transport: z.enum(['rpal', 'unix']),
  /**
   * call: plain rpal_call() there and back, no payload. one-way: from before sending until the
   * receiver has the message. round-trip: until the answer is back. system-call: the same with a
   * handler that makes one system call, so that its context is handed back.
   */
  measure: z.enum(['call', 'one-way', 'round-trip', 'system-call']),
  /** Node.js: what sent the message. */
  api: z.string().optional(),
  bytes: z.int().nonnegative(),
  messages: z.int().positive(),
  unit: z.enum(['instructions', 'ns']),
  mean: z.number().positive(),
  p50: z.number().positive(),
  p99: z.number().positive(),
  /** Messages whose receiver needed the kernel. */
  handBacksPerCall: share,
  /** System calls of all processes together; null where the kernel cannot count them. */
  syscallsPerCall: share.nullable(),
});

/** The file that `--json` writes; nothing else is ever written. */
export const benchReport = z
  .strictObject({
    machine: z.string().min(1),
    kernel: z.string().min(1),
    mode: z.enum(['icount', 'wall']),
    /** How the guest ran. */
    accelerator: z.string().min(1),
    /** Version of Node.js in the guest. */
    node: z.string().min(1),
    results: z.array(benchResult).min(1),
  })
  .refine(
    ({ mode, results }) =>
      results.every(({ unit }) => unit === (mode === 'icount' ? 'instructions' : 'ns')),
    'icount counts instructions, wall clock ns',
  );

export type BenchResult = z.infer<typeof benchResult>;
export type BenchReport = z.infer<typeof benchReport>;

/** A line as the programs in the guest print it: percentiles are made of the file of samples. */
export const measuredResult = z.strictObject({
  ...benchResult.pick({
    suite: true,
    transport: true,
    measure: true,
    api: true,
    bytes: true,
    messages: true,
    handBacksPerCall: true,
  }).shape,
  /** −1: that of the samples. */
  mean: z.number(),
  /** Name of a file of 32-bit numbers. */
  samples: z.string(),
  /** Less than 0: the kernel could not count them. */
  syscallsPerCall: z.number(),
});

export type MeasuredResult = z.infer<typeof measuredResult>;
