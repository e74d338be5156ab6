import { mkdir, rename, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { cached } from './cache.js';
import { contentKey } from './content-hash.js';
import { ensureHostPackages, guestNeeds } from './host-packages.js';
import { copyTree } from './kernel-build.js';
import { linuxSource } from './linux-source.js';
import { loggedCommand } from './logged-command.js';
import { step, waitingFor } from './progress.js';
import { selftestRootFileSystem } from './rootfs.js';
import { buildInRootFileSystem } from './rootfs-build.js';

/** The kernel's own tests, built and installed. */
export interface KernelSelftests {
  /** One directory below it for each collection. */
  directory: string;
  /** The root file system that they were built in and run in. */
  root: string;
  /** Version of the source that they are from. */
  version: string;
}

/** Part of the key: changes when the recipe below does. */
const recipe = '1';

/**
 * Builds collections of tools/testing/selftests of the unpatched source, with the guest's compiler
 * and against that source's own headers: the programs are the same for every kernel they run on. If
 * one of them does not build, none counts.
 */
export async function kernelSelftests(collections: readonly string[]): Promise<KernelSelftests> {
  await ensureHostPackages(guestNeeds);
  const source = await linuxSource();
  const root = await selftestRootFileSystem();
  const key = contentKey({ recipe, source: source.hash, root, collections });
  const title = `Selftests of Linux ${source.version}`;
  const entry = await cached('selftests', key, waitingFor(title), async (directory) => {
    await step(title, async (report) => {
      const log = 'selftests';
      const tree = join(directory, 'tree');
      const installed = join(directory, 'installed');
      report('copying the source');
      await copyTree(source.tree, tree);
      report('headers');
      const jobs = `-j${availableParallelism()}`;
      await loggedCommand('make', ['ARCH=x86_64', jobs, 'headers'], { log, cwd: tree });
      report('building');
      await mkdir(installed);
      await buildInRootFileSystem(
        [
          'make',
          ...['-C', join(tree, 'tools', 'testing', 'selftests')],
          `TARGETS=${collections.join(' ')}`,
          // Without it make is content if one of the collections builds.
          'FORCE_TARGETS=1',
          // mm/khugepaged.c of 6.12 uses it and does not include kselftest.h.
          'USERCFLAGS=-DKSFT_SKIP=4',
          `KSFT_INSTALL_PATH=${installed}`,
          jobs,
          'install',
        ],
        `${log}-build`,
        { root, directory },
      );
      await rename(installed, join(directory, 'selftests'));
      await rm(tree, { recursive: true });
    });
  });
  return { directory: join(entry, 'selftests'), root, version: source.version };
}
