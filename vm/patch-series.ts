import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hashFile } from './content-hash.js';
import { Failure } from './failure.js';
import { loggedCommand } from './logged-command.js';
import { inRepository } from './repository.js';

/** Where the patches and their list are. */
export const patchDirectory = inRepository('kernel-patches');

/** The list of patches, in order, and the Linux version they were made for. */
export interface PatchSeries {
  madeFor: string | undefined;
  patches: readonly string[];
}

/**
 * Reads the text of a series file: one patch a line; `# made-for: VERSION` names the Linux version
 * it was exported from, other lines with # are comments.
 */
export function parseSeries(text: string): PatchSeries {
  const lines = text.split('\n').map((line) => line.trim());
  return {
    madeFor: lines.map((line) => /^# made-for: (\S+)$/.exec(line)?.[1]).find(Boolean),
    patches: lines.filter((line) => line !== '' && !line.startsWith('#')),
  };
}

/** The series of this checkout; empty if there is none yet. */
export async function patchSeries(): Promise<PatchSeries> {
  const path = join(patchDirectory, 'series');
  return existsSync(path) ? parseSeries(await readFile(path, 'utf8')) : parseSeries('');
}

/** What identifies the content of the series. */
export async function seriesHashes(series: PatchSeries): Promise<string[]> {
  return Promise.all(series.patches.map((name) => hashFile(join(patchDirectory, name))));
}

/** Message for a patch that does not apply to the source at hand. */
export function doesNotApply(patch: string, series: PatchSeries, version: string): string {
  const made = series.madeFor === undefined ? '' : ` The series was made for ${series.madeFor}.`;
  return series.madeFor === version
    ? `${patch} does not apply to Linux ${version}, the version the series was made for: either ` +
        `the patch or the source has been changed. Compare kernel-patches/ with its last commit, ` +
        `and the source with the original.`
    : `${patch} does not apply to Linux ${version} without fuzz.${made}\n` +
        `Either use that source (RPAL_LINUX_SOURCE=<tarball or tree>), or carry the series over:\n` +
        `  npm run kernel -- tree      prints the path of a git tree with the patches that apply\n` +
        `  (there: git am --3way the remaining patches, resolve, commit)\n` +
        `  npm run kernel -- export    writes the result back to kernel-patches/`;
}

/** Applies the series to a tree, strictly: no fuzz, no rejects left behind. */
export async function applySeries(
  tree: string,
  series: PatchSeries,
  version: string,
): Promise<void> {
  for (const [index, name] of series.patches.entries()) {
    await loggedCommand(
      'patch',
      [
        '-p1',
        '-F0',
        '--batch',
        '--forward',
        '--no-backup-if-mismatch',
        '-i',
        join(patchDirectory, name),
      ],
      { log: 'patch', append: index > 0, cwd: tree },
    ).catch((cause: unknown) => {
      throw new Failure(
        `${cause instanceof Error ? cause.message : String(cause)}\n` +
          doesNotApply(name, series, version),
        1,
        { cause },
      );
    });
  }
}
