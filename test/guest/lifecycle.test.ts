// guest: cpus=1,2 timeout=900
/** What of RPAL keeps a process or a thread alive (nothing), and what is left of one that ended. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Caller, freshAddress, Program } from './program.js';

const gone = /^(EOWNERDEAD|ECONNRESET|ECANCELED)$/;
const address = freshAddress();
let host: Program;
let caller: Caller;
beforeAll(() => {
  host = new Program('service', 'threads.js', address);
  caller = new Caller(address);
});
afterAll(async () => {
  await caller[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

describe('a worker thread that serves', () => {
  it('is called', async () => {
    host.say('serve');
    expect(await host.line()).toBe('serving rpal');
    const { transport, result } = await caller.call<{ wrong: number }>('many');
    expect({ transport, wrong: result.wrong }).toEqual({ transport: 'rpal', wrong: 0 });
  });

  it('can be terminated while it is called, and the caller gets an error', async () => {
    caller.say('untilError');
    expect(await caller.line()).toBe('loading');
    host.say('terminate');
    expect(await host.line()).toBe('ended 1');
    const { result } = await caller.json<{ result: { code: string } }>();
    expect(result.code).toMatch(gone);
  });

  it('can be followed by another, which ends by itself when its server is closed', async () => {
    host.say('serve');
    expect(await host.line()).toBe('serving rpal');
    const { transport, result } = await caller.call<{ wrong: number }>('many');
    expect({ transport, wrong: result.wrong }).toEqual({ transport: 'rpal', wrong: 0 });
    host.say('close');
    expect(await host.line()).toBe('ended 0');
  });
});

describe('a worker thread that calls', () => {
  it('can be terminated in a call and while it waits for an answer', async () => {
    host.say('serve');
    expect(await host.line()).toBe('serving rpal');
    const { transport, result } = await caller.call('terminate');
    expect({ transport, result }).toEqual({
      transport: 'rpal',
      result: { ended: [1, 1], afterwards: 1 },
    });
  });

  it('does not keep its process from ending while it waits', async () => {
    await using ending = new Caller(address);
    ending.say('exitWhileWaiting');
    expect(await ending.end()).toBe(5);
  });
});

describe('a process', () => {
  it('ends by itself although its connection is open', async () => {
    await using leaving = new Caller(address);
    const { transport, result } = await leaving.call('leave');
    expect({ transport, result }).toEqual({ transport: 'rpal', result: [1, 2] });
    expect(await leaving.end()).toBe(0);
  });

  it('ends by itself when its server is closed', async () => {
    await using server = new Program('service', 'closing.js', freshAddress());
    expect(await server.line()).toBe('closed rpal');
    expect(await server.end()).toBe(0);
  });
});
