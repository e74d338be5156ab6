import { existsSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { recordedBuild } from './build-record.js';
import { withLock } from './cache.js';
import { contentKey, hashFile } from './content-hash.js';
import { step, waitingFor } from './progress.js';
import { inRepository, repository } from './repository.js';
import { buildInRootFileSystem } from './rootfs-build.js';
import { rootFileSystem } from './rootfs.js';

/** The parts of the native code, in the order in which they are built. */
export type NativePartName = 'librpal' | 'addon' | 'kernel-tests' | 'samples' | 'bench';

/** A part of the native code: what it is made of, how, and where it goes. */
interface NativePart {
  name: NativePartName;
  sources: readonly string[];
  /** Built only if this file exists. */
  needs: string;
  argv: readonly string[];
  /** The directory in build/ that this part alone writes to. */
  outputs: string;
}

const parts: readonly NativePart[] = [
  {
    name: 'librpal',
    sources: ['native/librpal', 'native/preload'],
    needs: 'native/librpal/Makefile',
    argv: ['make', '-C', 'native/librpal', `BUILD=${inRepository('build', 'librpal')}`],
    outputs: 'librpal',
  },
  {
    name: 'addon',
    sources: ['native', 'binding.gyp', 'package-lock.json'],
    needs: 'binding.gyp',
    // Not `rebuild`: that would empty build/, which others use as well.
    argv: [
      'node',
      'node_modules/node-gyp/bin/node-gyp.js',
      'configure',
      'build',
      '--release',
      '--nodedir=/usr',
    ],
    outputs: 'Release',
  },
  {
    name: 'kernel-tests',
    sources: ['native/librpal', 'test/kernel'],
    needs: 'test/kernel/Makefile',
    argv: ['make', '-C', 'test/kernel', `BUILD=${inRepository('build', 'kernel-tests')}`],
    outputs: 'kernel-tests',
  },
  {
    name: 'samples',
    sources: ['native/librpal', 'examples/c', 'test/samples'],
    needs: 'test/samples/Makefile',
    argv: ['make', '-C', 'test/samples', `BUILD=${inRepository('build', 'samples')}`],
    outputs: 'samples',
  },
  {
    name: 'bench',
    sources: [
      'native/librpal',
      'bench/c',
      'test/kernel/two_services.h',
      'test/kernel/meet_clients.h',
      'test/kernel/raw_syscall.h',
      'test/kernel/tap.h',
    ],
    needs: 'bench/c/Makefile',
    argv: ['make', '-C', 'bench/c', `BUILD=${inRepository('build', 'bench')}`],
    outputs: 'bench',
  },
];

/**
 * Builds librpal, the addon and the C tests (or only the parts named) into build/, for the guest
 * and with its tools. Parts whose sources have not changed since the last time are left alone.
 */
export async function buildNative(
  wanted: readonly NativePartName[] = ['librpal', 'addon', 'kernel-tests'],
): Promise<void> {
  const root = await rootFileSystem();
  const lock = `native-${contentKey({ repository })}`;
  await withLock(lock, waitingFor('the native code'), async () => {
    for (const part of parts) {
      if (!wanted.includes(part.name) || !existsSync(inRepository(part.needs))) continue;
      await mkdir(inRepository('build'), { recursive: true });
      await recordedBuild(
        {
          record: inRepository('build', `.${part.name}.json`),
          outputs: inRepository('build', part.outputs),
          key: contentKey({ sources: await hashSources(part.sources) }),
          tools: contentKey({ root, argv: part.argv }),
        },
        () =>
          step(`Building ${part.name}`, () =>
            buildInRootFileSystem(part.argv, `build-${part.name}`),
          ),
      );
    }
  });
}

async function hashSources(sources: readonly string[]): Promise<string[]> {
  const hashes: string[] = [];
  for (const source of sources) {
    const path = inRepository(source);
    if (!existsSync(path)) continue;
    const files = await readdir(path, { recursive: true, withFileTypes: true }).catch(() => []);
    const names = files
      .filter((file) => file.isFile())
      .map((file) => join(file.parentPath, file.name))
      .sort();
    for (const name of names.length === 0 ? [path] : names) {
      hashes.push(name, await hashFile(name));
    }
  }
  return hashes;
}
