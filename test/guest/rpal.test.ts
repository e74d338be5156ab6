// guest: cpus=1,2 timeout=1200
/** Two Node.js processes of the guest call each other over the real kernel. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { connect as netConnect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Caller, freshAddress, Program, startService } from './program.js';

interface Caught {
  code?: string;
  name?: string;
  message?: string;
  remote?: string;
  answer?: unknown;
}

interface Counters {
  calls: number;
  handBacks: number;
  waits: number;
  fallbacks: number;
}

const address = freshAddress();
let service: Program;
let ready: string;
let caller: Caller;
beforeAll(async () => {
  caller = new Caller(address);
  ({ service, ready } = await startService(address));
});
afterAll(async () => {
  await caller[Symbol.asyncDispose]();
  await service[Symbol.asyncDispose]();
});

describe('a service that was started by rpal run', () => {
  it('is called by RPAL', () => {
    expect(ready).toBe('ready rpal ');
  });

  it('answers callSync() and call() with payloads of all sizes', async () => {
    const { transport, fallbackReason, result } = await caller.call<{
      wrong: number[];
      sizes: number;
      longRight: boolean;
      identity: { pid: number; cwd: string; uid: number };
      counters: Counters;
    }>('basics');
    expect({ transport, fallbackReason }).toEqual({ transport: 'rpal' });
    expect(result.wrong).toEqual([]);
    expect(result.longRight).toBe(true);
    expect(result.identity).toEqual({ pid: service.pid, cwd: process.cwd(), uid: 0 });
    expect(result.counters.calls).toBe(2 * result.sizes + 2);
  });

  it('gets what a payload was when it was called with it', async () => {
    expect((await caller.call<number>('reused')).result).toBe(0);
  });

  it('answers 3,000 calls rightly, most of them without the kernel', async () => {
    const { result } = await caller.call<{ wrong: number; counters: Counters }>('many');
    expect(result.wrong).toBe(0);
    expect(result.counters.calls).toBe(3_000);
    expect(result.counters.fallbacks).toBe(0);
    expect(result.counters.handBacks).toBeLessThan(1_500);
  });

  it('passes on what handlers throw', async () => {
    const { result } = await caller.call<Record<string, Caught> & { afterwards: number }>('errors');
    expect(result.thrown).toMatchObject({ name: 'RpalError', code: 'ENOBOOK' });
    expect(result.thrown?.remote).toMatch(/TypeError: no such book\n.*service\.js/s);
    expect(result.rejected).toMatchObject({ code: 'ENOBOOK' });
    expect(result.later).toMatchObject({ code: 'ERR_RPAL_HANDLER' });
    expect(result.unknown).toMatchObject({ code: 'ERR_RPAL_NO_METHOD' });
    expect(result.afterwards).toBe(1);
  });

  it('answers from asynchronous handlers, with their AsyncLocalStorage', async () => {
    const { result } = await caller.call<{
      sync: number;
      soon: number;
      answers: number[];
      stores: number[];
    }>('asynchronous');
    expect(result).toEqual({
      sync: 7,
      soon: 8,
      answers: Array.from({ length: 50 }, (_, i) => i),
      stores: [1, 2, 3],
    });
  });

  it('is given up at a deadline or by an AbortSignal, and can be called again', async () => {
    const { result } = await caller.call<{
      sync: Caught;
      waited: number;
      call: Caught;
      aborted: Caught;
      spin: string;
      spinCall: number;
      busy: number[];
      afterwards: number;
    }>('deadlines');
    expect(result.sync).toMatchObject({ code: 'ETIMEDOUT' });
    expect(result.waited).toBeGreaterThan(50);
    expect(result.call).toMatchObject({ code: 'ETIMEDOUT' });
    expect(result.aborted).toMatchObject({ code: 'ABORT_ERR' });
    expect(result.spin).toBe('ETIMEDOUT');
    expect(result.spinCall).toBe(50);
    expect(result.busy).toEqual([60, 5]);
    expect(result.afterwards).toBe(1);
  });

  it('keeps its event loop going under calls', async () => {
    // It calls until timers, sockets, ticks and rejections have had their turn: else it never ends.
    const { result } = await caller.call<{ order: string[]; rejection: string }>('eventLoop');
    expect(result).toEqual({
      order: ['handler', 'tick', 'microtask', 'immediate'],
      rejection: 'unhandled',
    });
  });

  it('is called although its event loop never waits', async () => {
    const { result } = await caller.call<{ calls: number; turns: number }>('busy');
    expect(result.calls).toBeGreaterThanOrEqual(50);
    expect(result.turns).toBeGreaterThanOrEqual(50);
  });

  it('is called although a profiler interrupts it', async () => {
    const address = freshAddress();
    await using profiled = new Program('profiled', 'service.js', address);
    expect(await profiled.line()).toBe('ready rpal ');
    const { transport, result } = await caller.call<{ wrong: number[] }>('basics', address);
    expect({ transport, wrong: result.wrong }).toEqual({ transport: 'rpal', wrong: [] });
  });

  it('serves its sockets under calls', async () => {
    caller.say('load');
    expect(await caller.line()).toBe('loading');
    for (let i = 0; i < 20; i += 1) {
      const socket = netConnect(`${address}.plain`);
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      expect(chunk.toString()).toBe('served');
      socket.destroy();
    }
    // The load ends by the last of them.
    await caller.line();
  });

  it('does in a handler what needs the kernel, as itself', async () => {
    const { result } = await caller.call<{ pid: number; serverPid: number; counters: Counters }>(
      'print',
    );
    expect(await service.line()).toBe('printed: from the handler');
    expect(result.pid).toBe(service.pid);
    expect(result.serverPid).toBe(service.pid);
    expect(result.counters.handBacks).toBeGreaterThanOrEqual(1);
  });

  it('is called by worker threads', async () => {
    const { result } =
      await caller.call<{ transport: string; result: { wrong: number } }[]>('worker');
    expect(result.map((each) => [each.transport, each.result.wrong])).toEqual([
      ['rpal', 0],
      ['rpal', 0],
    ]);
  });

  it('outlives a caller that is killed in a call', async () => {
    const victims = [new Caller(address), new Caller(address)];
    for (const [i, victim] of victims.entries()) {
      victim.say('forever');
      expect(await victim.line()).toBe('loading');
      await new Promise((done) => setTimeout(done, 50 + 31 * i));
      victim.kill('SIGKILL');
      expect(await victim.end()).toBe('SIGKILL');
    }
    const { transport, result } = await caller.call<{ wrong: number }>('many');
    expect(transport).toBe('rpal');
    expect(result.wrong).toBe(0);
  });
});

describe('a service that dies', () => {
  it('by SIGKILL in a call: the caller gets an error and lives', async () => {
    const mortal = freshAddress();
    const { service: victim } = await startService(mortal);
    const { result } = await caller.call<{
      killed: Caught;
      pending: Caught;
      after: Caught;
      alive: number;
    }>('kill', mortal);
    expect(await victim.end()).toBe('SIGKILL');
    expect(result.killed.code).toMatch(/^(EOWNERDEAD|ECONNRESET)$/);
    expect(result.killed.name).toBe('RpalError');
    expect(result.pending.code).toMatch(/^(EOWNERDEAD|ECONNRESET)$/);
    expect(result.after.code).toMatch(/^(EOWNERDEAD|ECONNRESET)$/);
    expect(result.alive).toBe(2);
  });

  it('by process.exit() in a handler', async () => {
    const mortal = freshAddress();
    const { service: victim } = await startService(mortal);
    const { result } = await caller.call<Caught>('exit', mortal);
    expect(await victim.end()).toBe(3);
    expect(result.code).toMatch(/^(EOWNERDEAD|ECONNRESET)$/);
  });
});

describe('fallback', () => {
  it('a caller that is no service uses the socket and says why', async () => {
    await using plain = new Caller(address, 'plain');
    const seen = await plain.call<{ wrong: number[] }>('basics');
    expect(seen.transport).toBe('unix');
    expect(seen.fallbackReason).toMatch(/no RPAL service; start it with: rpal run/);
    expect(seen.result.wrong).toEqual([]);
  });
});

describe('the low level', () => {
  it('calls between two services by librpal alone', async () => {
    await using server = new Program('service', 'low-level.js', 'server');
    await using client = new Program('service', 'low-level.js', 'client');
    const [of, oc] = [await server.json<{ key: string }>(), await client.json<{ key: string }>()];
    expect(of).toMatchObject({ capabilities: { available: true, service: true, receive: true } });
    server.say(JSON.stringify(oc));
    client.say(JSON.stringify(of));
    expect([await server.line(), await client.line()]).toEqual(['"requested"', '"requested"']);
    server.say('0');
    client.say('0');
    client.say(await server.line());
    expect(await client.json()).toEqual({ right: 1000, linked: true, meta: '5', calls: 1000 });
    expect(await server.json()).toEqual({ served: 1000, nothing: true });
  });
});

describe('rpal doctor', () => {
  it('finds nothing missing', () => {
    const output = execFileSync('bin/rpal', ['doctor', '--json']);
    const findings = JSON.parse(output.toString()) as { verdict: string }[];
    expect(findings.filter(({ verdict }) => verdict === 'missing')).toEqual([]);
  });
});
