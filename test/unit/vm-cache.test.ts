import { existsSync, readFileSync } from 'node:fs';
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

  /** Runs a build of many seconds in a process of its own, and a function once it is under way. */
  async function whileBuilding(key: string, act: (pid: number) => void): Promise<Result> {
    const script = `
      const vm = ${JSON.stringify(join(import.meta.dirname, '../../vm'))};
      const { endOnSignals } = await import(vm + '/end-on-signals.ts');
      const { cached } = await import(vm + '/cache.ts');
      const { loggedCommand } = await import(vm + '/logged-command.ts');
      const { runMain } = await import(vm + '/failure.ts');
      endOnSignals();
      await runMain(async () => {
        await cached('kind', '${key}', () => {}, (directory) =>
          loggedCommand('sh', ['-c', 'echo $$; echo x > half; exec sleep 1000'], {
            log: 'sleep', cwd: directory, onLine: (line) => console.log(line),
          }));
        return 0;
      });`;
    const child = execa(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', script],
      {
        cwd: join(import.meta.dirname, '../..'),
        env: { RPAL_CACHE_DIR: directory },
        reject: false,
      },
    );
    const sleeping = new Promise<number>((resolve) => {
      child.stdout.once('data', (text: Buffer) => {
        resolve(Number(text.toString()));
      });
    });
    const sleeper = await sleeping;
    act(child.pid ?? 0);
    const { exitCode, signal, stderr } = await child;
    return { status: exitCode ?? signal, stderr, sleeper };
  }

  interface Result {
    status: number | string | undefined;
    stderr: string;
    sleeper: number;
  }

  /** A process that nobody has waited for is gone, too: it does nothing any more. */
  function isGone(pid: number): boolean {
    try {
      return / [ZX] /.test(readFileSync(`/proc/${String(pid)}/stat`, 'utf8'));
    } catch {
      return true;
    }
  }

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('leaves nothing of a build that %s ended', async (signal, status) => {
    const result = await whileBuilding('key', (pid) => process.kill(pid, signal));
    expect(result.stderr).toBe('Interrupted.');
    expect(result.status).toBe(status);
    expect(await readdir(join(directory, 'kind'))).toEqual([]);
    expect(await readdir(join(directory, 'locks'))).toEqual([]);
    expect(isGone(result.sleeper)).toBe(true);
  });

  it('ends the commands of a build that was killed, and the next build cleans up', async () => {
    const result = await whileBuilding('killed', (pid) => process.kill(pid, 'SIGKILL'));
    expect(result.status).toBe('SIGKILL');
    await vi.waitFor(() => {
      expect(isGone(result.sleeper)).toBe(true);
    });
    expect(await readdir(join(directory, 'kind'))).toEqual([expect.stringMatching(/^\.killed\./)]);
    const build = (path: string): Promise<void> => writeFile(join(path, 'file'), '');
    // Its lock has not lapsed yet: it might be alive.
    await cached('kind', 'first', nobody, build);
    expect((await readdir(join(directory, 'kind'))).length).toBe(2);
    const lapsed = new Date(Date.now() - 60_000);
    await utimes(join(directory, 'locks', 'kind-killed.lock'), lapsed, lapsed);
    await cached('kind', 'second', nobody, build);
    expect((await readdir(join(directory, 'kind'))).sort()).toEqual(['first', 'second']);
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
