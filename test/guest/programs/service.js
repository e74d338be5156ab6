/** The service that the tests call. Argument: the address. Prints 'ready' and its transport. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { createServer } from 'node:net';
import { serve } from 'rpal';

const [, , address] = process.argv;
const text = (value) => Buffer.from(JSON.stringify(value));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const storage = new AsyncLocalStorage();
let ticks = 0;
let fired = false;
let served = 0;
let order = [];
let busy = false;
let turns = 0;
setInterval(() => (ticks += 1), 10);

const server = await serve(address, {
  echo: (payload) => payload,
  inverted: (payload) => payload.map((byte) => ~byte),
  identity: () => text({ pid: process.pid, cwd: process.cwd(), uid: process.getuid() }),
  long: (payload) => new Uint8Array(Buffer.from(payload).readUInt32LE(0)).fill(payload[4]),
  fail: () => {
    throw Object.assign(new TypeError('no such book'), { code: 'ENOBOOK' });
  },
  later: async (payload) => {
    await sleep(20);
    return payload;
  },
  failLater: async () => {
    await sleep(1);
    throw new RangeError('too late');
  },
  soon: async (payload) => payload,
  never: () => new Promise(() => undefined),
  // Computes for so many ms, each for itself: a pause of the whole machine is one of them only.
  spin: (payload) => {
    for (let i = 0; i < payload[0]; i += 1) {
      const end = performance.now() + 1;
      while (performance.now() < end);
    }
    return payload;
  },
  print: (payload) => {
    console.log(`printed: ${Buffer.from(payload)}`);
    return text(process.pid);
  },
  setTimer: () => {
    fired = false;
    setTimeout(() => (fired = true), 10);
    return text(null);
  },
  timer: () => text({ fired, ticks }),
  store: (payload) =>
    storage.run(payload[0], async () => {
      await sleep(1);
      await null;
      return Uint8Array.of(storage.getStore());
    }),
  queue: () => {
    order = ['handler'];
    process.nextTick(() => order.push('tick'));
    queueMicrotask(() => order.push('microtask'));
    setImmediate(() => order.push('immediate'));
    return text(null);
  },
  order: () => text(order),
  // Keeps the event loop from ever waiting, until it is called again.
  busy: (payload) => {
    busy = payload[0] === 1;
    const turn = () => {
      turns += 1;
      if (busy) setImmediate(turn);
    };
    if (busy) turn();
    return text(turns);
  },
  turns: () => text(turns),
  reject: () => {
    process.once('unhandledRejection', (error) => order.push(error.message));
    void Promise.reject(new Error('unhandled'));
    return text(null);
  },
  kill: () => {
    process.kill(process.pid, 'SIGKILL');
    while (true);
  },
  exit: () => process.exit(3),
  counters: () => text(server.counters),
  served: () => text(served),
});
createServer((socket) => {
  served += 1;
  socket.end('served');
}).listen(`${address}.plain`);
console.log(`ready ${server.transport} ${server.fallbackReason ?? ''}`);
