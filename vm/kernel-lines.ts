import { execa } from 'execa';
import { z } from 'zod';
import { Failure } from './failure.js';
import { baseTag, kernelTree } from './kernel-tree.js';

/** Code lines of the series, without blank lines and comments. */
export interface SeriesLines {
  /** In files that are RPAL's own. */
  own: number;
  /** Added to, or changed in, files of others. */
  hooks: number;
}

/** What the series may have: a reviewer reads all of it. */
const limits = { total: 2500, hooks: 250 };

const files = z.record(z.string(), z.object({ code: z.number() }));
const report = z.object({ added: files, modified: files });

/** Sums up what `cloc --by-file --json` says about a difference. Only C counts as kernel code. */
export function seriesLines(json: string): SeriesLines {
  const { added, modified } = report.parse(JSON.parse(json));
  const lines = { own: 0, hooks: 0 };
  for (const [path, { code }] of [...Object.entries(added), ...Object.entries(modified)]) {
    if (!/\.[chS]$/.test(path)) continue;
    lines[/\brpal\b/.test(path) ? 'own' : 'hooks'] += code;
  }
  return lines;
}

/** Counts the tree of `npm run kernel -- tree`, which is made if it is not there. */
export async function countSeries(): Promise<SeriesLines> {
  const tree = await kernelTree();
  const { stdout } = await execa(
    'cloc',
    ['--git-diff-rel', '--by-file', '--json', '--quiet', baseTag, 'HEAD'],
    { cwd: tree, preferLocal: true, localDir: import.meta.dirname },
  );
  const lines = seriesLines(stdout);
  // A series without a line would keep every limit.
  if (lines.own === 0) throw new Failure(`cloc found no code of RPAL in ${tree}:\n${stdout}`);
  return lines;
}

/** What is wrong with these numbers; nothing, if the series keeps its limits. */
export function tooMany({ own, hooks }: SeriesLines): string[] {
  return [
    ...(own + hooks > limits.total
      ? [`${String(own + hooks)} lines of code are more than ${String(limits.total)}`]
      : []),
    ...(hooks > limits.hooks
      ? [`${String(hooks)} lines in files of others are more than ${String(limits.hooks)}`]
      : []),
  ];
}
