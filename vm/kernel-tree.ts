import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDirectory, withLock } from './cache.js';
import { Failure } from './failure.js';
import { ensureHostPackages, kernelNeeds } from './host-packages.js';
import { linuxSource, treeVersion } from './linux-source.js';
import { loggedCommand } from './logged-command.js';
import { doesNotApply, patchDirectory, patchSeries, seriesHashes } from './patch-series.js';
import { step, waitingFor } from './progress.js';

/** Name that the first commit, the unpatched source, has in the tree. */
export const baseTag = 'rpal-base';

/** The commits are for reading, not for a signature; who works in the tree uses an own identity. */
const committer = ['-c', 'user.name=RPAL developers', '-c', 'user.email=rpal@localhost'];

/** One tree for people to work in; where it is does not change between calls. */
function treePath(): string {
  return join(cacheDirectory, 'kernel-tree');
}

/** Notes beside the tree which series it was made from, so that no work in it is ever lost. */
const noteName = 'rpal-series.json';

async function git(tree: string, ...args: string[]): Promise<string> {
  const { stdout } = await execa('git', ['-C', tree, ...args]);
  return stdout;
}

/**
 * The path of a git tree of the patched source: one commit with the stock source, then one for each
 * patch. An existing tree is kept as it is: there may be work in it.
 */
export async function kernelTree(): Promise<string> {
  await ensureHostPackages(kernelNeeds);
  const tree = treePath();
  return withLock('kernel-tree', waitingFor('the kernel tree'), async () => {
    const series = await patchSeries();
    const hashes = await seriesHashes(series);
    if (existsSync(tree)) {
      const note: unknown = JSON.parse(await readFile(join(tree, '.git', noteName), 'utf8'));
      if (JSON.stringify(note) !== JSON.stringify(hashes)) {
        process.stderr.write(
          `kernel-patches/ has changed since this tree was made. The tree is left as it is; for ` +
            `a new one remove or rename it and run this command again.\n`,
        );
      }
      return tree;
    }
    const source = await linuxSource();
    const unfinished = `${tree}.unfinished`;
    await rm(unfinished, { recursive: true, force: true });
    await mkdir(cacheDirectory, { recursive: true });
    await step(
      `Git tree of Linux ${source.version} with ${String(series.patches.length)} patches`,
      async (report) => {
        report('copying the source');
        // No hard links: an editor that writes in place would change the source, too.
        await execa('cp', ['--archive', '--reflink=auto', source.tree, unfinished]);
        await rm(join(unfinished, '.git'), { recursive: true, force: true });
        const options = { log: 'kernel-tree', cwd: unfinished, append: true };
        await loggedCommand('git', ['init', '--quiet', '--initial-branch=rpal'], {
          ...options,
          append: false,
        });
        report('committing the stock source');
        await loggedCommand('git', ['add', '--all', '--force'], options);
        await loggedCommand(
          'git',
          [...committer, 'commit', '--quiet', '--no-verify', '-m', `Linux ${source.version}`],
          options,
        );
        await loggedCommand('git', ['tag', baseTag], options);
        for (const name of series.patches) {
          report(name);
          await loggedCommand(
            'git',
            [...committer, 'am', '--quiet', '--no-3way', join(patchDirectory, name)],
            options,
          ).catch(async (cause: unknown) => {
            await git(unfinished, 'am', '--abort').catch(() => undefined);
            // The patches before it are in place: that is the tree to go on from.
            await finish(unfinished, tree, hashes);
            throw new Failure(
              `${doesNotApply(name, series, source.version)}\nThe tree: ${tree}`,
              1,
              {
                cause,
              },
            );
          });
        }
        await finish(unfinished, tree, hashes);
      },
    ).catch(async (cause: unknown) => {
      await rm(unfinished, { recursive: true, force: true });
      throw cause;
    });
    return tree;
  });
}

async function finish(unfinished: string, tree: string, hashes: string[]): Promise<void> {
  await writeFile(join(unfinished, '.git', noteName), JSON.stringify(hashes));
  await rename(unfinished, tree);
}

/**
 * Writes the commits after `rpal-base` of a tree back to kernel-patches/. Equal commits give equal
 * files: no dates of the export, hashes or versions of git are in them. Returns the file names.
 */
export async function exportSeries(tree = treePath()): Promise<string[]> {
  if (!existsSync(join(tree, '.git'))) {
    throw new Failure(
      `There is no kernel tree at ${tree}. Make it with \`npm run kernel -- tree\`, or name ` +
        `another git tree with --tree; its stock commit must be tagged ${baseTag}.`,
    );
  }
  const dirty = await git(tree, 'status', '--porcelain', '--untracked-files=no');
  if (dirty !== '') {
    throw new Failure(
      `${tree} has changes that are not committed, so they would not be exported:\n${dirty}\n` +
        `Commit or drop them first.`,
    );
  }
  const version = await treeVersion(tree);
  const merges = await git(tree, 'rev-list', '--merges', `${baseTag}..HEAD`).catch(
    (cause: unknown) => {
      throw new Failure(
        `${tree} has no tag ${baseTag}. Put it on the commit with the stock source: ` +
          `git -C ${tree} tag ${baseTag} <commit>`,
        1,
        { cause },
      );
    },
  );
  if (merges !== '') {
    throw new Failure(`A series cannot have merges. Rebase ${tree} on ${baseTag} first.`);
  }
  // Where .git is a file, too: in a work tree of another repository.
  const { stdout: gitDirectory } = await execa('git', [
    ...['-C', tree, 'rev-parse', '--absolute-git-dir'],
  ]);
  const directory = join(gitDirectory, 'rpal-export');
  await rm(directory, { recursive: true, force: true });
  await execa('git', [
    '-C',
    tree,
    // Settings of the person's own must not show in the files.
    ...['diff.algorithm=histogram', 'diff.noprefix=false', 'diff.mnemonicPrefix=false'].flatMap(
      (setting) => ['-c', setting],
    ),
    'format-patch',
    '--no-signature',
    '--zero-commit',
    '--full-index',
    '--no-numbered',
    '--no-stat',
    '--no-renames',
    '--no-cover-letter',
    '--unified=3',
    `--output-directory=${directory}`,
    `${baseTag}..HEAD`,
  ]);
  const names: string[] = [];
  for (const name of existsSync(directory) ? (await readdir(directory)).sort() : []) {
    const topical = patchName(name);
    names.push(topical);
    await rename(join(directory, name), join(directory, topical));
  }
  for (const name of await readdir(patchDirectory)) {
    if (/^\d{4}-.*\.patch$/.test(name)) await rm(join(patchDirectory, name));
  }
  for (const name of names) {
    const text = await readFile(join(directory, name), 'utf8');
    await writeFile(join(patchDirectory, name), text);
  }
  await writeFile(join(patchDirectory, 'series'), seriesText(version, names));
  if (tree === treePath()) {
    const hashes = await seriesHashes(await patchSeries());
    await writeFile(join(tree, '.git', noteName), JSON.stringify(hashes));
  }
  return names;
}

/** NNNN-rpal-topic.patch, whatever prefix the subject line has. */
export function patchName(formatted: string): string {
  const parts = /^(\d{4})-(.*)\.patch$/.exec(formatted);
  if (parts?.[1] === undefined || parts[2] === undefined) {
    throw new Failure(`git format-patch wrote a file with an unexpected name: ${formatted}`);
  }
  const topic = parts[2].replace(/^rpal-+/i, '').toLowerCase();
  return `${parts[1]}-rpal-${topic}.patch`;
}

/** The text of kernel-patches/series. */
export function seriesText(version: string, names: readonly string[]): string {
  return [
    '# The patches in the order in which they apply. Written by `npm run kernel -- export`.',
    `# made-for: ${version}`,
    ...names,
    '',
  ].join('\n');
}
