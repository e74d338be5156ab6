import { z } from 'zod';
import { markdownGrid, terminalGrid } from './grid.js';

/** How much more a path may cost with the patches, where there is no service. */
export const limitPercent = 0.5;

/** A line of kernel_paths.c: the median of the rounds. */
export const measuredPath = z.strictObject({
  path: z.string().min(1),
  cpus: z.int().positive(),
  rounds: z.int().positive(),
  instructions: z.int().positive(),
});

export type MeasuredPath = z.infer<typeof measuredPath>;

const comparedPath = z.strictObject({
  ...measuredPath.omit({ instructions: true }).shape,
  /** Guest instructions on the kernel without the patches. */
  stock: z.int().positive(),
  /** And with them. */
  normal: z.int().positive(),
});

/** The file that `--json` writes. */
export const kernelPathsReport = z.strictObject({
  machine: z.string().min(1),
  kernels: z.strictObject({ stock: z.string().min(1), normal: z.string().min(1) }),
  paths: z.array(comparedPath).min(1),
});

export type ComparedPath = z.infer<typeof comparedPath>;
export type KernelPathsReport = z.infer<typeof kernelPathsReport>;

/** Puts what the two kernels said beside each other. Both have to have every path. */
export function compare(
  stock: readonly MeasuredPath[],
  normal: readonly MeasuredPath[],
): ComparedPath[] {
  const nameOf = ({ path, cpus, rounds }: MeasuredPath): string => `${path}, ${cpus}, ${rounds}`;
  if (stock.map(nameOf).join('\n') !== normal.map(nameOf).join('\n')) {
    throw new Error('The two kernels have not run the same paths.');
  }
  return stock.map(({ instructions, ...rest }, index) => ({
    ...rest,
    stock: instructions,
    normal: normal[index]?.instructions ?? NaN,
  }));
}

/** How much more a path costs with the patches. */
export function percentMore({ stock, normal }: ComparedPath): number {
  return ((normal - stock) / stock) * 100;
}

/** Paths that cost too much. */
export function overLimit(paths: readonly ComparedPath[]): ComparedPath[] {
  return paths.filter((path) => percentMore(path) > limitPercent);
}

const head = ['median, guest instructions', 'CPUs', 'stock', 'patched', 'difference'];

function cells(compared: ComparedPath): string[] {
  const percent = percentMore(compared);
  return [
    compared.path,
    compared.cpus.toLocaleString('en'),
    compared.stock.toLocaleString('en'),
    compared.normal.toLocaleString('en'),
    `${percent < 0 ? '−' : '+'}${Math.abs(percent).toFixed(2)} %`,
  ];
}

function verdict(paths: readonly ComparedPath[]): string {
  const over = overLimit(paths);
  return over.length === 0
    ? `Every path is within ${limitPercent} %.`
    : `Over ${limitPercent} %: ${over.map(({ path, cpus }) => `${path} (CPUs: ${cpus})`).join('; ')}.`;
}

/** The report as people read it. */
export function kernelPathsTable({ machine, kernels, paths }: KernelPathsReport): string {
  const rows = terminalGrid(head, paths.map(cells));
  return `${rows}\n${machine}; stock: ${kernels.stock}; patched: ${kernels.normal}.\n${verdict(paths)}\n`;
}

/** The report as a Markdown table, and what follows from it, for docs/testing.md. */
export function kernelPathsMarkdown({ paths }: KernelPathsReport): string {
  return `${markdownGrid(head, paths.map(cells))}\n\n${verdict(paths)}`;
}
