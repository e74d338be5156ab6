import { mkdtemp, mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { recordedBuild } from '../../vm/build-record.js';

describe('recordedBuild', () => {
  let directory: string;
  let outputs: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'rpal-record-'));
    outputs = join(directory, 'out');
  });

  afterEach(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  /** Like make: makes what is not there, from the sources of that moment. */
  async function build(source = 'one', tools = 'gcc'): Promise<'made' | 'unchanged'> {
    return recordedBuild(
      { record: join(directory, 'record.json'), outputs, key: source, tools },
      async () => {
        await mkdir(join(outputs, 'deep'), { recursive: true });
        const there = await readdir(outputs, { recursive: true });
        for (const name of ['a', 'deep/b']) {
          if (!there.includes(name)) await writeFile(join(outputs, name), `${source} by ${tools}`);
        }
      },
    );
  }

  const content = (name: string): Promise<string> => readFile(join(outputs, name), 'utf8');

  it('makes once', async () => {
    expect(await build()).toBe('made');
    expect(await build()).toBe('unchanged');
  });

  it('makes again when the sources are others, and keeps what may be used again', async () => {
    await build();
    expect(await build('two')).toBe('made');
    expect(await content('a')).toBe('one by gcc');
  });

  it('makes an output that was deleted', async () => {
    await build();
    await rm(join(outputs, 'deep/b'));
    expect(await build()).toBe('made');
    expect(await content('deep/b')).toBe('one by gcc');
    expect(await build()).toBe('unchanged');
  });

  it('makes all outputs when their directory was deleted', async () => {
    await build();
    await rm(outputs, { recursive: true });
    expect(await build()).toBe('made');
    expect(await content('a')).toBe('one by gcc');
  });

  it('does not trust an output that somebody else has written, whatever its time', async () => {
    await build();
    await writeFile(join(outputs, 'a'), 'of another compiler');
    expect(await build()).toBe('made');
    expect(await content('a')).toBe('one by gcc');

    await writeFile(join(outputs, 'a'), 'one by GCC');
    await utimes(join(outputs, 'a'), new Date(0), new Date(0));
    expect(await build()).toBe('made');
    expect(await content('a')).toBe('one by gcc');
  });

  it('starts anew with other tools', async () => {
    await build('one', 'gcc');
    expect(await build('one', 'clang')).toBe('made');
    expect(await content('a')).toBe('one by clang');
  });

  it('starts anew where nothing says where the files are from', async () => {
    await mkdir(outputs);
    await writeFile(join(outputs, 'a'), 'copied from elsewhere');
    expect(await build()).toBe('made');
    expect(await content('a')).toBe('one by gcc');
    await writeFile(join(directory, 'record.json'), '{"key":"one","too');
    await writeFile(join(outputs, 'a'), 'changed');
    expect(await build()).toBe('made');
    expect(await content('a')).toBe('one by gcc');
  });

  it('does not call a build that failed made', async () => {
    const failing = recordedBuild(
      { record: join(directory, 'record.json'), outputs, key: 'one', tools: 'gcc' },
      async () => {
        await mkdir(outputs, { recursive: true });
        await writeFile(join(outputs, 'half'), '');
        throw new Error('no space');
      },
    );
    await expect(failing).rejects.toThrow('no space');
    expect(await build()).toBe('made');
    expect((await readdir(outputs)).sort()).toEqual(['a', 'deep']);
  });

  it('does not believe a build that made nothing', async () => {
    const empty = recordedBuild(
      { record: join(directory, 'record.json'), outputs, key: 'one', tools: 'gcc' },
      () => Promise.resolve(),
    );
    await expect(empty).rejects.toThrow('nothing in');
  });
});
