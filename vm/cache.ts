import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import envPaths from 'env-paths';
import lockfile from 'proper-lockfile';
import { stoppable } from './end-on-signals.js';
import { Failure } from './failure.js';

/** Where kernels, root file systems and build logs are kept; RPAL_CACHE_DIR overrides it. */
export const cacheDirectory = process.env.RPAL_CACHE_DIR ?? envPaths('rpal', { suffix: '' }).cache;

/** Locks are directories whose time their owner renews; without that they lapse. */
const lockOptions = { realpath: false, stale: 30_000 };

/**
 * Runs `work` while no other process holds the lock of this name. The lock of a process that died
 * without releasing it lapses after half a minute.
 */
export async function withLock<T>(
  name: string,
  onWaiting: () => void,
  work: () => Promise<T>,
): Promise<T> {
  const locks = join(cacheDirectory, 'locks');
  await mkdir(locks, { recursive: true });
  const path = join(locks, name);
  const options = {
    ...lockOptions,
    onCompromised: (cause: Error) => {
      throw new Failure(
        `The lock ${path}.lock was taken away while this command held it (the machine slept, or ` +
          `someone removed it). Nothing is damaged: run the command again.`,
        1,
        { cause },
      );
    },
  };
  let release: () => Promise<void>;
  try {
    release = await lockfile.lock(path, options);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
    onWaiting();
    release = await lockfile.lock(path, {
      ...options,
      retries: { forever: true, factor: 1, minTimeout: 500, maxTimeout: 500 },
    });
  }
  try {
    return await work();
  } finally {
    await release();
  }
}

/**
 * Path of the artefact `kind/key`, built by `build` if it is not there yet. `build` gets an empty
 * directory; only when it succeeds is that directory given its final name, in one step. So an
 * entry is either complete or absent, whatever interrupts a build.
 */
export async function cached(
  kind: string,
  key: string,
  onWaiting: () => void,
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const parent = join(cacheDirectory, kind);
  const path = join(parent, key);
  if (!existsSync(path)) {
    await mkdir(parent, { recursive: true });
    await withLock(`${kind}-${key}`, onWaiting, async () => {
      if (existsSync(path)) return;
      for (const name of await readdir(parent)) {
        // The lock is ours, so a directory of an unfinished build has no owner any more.
        if (name.startsWith(`.${key}.`)) await removeTree(join(parent, name));
      }
      const unfinished = join(parent, `.${key}.${String(process.pid)}`);
      await mkdir(unfinished);
      try {
        await stoppable(() => build(unfinished));
        await rename(unfinished, path);
        await removeAbandoned(kind, parent);
        await prune(parent);
      } catch (error) {
        await removeTree(unfinished);
        throw error;
      }
    });
  }
  const now = new Date();
  await utimes(path, now, now);
  return path;
}

/** Removes what builds of other keys left that were killed: the owner of each would have its lock. */
async function removeAbandoned(kind: string, parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const key = /^\.(.+)\.\d+$/.exec(name)?.[1];
    if (key === undefined) continue;
    const release = await lockfile
      .lock(join(cacheDirectory, 'locks', `${kind}-${key}`), lockOptions)
      .catch(() => undefined);
    if (release === undefined) continue;
    await removeTree(join(parent, name));
    await release();
  }
}

/** Entries that nothing has used for this long are removed when a new one of their kind is made. */
const keptDays = 21;

async function prune(parent: string): Promise<void> {
  const oldest = Date.now() - keptDays * 24 * 3600 * 1000;
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    if ((await stat(path)).mtimeMs < oldest) await removeTree(path);
  }
}

async function removeTree(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: 3 });
}
