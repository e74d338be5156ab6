// guest: cpus=1 timeout=60
/**
 * The C samples, built with nothing but an installed librpal (test/samples/Makefile): a server and a
 * client, with the static and with the shared library.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import { expect, it } from 'vitest';
import { freshAddress } from './program.js';

const built = 'build/samples';

function start(kind: string, program: string, ...parameters: string[]): ChildProcess {
  return spawn('bin/rpal', ['run', '--', `${built}/${kind}/${program}`, ...parameters], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, LD_LIBRARY_PATH: `${built}/prefix/lib` },
  });
}

for (const kind of ['static', 'shared']) {
  it(`runs with the ${kind} library`, async () => {
    const address = freshAddress();
    const server = start(kind, 'server', address);
    try {
      while (!existsSync(address)) {
        expect(server.exitCode).toBe(null);
        await delay(10);
      }
      const client = start(kind, 'client', address, '10000');
      const ended = once(client, 'exit');
      const said = client.stdout ? await text(client.stdout) : '';
      expect(said).toMatch(/^10000 messages, 0 wrong; /);
      expect(await ended).toEqual([0, null]);
    } finally {
      server.kill('SIGKILL');
    }
  });
}

it('exports what the headers declare, and nothing else', () => {
  const declared = ['rpal.h', 'rpal_queue.h', 'rpal_compat.h'].flatMap((name) =>
    [
      ...readFileSync(`native/librpal/include/${name}`, 'utf8').matchAll(
        /^RPAL_API [^(]*?\b(\w+)\(/gms,
      ),
    ].map(([, symbol]) => symbol),
  );
  const exported = readFileSync(`${built}/exports`, 'utf8').trim().split('\n');
  expect(declared.length).toBeGreaterThan(50);
  expect(exported).toEqual([...new Set(declared)].sort());
});
