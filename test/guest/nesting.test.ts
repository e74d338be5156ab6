// guest: cpus=1,2 timeout=600
/** Node.js services that call on in their handlers, and call back who is calling them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freshAddress, Program } from './program.js';

type How = 'call' | 'callSync';
/** A process that has answered, and how its call came. */
type Answerer = [pid: number, transport: string];

interface Outcome {
  answer?: Answerer[];
  code?: string;
  name?: string;
  message?: string;
  elapsed?: number;
}

/** A process of programs/relay.js. */
class Relay extends Program {
  readonly address: string;

  constructor(address = freshAddress()) {
    super('service', 'relay.js', address);
    this.address = address;
  }

  /** Has it do something, and returns what it says. */
  async ask<T>(command: string, parameters: object = {}): Promise<T> {
    this.say(JSON.stringify({ command, ...parameters }));
    return this.json<T>();
  }

  /** Has it call the first of these, which calls the second, and so on. */
  call(
    hops: [Relay, How][],
    options: { timeout?: number; method?: string } = {},
  ): Promise<Outcome> {
    return this.ask('call', {
      hops: hops.map(([{ address: to }, how]) => ({ to, how })),
      ...options,
    });
  }
}

/** What a circle's call may take; far longer than an answer needs here, however busy the machine is. */
const timeout = 250_000;
const ways = ['call', 'callSync'] as const;
let a: Relay;
let b: Relay;
let c: Relay;

beforeAll(async () => {
  [a, b, c] = [new Relay(), new Relay(), new Relay()];
  const relays = [a, b, c];
  for (const relay of relays) expect(await relay.line()).toBe('ready rpal');
  const to = relays.map(({ address }) => address);
  // None of these connections is the Unix fallback.
  for (const relay of relays) {
    expect(await relay.ask('introduce', { to })).toEqual(['rpal', 'rpal']);
  }
});
afterAll(async () => {
  for (const relay of [a, b, c]) await relay[Symbol.asyncDispose]();
});

/** How a call comes: one that does not wait for a receiver that is busy goes over the socket. */
function arrival(how: How): unknown {
  return how === 'callSync' ? 'rpal' : expect.stringMatching(/^(rpal|unix)$/);
}

/** The call has failed because it would never end, not because its time was over. */
function expectDeadlock(outcome: Outcome): void {
  expect(outcome).toMatchObject({ name: 'RpalError', code: 'EDEADLK' });
  expect(outcome.elapsed).toBeLessThan(timeout);
}

describe('a service whose handler calls on', () => {
  for (const first of ways) {
    for (const second of ways) {
      it(`answers ${first}() with what ${second}() to a third has answered`, async () => {
        for (let i = 0; i < 20; i += 1) {
          const { answer } = await a.call([
            [b, first],
            [c, second],
          ]);
          expect(answer).toEqual([
            [c.pid, arrival(second)],
            [b.pid, arrival(first)],
          ]);
        }
      });
    }
  }

  it('calls by RPAL, as callSync() always does', async () => {
    const { answer } = await a.call([
      [b, 'callSync'],
      [c, 'callSync'],
    ]);
    expect(answer?.map(([, transport]) => transport)).toEqual(['rpal', 'rpal']);
  });
});

describe('a call back to who waits in call()', () => {
  for (const how of ways) {
    it(`is answered, by ${how}()`, async () => {
      for (let i = 0; i < 20; i += 1) {
        const { answer } = await a.call([
          [b, 'call'],
          [a, how],
        ]);
        expect(answer).toEqual([
          [a.pid, arrival(how)],
          [b.pid, arrival('call')],
        ]);
      }
    });
  }

  it('is answered through a third service, and again and again', async () => {
    const { answer } = await a.call([
      [b, 'call'],
      [c, 'call'],
      [a, 'call'],
      [b, 'call'],
      [a, 'callSync'],
    ]);
    expect(answer?.map(([pid]) => pid)).toEqual([a, b, a, c, b].map(({ pid }) => pid));
  });
});

describe('a call back to who waits in callSync()', () => {
  it('fails at once if it is callSync(), too, and both sides go on', async () => {
    for (let i = 0; i < 20; i += 1) {
      const circle = await a.call(
        [
          [b, 'callSync'],
          [a, 'callSync'],
        ],
        { timeout },
      );
      expectDeadlock(circle);
      expect(circle.message).toMatch(/waiting in callSync\(\) for an answer of this one.*'relay'/s);
    }
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const { answer } = await from.call([[to, 'callSync']]);
      expect(answer).toEqual([[to.pid, 'rpal']]);
    }
  });

  it('fails at once in a circle of three', async () => {
    expectDeadlock(
      await a.call(
        [
          [b, 'callSync'],
          [c, 'callSync'],
          [a, 'callSync'],
        ],
        { timeout },
      ),
    );
  });

  it('is answered afterwards if the handler does not wait for it', async () => {
    const outcome = await a.call(
      [
        [b, 'callSync'],
        [a, 'call'],
      ],
      { method: 'begin' },
    );
    expect(outcome).toEqual({ answer: [] });
    expect(await b.ask('begun')).toEqual([[[a.pid, arrival('call')]]]);
  });

  it('ends with the deadline if the handler waits for it in call(), and both sides go on', async () => {
    const outcome = await a.call(
      [
        [b, 'callSync'],
        [a, 'call'],
      ],
      { timeout: 500 },
    );
    expect(outcome).toMatchObject({ code: 'ETIMEDOUT' });
    const { answer } = await a.call([[b, 'callSync']]);
    expect(answer).toEqual([[b.pid, 'rpal']]);
  });
});
