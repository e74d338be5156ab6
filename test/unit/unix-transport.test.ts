import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect as netConnect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  type Client,
  connect,
  type Handler,
  msgpack,
  type RpalError,
  serve,
  type Server,
} from '../../lib/index.js';
import { compileLibrary } from './compiled-library.js';
import { freshAddress } from './socket-directory.js';

const unix = { transport: 'unix' } as const;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

const later: Handler = async (payload) => {
  await sleep(30);
  return payload;
};

/** An error of our class with this code and a message. */
function failure(code: string, message = /./): unknown {
  return expect.objectContaining({
    name: 'RpalError',
    code,
    message: expect.stringMatching(message) as string,
  });
}

async function startEcho(address: string, compiled?: string): Promise<ChildProcess> {
  const parameters = compiled === undefined ? [address] : [address, compiled];
  const child = fork(new URL('echo-process.ts', import.meta.url), parameters, {
    execArgv: ['--import', 'tsx'],
  });
  await once(child, 'message');
  return child;
}

describe('within one process', () => {
  const open: AsyncDisposable[] = [];
  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]();
  });

  async function pair(
    handlers: Record<string, Handler>,
    options: { maxPayload?: number } = {},
  ): Promise<{ server: Server; client: Client }> {
    const address = freshAddress();
    const server = await serve(address, handlers, { ...unix, ...options });
    const client = await connect(address, unix);
    open.push(server, client);
    return { server, client };
  }

  it('answers calls', async () => {
    const { client, server } = await pair({
      reverse: (payload) => payload.slice().reverse(),
      sum: (payload) => Promise.resolve(bytes(payload.reduce((a, b) => a + b, 0))),
    });
    expect(client.methods).toEqual(['reverse', 'sum']);
    expect(client.transport).toBe('unix');
    expect(client.fallbackReason).toBeUndefined();
    expect(await client.call('reverse', bytes(1, 2, 3))).toEqual(bytes(3, 2, 1));
    expect(await client.call('sum', bytes(1, 2, 3))).toEqual(bytes(6));
    expect(await client.call('reverse', bytes())).toEqual(bytes());
    expect(client.counters).toMatchObject({ calls: 3, errors: 0, bytesSent: 6, bytesReceived: 4 });
    expect(server.counters).toMatchObject({ calls: 3, errors: 0, bytesSent: 4, bytesReceived: 6 });
    expect(server.connections).toBe(1);
  });

  it('tells each answer from the others', async () => {
    const { client } = await pair({
      slowFirst: async (payload) => {
        await sleep(payload[0] === 0 ? 30 : 1);
        return payload;
      },
    });
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => client.call('slowFirst', bytes(i))),
    );
    expect(answers.map((answer) => answer[0])).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  it('gives payloads that stay as they are', async () => {
    const kept: Uint8Array[] = [];
    const { client } = await pair({
      keep: (payload) => {
        kept.push(payload);
        return payload;
      },
    });
    const answers = [];
    for (let i = 0; i < 50; i += 1) answers.push(await client.call('keep', bytes(i, i)));
    expect(kept).toEqual(Array.from({ length: 50 }, (_, i) => bytes(i, i)));
    expect(answers).toEqual(kept);
  });

  it('carries megabytes both ways at once', async () => {
    const { client } = await pair({ echo: (payload) => payload });
    const large = new Uint8Array(5_000_000).map((_, i) => i * 7);
    const answers = await Promise.all([1, 2, 3, 4].map(() => client.call('echo', large)));
    for (const answer of answers) expect(Buffer.compare(answer, large)).toBe(0);
  });

  it('passes on what a handler throws', async () => {
    const { client } = await pair({
      fail: () => {
        throw Object.assign(new TypeError('no such book'), { code: 'ENOBOOK' });
      },
      reject: () => Promise.reject(new RangeError('too many')),
      throwText: () => {
        // Handlers of others do such things.
        // eslint-disable-next-line @typescript-eslint/only-throw-error
        throw 'text';
      },
    });
    const error: unknown = await client.call('fail', bytes()).catch((e: unknown) => e);
    expect(error).toEqual(failure('ENOBOOK', /no such book/));
    expect((error as RpalError).remoteStack).toMatch(/TypeError: no such book\n.*at /s);
    await expect(client.call('reject', bytes())).rejects.toEqual(
      failure('ERR_RPAL_HANDLER', /too many/),
    );
    await expect(client.call('throwText', bytes())).rejects.toEqual(
      failure('ERR_RPAL_HANDLER', /text/),
    );
    expect(client.counters.errors).toBe(3);
  });

  it('passes on errors of any length, whatever the limit of payloads', async () => {
    const address = freshAddress();
    const long = (length: number, letter: string): Error =>
      Object.assign(new Error(letter.repeat(length)), { code: letter.repeat(length) });
    open.push(
      await serve(
        address,
        {
          echo: (payload) => payload,
          fail: () => {
            throw long(2_000, 'a');
          },
          failLong: () => Promise.reject(long(1_000_000, '\u0001')),
          failOddly: () => {
            throw Object.create(null);
          },
        },
        { ...unix, maxPayload: 1 },
      ),
    );
    const client = await connect(address, { ...unix, maxPayload: 1 });
    open.push(client);
    const caught = (method: string): Promise<RpalError> =>
      client.call(method, bytes()).then(
        () => Promise.reject(new Error('it was answered')),
        (error: unknown) => error as RpalError,
      );
    const whole = await caught('fail');
    expect(whole.code).toBe('a'.repeat(2_000));
    expect(whole.remoteStack).toContain('a'.repeat(2_000));
    const cut = await caught('failLong');
    expect(cut.message.startsWith(`${'\u0001'.repeat(2_499)}… (thrown`)).toBe(true);
    expect(cut.code).toHaveLength(2_500);
    expect((await caught('failOddly')).message).toMatch(/something that cannot be read/);
    // The connection has outlived them all.
    expect(await client.call('echo', bytes(1))).toEqual(bytes(1));
  });

  it('refuses answers and payloads that are no bytes', async () => {
    const { client } = await pair({ nothing: (() => undefined) as never });
    await expect(client.call('nothing', bytes())).rejects.toEqual(
      failure('ERR_RPAL_NO_BYTES', /returned undefined.*codec/),
    );
    await expect(client.call('nothing', 'text' as never)).rejects.toEqual(
      failure('ERR_RPAL_NO_BYTES', /payload for 'nothing' is string/),
    );
  });

  it('refuses unknown methods and names the known ones', async () => {
    const { client } = await pair({ one: (payload) => payload });
    await expect(client.call('two', bytes())).rejects.toEqual(
      failure('ERR_RPAL_NO_METHOD', /no method 'two'.*one/),
    );
    expect(() => client.callSync('toString', bytes())).toThrow(failure('ERR_RPAL_NO_METHOD'));
  });

  it('keeps both limits of payloads', async () => {
    const address = freshAddress();
    open.push(
      await serve(
        address,
        { make: (p) => new Uint8Array((p[0] ?? 0) * 100) },
        {
          ...unix,
          maxPayload: 10,
        },
      ),
    );
    const client = await connect(address, { ...unix, maxPayload: 1000 });
    open.push(client);
    await expect(client.call('make', new Uint8Array(11))).rejects.toEqual(
      failure('ERR_RPAL_PAYLOAD_TOO_LONG', /server accepts 10/),
    );
    await expect(client.call('make', bytes(11))).rejects.toEqual(
      failure('ERR_RPAL_PAYLOAD_TOO_LONG', /client accepts 1000/),
    );
    expect(await client.call('make', bytes(10))).toHaveLength(1000);
  });

  it('ends calls at their deadline and tells the handler', async () => {
    const reasons: unknown[] = [];
    const { client } = await pair({
      hang: (_, { signal }) =>
        new Promise((_done, fail) => {
          signal.addEventListener('abort', () => {
            reasons.push(signal.reason);
            fail(new Error('given up'));
          });
        }),
    });
    await expect(client.call('hang', bytes(), { timeout: 10 })).rejects.toEqual(
      failure('ETIMEDOUT', /'hang' did not answer within 10 ms/),
    );
    const controller = new AbortController();
    const call = client.call('hang', bytes(), { signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(call).rejects.toEqual(failure('ABORT_ERR'));
    await expect(call).rejects.toMatchObject({ cause: { message: 'enough' } });
    await expect(client.call('hang', bytes(), { signal: controller.signal })).rejects.toEqual(
      failure('ABORT_ERR'),
    );
    await expect.poll(() => reasons.length).toBe(2);
    expect(reasons[0]).toEqual(failure('ERR_RPAL_CANCELLED'));
  });

  it('refuses a synchronous call to its own thread', async () => {
    const { client } = await pair({ echo: (payload) => payload });
    expect(() => client.callSync('echo', bytes())).toThrow(failure('EDEADLK', /this very thread/));
  });

  it('answers what is due before it closes', async () => {
    const { client, server } = await pair({ later });
    const call = client.call('later', bytes(5));
    await sleep(10);
    await server.close();
    expect(await call).toEqual(bytes(5));
    await expect(client.call('later', bytes())).rejects.toEqual(failure('ECONNRESET'));
  });

  it('takes no more calls while it closes', async () => {
    const { client, server } = await pair({ later });
    const due = client.call('later', bytes(1));
    await sleep(10);
    const closed = server.close();
    await expect(client.call('later', bytes(2))).rejects.toEqual(failure('ERR_RPAL_CLOSED'));
    expect(await due).toEqual(bytes(1));
    await closed;
  });

  it('has no deadline if a call may take for ever', async () => {
    const { client } = await pair({ later });
    for (const timeout of [Infinity, 2 ** 31]) {
      expect(await client.call('later', bytes(3), { timeout })).toEqual(bytes(3));
    }
  });

  it('fails waiting calls when the client closes', async () => {
    const { client } = await pair({ never: () => new Promise<Uint8Array>(() => undefined) });
    const call = client.call('never', bytes());
    const rejected = expect(call).rejects.toEqual(failure('ERR_RPAL_CLOSED'));
    await client.close();
    await rejected;
    await expect(client.call('never', bytes())).rejects.toEqual(failure('ERR_RPAL_CLOSED'));
  });

  it('carries values with a codec, and refuses two different ones', async () => {
    const address = freshAddress();
    open.push(
      await serve(
        address,
        {
          add: ({ a, b }: { a: number; b: number }) => ({ sum: a + b }),
          when: (date: Date) => Promise.resolve(date.getTime()),
        },
        { ...unix, codec: msgpack },
      ),
    );
    const client = await connect(address, { ...unix, codec: msgpack });
    open.push(client);
    expect(await client.call('add', { a: 2, b: 3 })).toEqual({ sum: 5 });
    expect(await client.call('when', new Date(1234))).toBe(1234);
    await expect(connect(address, unix)).rejects.toEqual(
      failure('ERR_RPAL_CODEC', /'msgpack'.*'bytes'/),
    );
  });
});

describe('addresses', () => {
  it('takes over the socket of a server that was killed', async () => {
    const address = freshAddress();
    const child = await startEcho(address);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await expect(connect(address, unix)).rejects.toEqual(failure('ECONNREFUSED', /start it again/));
    const server = await serve(address, {}, unix);
    await server.close();
  });

  it('does not take over that of a live one, nor a file', async () => {
    const address = freshAddress();
    const server = await serve(address, {}, unix);
    await expect(serve(address, {}, unix)).rejects.toEqual(failure('EADDRINUSE', /another/));
    await server.close();
    const file = freshAddress();
    writeFileSync(file, 'precious');
    await expect(serve(file, {}, unix)).rejects.toEqual(failure('EADDRINUSE'));
  });

  it('says what is wrong with one', async () => {
    await expect(connect(freshAddress(), unix)).rejects.toEqual(failure('ENOENT', /start the/));
    await expect(serve('/no/such/directory/x', {}, unix)).rejects.toEqual(
      expect.objectContaining({ name: 'RpalError' }),
    );
  });
});

describe('garbage', () => {
  it('is refused by a server, which lives on', async () => {
    const address = freshAddress();
    const server = await serve(address, { echo: (payload) => payload }, unix);
    const inputs = [
      'GET / HTTP/1.1\r\n\r\n',
      Buffer.alloc(100),
      Buffer.alloc(100, 0xff),
      Buffer.from([5, 0, 0, 0, 3, 1, 2, 3, 4]),
      Buffer.from([2, 0, 0, 0, 1, 123]),
      Buffer.from('\x03\0\0\0\x01{}', 'latin1'),
    ];
    for (const input of inputs) {
      const socket = netConnect(address);
      socket.resume().on('error', () => undefined);
      socket.write(input);
      await once(socket, 'close');
    }
    expect(server.connections).toBe(0);
    await server.close();
  });
});

describe('another process', () => {
  const address = freshAddress();
  let child: ChildProcess;
  let library: typeof import('../../lib/index.js');
  const connect: typeof library.connect = (...parameters) => library.connect(...parameters);
  beforeAll(async () => {
    const compiled = compileLibrary('unix-transport');
    library = (await import(compiled)) as typeof library;
    child = await startEcho(address, compiled);
  }, 60_000);
  afterAll(() => {
    child.kill();
  });

  it('answers synchronous calls', async () => {
    await using client = await connect(address, unix);
    expect(client.serverPid).toBe(child.pid);
    expect(Buffer.from(client.callSync('pid', bytes())).toString()).toBe(String(child.pid));
    for (let i = 0; i < 200; i += 1) {
      expect(client.callSync('echo', bytes(i, 1, 2), { timeout: 10_000 })).toEqual(bytes(i, 1, 2));
    }
    expect(client.callSync('later', bytes(9))).toEqual(bytes(9));
    const large = new Uint8Array(3_000_000).fill(7);
    expect(Buffer.compare(client.callSync('echo', large), large)).toBe(0);
    expect(() => client.callSync('fail', bytes())).toThrow(
      failure('ENOBOOK', /no such book \(thrown/),
    );
  });

  it('has deadlines for them, and goes on after one', async () => {
    await using client = await connect(address, unix);
    const begun = performance.now();
    expect(() => client.callSync('never', bytes(), { timeout: 50 })).toThrow(failure('ETIMEDOUT'));
    expect(performance.now() - begun).toBeGreaterThan(40);
    expect(client.callSync('echo', bytes(1))).toEqual(bytes(1));
  });

  describe('that calls back', () => {
    const own = freshAddress();
    const marks: number[] = [];
    let server: Server;
    let client: Client;
    beforeAll(async () => {
      server = await library.serve(
        own,
        {
          echo: (payload) => payload,
          mark: (payload) => {
            marks.push(payload[0] ?? -1);
            return payload;
          },
        },
        unix,
      );
      client = await connect(address, unix);
      await client.call('backConnect', Buffer.from(own));
    });
    afterAll(async () => {
      await client.call('backClose', bytes());
      await client.close();
      await server.close();
    });

    it('is told at once when this thread waits for it', () => {
      expect(() => client.callSync('backAtOnce', bytes(1), { timeout: 10_000 })).toThrow(
        failure('EDEADLK', /itself waiting/),
      );
    });

    it('may, when this thread does not wait', async () => {
      expect(await client.call('backAtOnce', bytes(2))).toEqual(bytes(2));
    });

    it('may, although a handler runs for a call that this thread has given up', async () => {
      expect(() => client.callSync('never', bytes(), { timeout: 50 })).toThrow(
        failure('ETIMEDOUT'),
      );
      expect(await client.call('backAtOnce', bytes(3))).toEqual(bytes(3));
    });

    it('may in that very handler, when this thread has answered it', async () => {
      expect(() => client.callSync('backAfterCall', bytes(4), { timeout: 50 })).toThrow(
        failure('ETIMEDOUT'),
      );
      await expect.poll(() => marks).toContain(4);
    });

    it('may when it has answered', async () => {
      expect(client.callSync('backAfterAnswer', bytes(6))).toEqual(bytes(6));
      await expect.poll(() => marks).toContain(6);
    });

    it('may over a connection that this thread accepts after it has given up', async () => {
      const { calls } = server.counters;
      expect(() => client.callSync('callBack', Buffer.from(own), { timeout: 50 })).toThrow(
        failure('ETIMEDOUT'),
      );
      await expect.poll(() => server.counters.calls).toBe(calls + 1);
      expect(Buffer.from(await client.call('callBack', Buffer.from(own))).toString()).toBe(own);
    });

    it('may when this thread has closed the connection on which it waited', async () => {
      const second = await connect(address, unix);
      expect(() => second.callSync('never', bytes(), { timeout: 50 })).toThrow(
        failure('ETIMEDOUT'),
      );
      await second.close();
      expect(await client.call('backAtOnce', bytes(5))).toEqual(bytes(5));
    });
  });

  it('fails a call with the same code when it died just before', async () => {
    const mortal = freshAddress();
    const other = await startEcho(mortal);
    const client = await connect(mortal, unix);
    const ended = once(other, 'exit');
    other.kill('SIGKILL');
    // Its end is not read yet, so the request is written to a socket that nobody reads.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    await expect(client.call('echo', bytes(1))).rejects.toEqual(failure('ECONNRESET'));
    await ended;
    await client.close();
  });

  it('fails calls when it dies', async () => {
    const mortal = freshAddress();
    const other = await startEcho(mortal);
    const client = await connect(mortal, unix);
    const pending = client.call('never', bytes());
    const rejected = expect(pending).rejects.toEqual(failure('ECONNRESET', /connect again/));
    expect(() => client.callSync('die', bytes(), { timeout: 10_000 })).toThrow(
      failure('ECONNRESET'),
    );
    await rejected;
    await expect(client.call('echo', bytes())).rejects.toEqual(failure('ECONNRESET'));
    await client.close();
    expect(other.killed).toBe(false);
  });
});
