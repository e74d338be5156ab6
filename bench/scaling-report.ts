import { z } from 'zod';
import { markdownGrid, terminalGrid } from './grid.js';

const count = z.int().nonnegative();

/** A line of scaling.c. */
export const scalingResult = z.strictObject({
  /** threads: of two services. services: each sender is one. */
  kind: z.enum(['threads', 'services']),
  senders: z.int().positive(),
  receivers: z.int().positive(),
  seconds: z.number().positive(),
  /** Of all senders in this time; each answer was verified. */
  calls: z.int().positive(),
  /** Calls of the sender that had the fewest, and of the one that had the most. */
  slowest: count,
  fastest: z.int().positive(),
  /** ns from before the call until the answer was there. */
  p50: z.number().positive(),
  p99: z.number().positive(),
  worst: z.int().positive(),
  /** Calls whose receiver needed its own task. */
  handedBack: count,
  /** Times that a sender waited in the kernel for its receiver. */
  waits: count,
  /** Context switches of the whole guest. */
  switches: count,
});

const result = z.strictObject({
  ...scalingResult.shape,
  /** What keeps the services apart. */
  isolation: z.enum(['mpk', 'none']),
});

/** The file that `--json` writes. */
export const scalingReport = z.strictObject({
  machine: z.string().min(1),
  accelerator: z.string().min(1),
  kernel: z.string().min(1),
  results: z.array(result).min(1),
});

export type ScalingResult = z.infer<typeof result>;
export type ScalingReport = z.infer<typeof scalingReport>;

function whole(value: number): string {
  return value.toLocaleString('en', { maximumFractionDigits: 0 });
}

function microseconds(ns: number): string {
  return (ns / 1000).toLocaleString('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
}

const head = [
  'senders',
  'receivers',
  'calls/s',
  'slowest/fastest',
  'p50, µs',
  'p99, µs',
  'longest, ms',
  'waits/call',
  'switches/call',
  'hand-backs/call',
];

function cells(one: ScalingResult): string[] {
  const kind = one.kind === 'threads' ? 'threads' : 'services';
  return [
    `${whole(one.senders)} ${one.senders === 1 ? kind.slice(0, -1) : kind}${one.isolation === 'none' ? ', no MPK' : ''}`,
    whole(one.receivers),
    whole(one.calls / one.seconds),
    (one.slowest / one.fastest).toFixed(2),
    microseconds(one.p50),
    microseconds(one.p99),
    microseconds(one.worst / 1000),
    (one.waits / one.calls).toFixed(4),
    (one.switches / one.calls).toFixed(4),
    (one.handedBack / one.calls).toFixed(4),
  ];
}

/** No sender should have less than this share of what another has. */
const fairShare = 0.5;

function verdict(results: readonly ScalingResult[]): string {
  const unfair = results.filter(({ slowest, fastest }) => slowest / fastest < fairShare);
  if (unfair.length === 0) return 'No sender had less than half of the calls of another.';
  const names = unfair.map((one) => `${cells(one)[0] ?? ''} on ${whole(one.receivers)}`);
  return `A sender had less than half of the calls of another: ${names.join('; ')}.`;
}

/** The report as people read it. */
export function scalingTable({ machine, accelerator, kernel, results }: ScalingReport): string {
  const rows = terminalGrid(head, results.map(cells));
  return `${rows}\n${machine}, ${accelerator}; ${kernel}. Every answer was verified. ${verdict(results)}\n`;
}

/** The report as a Markdown table, and what follows from it, for docs/testing.md. */
export function scalingMarkdown({ results }: ScalingReport): string {
  return `${markdownGrid(head, results.map(cells))}\n\n${verdict(results)}`;
}
