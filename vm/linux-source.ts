import { existsSync } from 'node:fs';
import { readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cached } from './cache.js';
import { contentKey, hashFile } from './content-hash.js';
import { Failure } from './failure.js';
import { candidateVersion, installPackages } from './host-packages.js';
import { loggedCommand } from './logged-command.js';
import { step, waitingFor } from './progress.js';

const debianPackage = 'linux-source-6.12';
const debianTarball = `/usr/src/${debianPackage}.tar.xz`;

/** An unpacked, unpatched Linux tree. Do not write to it: builds share it through hard links. */
export interface LinuxSource {
  tree: string;
  /** Version by the tree's own Makefile, such as 6.12.117. */
  version: string;
  /** Changes with the content of the tree. */
  hash: string;
}

/**
 * The Linux source to build: RPAL_LINUX_SOURCE (a tarball or a tree) or Debian's
 * linux-source-6.12, fetched through apt if it is not installed.
 */
export async function linuxSource(): Promise<LinuxSource> {
  const named = process.env.RPAL_LINUX_SOURCE;
  if (named !== undefined && named !== '') return sourceFrom(named);
  if (!existsSync(debianTarball) && process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    await step(`Installing ${debianPackage}`, () => installPackages([debianPackage]));
  }
  return sourceFrom(existsSync(debianTarball) ? debianTarball : await downloadedTarball());
}

/** Without root the package can be fetched and unpacked, only not installed. */
async function downloadedTarball(): Promise<string> {
  const version = existsSync('/usr/bin/apt-get')
    ? await candidateVersion(debianPackage)
    : undefined;
  if (version === undefined) {
    throw new Failure(
      `There is no Linux source: the package ${debianPackage} is not installed and apt does not ` +
        `know it here. Get a Linux 6.12 source tree or tarball from wherever you trust and name ` +
        `it:\n\n  RPAL_LINUX_SOURCE=/path/to/linux-6.12.N.tar.xz\n`,
    );
  }
  const entry = await cached(
    'linux-package',
    contentKey({ debianPackage, version }),
    waitingFor(debianPackage),
    async (directory) => {
      await step(`Fetching ${debianPackage} ${version}`, async () => {
        const options = { log: 'linux-package', cwd: directory };
        await loggedCommand('apt-get', ['download', `${debianPackage}=${version}`], options);
        await loggedCommand('sh', ['-c', 'dpkg -x *.deb unpacked && rm *.deb'], {
          ...options,
          append: true,
        });
        await rename(join(directory, 'unpacked', debianTarball), join(directory, 'linux.tar.xz'));
        await rm(join(directory, 'unpacked'), { recursive: true });
      });
    },
  );
  return join(entry, 'linux.tar.xz');
}

async function sourceFrom(path: string): Promise<LinuxSource> {
  const info = await stat(path).catch(() => undefined);
  if (info === undefined) {
    throw new Failure(`RPAL_LINUX_SOURCE names ${path}, and there is no such file or directory.`);
  }
  if (info.isDirectory()) {
    return { tree: path, version: await treeVersion(path), hash: await treeHash(path) };
  }
  const hash = await hashFile(path);
  const tree = await cached(
    'linux',
    hash.slice(0, 20),
    waitingFor('the Linux source'),
    async (directory) => {
      await step('Unpacking the Linux source', () =>
        loggedCommand('tar', ['-C', directory, '--strip-components=1', '-xf', path], {
          log: 'linux',
        }),
      );
    },
  );
  return { tree, version: await treeVersion(tree), hash };
}

/** Version that the Makefile of a Linux tree declares. */
export async function treeVersion(tree: string): Promise<string> {
  const makefile = await readFile(join(tree, 'Makefile'), 'utf8').catch(() => '');
  return versionFromMakefile(makefile, tree);
}

/** As treeVersion, from the text of the Makefile; `where` is for the message. */
export function versionFromMakefile(makefile: string, where: string): string {
  const value = (name: string): string | undefined =>
    new RegExp(`^${name} *= *(\\S*)`, 'm').exec(makefile)?.[1];
  const [major, minor, patch] = [value('VERSION'), value('PATCHLEVEL'), value('SUBLEVEL')];
  if (major === undefined || minor === undefined || patch === undefined) {
    throw new Failure(`${where} is not a Linux source tree: its Makefile has no VERSION.`);
  }
  return `${major}.${minor}.${patch}${value('EXTRAVERSION') ?? ''}`;
}

/**
 * A tree has no checksum. In a git tree the commit and the uncommitted changes tell; elsewhere the
 * path, and the size and time of every file.
 */
async function treeHash(tree: string): Promise<string> {
  if (existsSync(join(tree, '.git'))) {
    const git = (...args: string[]) => execa('git', ['-C', tree, ...args]);
    const [head, changes] = await Promise.all([git('rev-parse', 'HEAD'), git('diff', 'HEAD')]);
    return contentKey({ head: head.stdout, changes: changes.stdout });
  }
  const { stdout } = await execa('find', [tree, '-type', 'f', '-printf', '%P %s %T@\n'], {
    maxBuffer: 100_000_000,
  });
  return contentKey({ tree, files: stdout.split('\n').sort() });
}
