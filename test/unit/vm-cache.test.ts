import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { contentKey } from '../../vm/content-hash.js';

describe('contentKey', () => {
  it('does not depend on the order of the names', () => {
    expect(contentKey({ a: '1', b: ['2', '3'] })).toBe(contentKey({ b: ['2', '3'], a: '1' }));
  });

  it('depends on every value and every boundary', () => {
    const keys = [
      contentKey({ a: ['1', '2'] }),
      contentKey({ a: ['2', '1'] }),
      contentKey({ a: ['12'] }),
      contentKey({ a: '12' }),
      contentKey({ a: '1', b: '2' }),
      contentKey({ ab: '12' }),
      contentKey({ a: ['1', '2', ''] }),
    ];
    expect(new Set(keys).size).toBe(keys.length);
  });
});

describe('cached', () => {
  let directory: string;
  let cached: typeof import('../../vm/cache.js').cached;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'rpal-cache-'));
    vi.stubEnv('RPAL_CACHE_DIR', directory);
    vi.resetModules();
    ({ cached } = await import('../../vm/cache.js'));
  });

  afterEach(async () => {
    vi.unstubAllEnvs();
    await rm(directory, { recursive: true, force: true });
  });

  const nobody = (): void => {
    throw new Error('nobody else should hold the lock');
  };

  it('builds once', async () => {
    const build = vi.fn((path: string) => writeFile(join(path, 'file'), 'x'));
    const first = await cached('kind', 'key', nobody, build);
    expect(await cached('kind', 'key', nobody, build)).toBe(first);
    expect(build).toHaveBeenCalledTimes(1);
    expect(await readFile(join(first, 'file'), 'utf8')).toBe('x');
  });

  it('leaves nothing of a build that failed, and builds again', async () => {
    const failing = cached('kind', 'key', nobody, async (path) => {
      await writeFile(join(path, 'half'), 'x');
      throw new Error('no space');
    });
    await expect(failing).rejects.toThrow('no space');
    expect(await readdir(join(directory, 'kind'))).toEqual([]);
    const path = await cached('kind', 'key', nobody, (fresh) => writeFile(join(fresh, 'file'), ''));
    expect(await readdir(path)).toEqual(['file']);
  });

  it('is not poisoned by a build that was killed', async () => {
    const script = `
      const { cached } = await import(${JSON.stringify(join(import.meta.dirname, '../../vm/cache.ts'))});
      await cached('kind', 'key', () => {}, async (path) => {
        (await import('node:fs')).writeFileSync(path + '/half', 'x');
        process.kill(process.pid, 'SIGKILL');
        await new Promise(() => {});
      });`;
    await execa(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      cwd: join(import.meta.dirname, '../..'),
      env: { RPAL_CACHE_DIR: directory },
      reject: false,
    });
    expect(existsSync(join(directory, 'kind', 'key'))).toBe(false);
    expect(await readdir(join(directory, 'kind'))).toHaveLength(1);
    // The dead process's lock lapses after a while; that is proper-lockfile's business.
    await rm(join(directory, 'locks'), { recursive: true });
    const path = await cached('kind', 'key', nobody, (fresh) => writeFile(join(fresh, 'file'), ''));
    expect(await readdir(path)).toEqual(['file']);
    expect(await readdir(join(directory, 'kind'))).toEqual(['key']);
  });

  it('forgets what nobody has used for weeks', async () => {
    const build = (path: string): Promise<void> => writeFile(join(path, 'file'), '');
    const old = await cached('kind', 'old', nobody, build);
    const used = await cached('kind', 'used', nobody, build);
    const longAgo = new Date(Date.now() - 60 * 24 * 3600 * 1000);
    await utimes(old, longAgo, longAgo);
    await utimes(used, longAgo, longAgo);
    await cached('kind', 'used', nobody, build);
    await cached('kind', 'new', nobody, build);
    expect((await readdir(join(directory, 'kind'))).sort()).toEqual(['new', 'used']);
  });

  it('lets two commands at once build one entry', async () => {
    let building = 0;
    const waited = vi.fn();
    const build = async (path: string): Promise<void> => {
      building++;
      await new Promise((resolve) => setTimeout(resolve, 100));
      await writeFile(join(path, 'file'), '');
    };
    const paths = await Promise.all([
      cached('kind', 'key', waited, build),
      cached('kind', 'key', waited, build),
    ]);
    expect(building).toBe(1);
    expect(waited).toHaveBeenCalledTimes(1);
    expect(paths[0]).toBe(paths[1]);
  });
});
