import { readFile } from 'node:fs/promises';
import { mean, quantileSorted } from 'simple-statistics';

/** Mean and percentiles of a file of 32-bit numbers. */
export async function summarize(path: string): Promise<{ mean: number; p50: number; p99: number }> {
  const bytes = await readFile(path);
  const samples = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).slice().sort();
  if (samples.length === 0) throw new Error(`${path} has no samples.`);
  const sorted = [...samples];
  return {
    mean: mean(sorted),
    p50: quantileSorted(sorted, 0.5),
    p99: quantileSorted(sorted, 0.99),
  };
}
