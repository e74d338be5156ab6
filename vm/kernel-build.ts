import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { cacheDirectory, cached } from './cache.js';
import { contentKey, hashFile } from './content-hash.js';
import { Failure } from './failure.js';
import { ensureHostPackages, kernelCheckNeeds, kernelNeeds } from './host-packages.js';
import { droppedOptions, parseKernelOptions } from './kernel-config.js';
import { linuxSource, type LinuxSource } from './linux-source.js';
import { loggedCommand } from './logged-command.js';
import { applySeries, patchSeries, seriesHashes, type PatchSeries } from './patch-series.js';
import { step, waitingFor, type Report } from './progress.js';
import { inRepository } from './repository.js';

/** Kernels that this repository builds. */
export const kernelFlavours = ['normal', 'debug', 'kcsan', 'stock', 'without'] as const;
export type KernelFlavour = (typeof kernelFlavours)[number];

/** Files of a built kernel. */
export interface Kernel {
  directory: string;
  bzImage: string;
  vmlinux: string;
}

/** Something about the configuration that changed what a build means; part of every key. */
const recipe = '1';

export function fragmentsOf(flavour: KernelFlavour, series: PatchSeries): string[] {
  const fragments = ['base'];
  // Until the series has its first patch there is no CONFIG_RPAL to ask for.
  if (flavour !== 'stock' && flavour !== 'without' && series.patches.length > 0) {
    fragments.push('rpal');
  }
  if (flavour === 'debug' || flavour === 'kcsan' || flavour === 'without') fragments.push(flavour);
  return fragments.map((name) => inRepository('kernel-patches', 'configs', `${name}.config`));
}

/** The kernel of this flavour, built if the cache does not have it. */
export async function kernel(flavour: KernelFlavour): Promise<Kernel> {
  await ensureHostPackages(kernelNeeds);
  const source = await linuxSource();
  const allPatches = await patchSeries();
  const series = flavour === 'stock' ? { ...allPatches, patches: [] } : allPatches;
  const fragments = fragmentsOf(flavour, series);
  const compiler = await execa('gcc', ['--version']);
  const key = contentKey({
    recipe,
    source: source.hash,
    patches: await seriesHashes(series),
    fragments: await Promise.all(fragments.map(hashFile)),
    compiler: compiler.stdout,
  });
  const title = `Kernel ${source.version} (${flavour})`;
  const directory = await cached('kernel', key, waitingFor(title), async (unfinished) => {
    await step(title, (report) =>
      build({ source, series, fragments, flavour, directory: unfinished, report }),
    );
  });
  return filesIn(directory);
}

function filesIn(directory: string): Kernel {
  return {
    directory,
    bzImage: join(directory, 'bzImage'),
    vmlinux: join(directory, 'vmlinux'),
  };
}

interface Build {
  source: LinuxSource;
  series: PatchSeries;
  fragments: readonly string[];
  flavour: KernelFlavour;
  directory: string;
  report: Report;
}

/** Makes targets of a kernel tree. */
type Make = (targets: readonly string[], onLine?: (line: string) => void) => Promise<void>;

/**
 * A hard-linked copy of the source (a second instead of half a minute of unpacking; patch replaces
 * files, so the original stays as it is), patched and configured. The object directory lies inside
 * the tree: then kbuild uses relative paths, and ccache recognises files wherever the cache is.
 */
export async function configuredTree(
  { source, series, fragments, report }: Omit<Build, 'flavour' | 'directory'>,
  tree: string,
  log: string,
): Promise<{ objects: string; make: Make }> {
  const objects = join(tree, 'build');
  report('copying the source');
  await copyTree(source.tree, tree);
  report('applying patches');
  await applySeries(tree, series, source.version);

  report('configuring');
  await mkdir(objects);
  const make: Make = async (targets, onLine) => {
    await loggedCommand(
      'make',
      [
        'O=build',
        `-j${String(availableParallelism())}`,
        'CC=ccache gcc',
        'HOSTCC=ccache gcc',
        ...targets,
      ],
      {
        log,
        append: true,
        cwd: tree,
        // Fixed, so that equal input gives an equal kernel.
        env: { KBUILD_BUILD_TIMESTAMP: '@0', KBUILD_BUILD_USER: 'rpal', KBUILD_BUILD_HOST: 'rpal' },
        ...(onLine === undefined ? {} : { onLine }),
      },
    );
  };
  await loggedCommand('true', [], { log });
  await make(['tinyconfig']);
  const wanted = (await Promise.all(fragments.map((path) => readFile(path, 'utf8')))).join('\n');
  const config = join(objects, '.config');
  await writeFile(config, `${await readFile(config, 'utf8')}\n${wanted}`);
  await make(['olddefconfig']);
  const dropped = droppedOptions(
    parseKernelOptions(wanted),
    parseKernelOptions(await readFile(config, 'utf8')),
  );
  if (dropped.length > 0) {
    throw new Failure(
      `This kernel cannot have some of the options in kernel-patches/configs:\n` +
        dropped
          .map(({ name, wanted: value, got }) => `  ${name}: wanted ${value}, got ${got}\n`)
          .join('') +
        `Either a dependency is missing from the fragments or the option does not exist in ` +
        `Linux ${source.version}.`,
    );
  }
  return { objects, make };
}

async function build({ flavour, directory, report, ...input }: Build): Promise<void> {
  const tree = join(directory, 'tree');
  const { objects, make } = await configuredTree({ ...input, report }, tree, `kernel-${flavour}`);
  let files = 0;
  const expected = flavour === 'debug' ? 2450 : 2350;
  await make(['bzImage', 'vmlinux'], (line) => {
    if (!/^ {2}(CC|AS|HOSTCC|LD|AR) /.test(line)) return;
    files++;
    report(`${String(files)} of about ${String(Math.max(expected, files))} steps`);
  });
  for (const [from, to] of [
    [join(objects, 'arch/x86/boot/bzImage'), 'bzImage'],
    [join(objects, 'vmlinux'), 'vmlinux'],
    [join(objects, '.config'), 'config'],
  ] as const) {
    await copyFile(from, join(directory, to));
  }
  await rm(tree, { recursive: true });
}

/** What sparse, and the compiler when it is asked to be strict (W=1), say about RPAL's own files. */
export async function kernelWarnings(): Promise<string[]> {
  await ensureHostPackages(kernelCheckNeeds);
  const source = await linuxSource();
  const series = await patchSeries();
  const said: string[] = [];
  await inScratchTree('warnings', async (tree) => {
    await step(`RPAL in Linux ${source.version}, with W=1 and sparse`, async (report) => {
      const { make } = await configuredTree(
        { source, series, fragments: fragmentsOf('normal', series), report },
        tree,
        'kernel-warnings',
      );
      report('compiling');
      let compiled = 0;
      let checked = 0;
      await make(['W=1', 'C=2', 'arch/x86/rpal/'], (line) => {
        if (/^ {2}CC +arch\/x86\/rpal\//.test(line)) compiled++;
        if (/^ {2}CHECK +.*arch\/x86\/rpal\//.test(line)) checked++;
        if (/\b(warning|error):/.test(line)) said.push(line);
      });
      if (compiled === 0 || checked < compiled) {
        throw new Failure(
          `make W=1 C=2 arch/x86/rpal/ has compiled ${String(compiled)} files and checked ` +
            `${String(checked)}; the log is kernel-warnings in the cache.`,
        );
      }
    });
  });
  return said;
}

/** Gives @use the path of a tree that is not there yet, and removes what it has made there. */
export async function inScratchTree(
  name: string,
  use: (tree: string) => Promise<void>,
): Promise<void> {
  // Beside the source: the copy is one of hard links.
  const directory = await mkdtemp(join(cacheDirectory, `${name}-`));
  try {
    await use(join(directory, 'tree'));
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Copies a tree with hard links where the file system allows it. */
export async function copyTree(from: string, to: string): Promise<void> {
  const linked = await execa('cp', ['--archive', '--link', from, to], { reject: false });
  if (!linked.failed) return;
  await rm(to, { recursive: true, force: true });
  await execa('cp', ['--archive', from, to]);
}

/**
 * The kernel that `--kernel` names: a flavour, or the path of a bzImage (the vmlinux of its build
 * tree is only used by debuggers).
 */
export async function kernelNamed(name: string): Promise<string> {
  const flavour = kernelFlavours.find((known) => known === name);
  if (flavour !== undefined) return (await kernel(flavour)).bzImage;
  if (existsSync(name)) return name;
  throw new Failure(
    `--kernel ${name}: neither one of ${kernelFlavours.join(', ')} nor a file. ` +
      `Give the path of a bzImage to boot a kernel of your own.`,
  );
}
