import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { inRepository } from '../../vm/repository.js';
import { compileLibrary } from './compiled-library.js';

const readme = readFileSync(inRepository('README.md'), 'utf8');
const blocks = [...readme.matchAll(/^```js\n([^]*?)^```$/gm)].map(([, code = '']) => code);
const directory = mkdtempSync(join(tmpdir(), 'rpal-readme-'));
const address = join(directory, 'greeter.sock');
let library = '';

beforeAll(() => {
  library = compileLibrary('readme');
}, 60_000);

afterAll(() => {
  rmSync(directory, { recursive: true });
});

/** Writes the block of the README that begins with this file name, for the library as it is now. */
function write(name: string): string {
  const code = blocks.find((block) => block.startsWith(`// ${name}:`)) ?? '';
  const path = join(directory, name.replace('.js', '.mjs'));
  writeFileSync(path, code.replace("'rpal'", `'${library}'`).replace('/tmp/greeter.sock', address));
  return path;
}

it('has an example of 15 lines at most', () => {
  expect(blocks.length).toBe(2);
  expect(blocks.join('').trim().split('\n').length).toBeLessThanOrEqual(15);
});

it('has an example that does what it says, here over a socket', async () => {
  const server = spawn(process.execPath, [write('server.js')], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  try {
    await vi.waitFor(
      () => {
        expect(existsSync(address)).toBe(true);
      },
      { timeout: 10_000 },
    );
    const { stdout } = await promisify(execFile)(process.execPath, [write('client.js')]);
    expect(stdout).toBe(`Hello, world, from process ${String(server.pid)}! (unix)\n`);
  } finally {
    server.kill('SIGKILL');
    await once(server, 'exit');
  }
});
