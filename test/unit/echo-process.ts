/** A server in a process of its own. Arguments: the address, and where the library is. */
import { setTimeout as sleep } from 'node:timers/promises';
const [, , address = '', library = '../../lib/index.js'] = process.argv;
const { connect, serve } = (await import(library)) as typeof import('../../lib/index.js');

let back: import('../../lib/index.js').Client;

await serve(
  address,
  {
    echo: (payload) => payload,
    pid: () => Buffer.from(String(process.pid)),
    later: async (payload) => {
      await sleep(20);
      return payload;
    },
    never: () => new Promise<Uint8Array>(() => undefined),
    fail: () => {
      throw Object.assign(new TypeError('no such book'), { code: 'ENOBOOK' });
    },
    die: () => {
      process.kill(process.pid, 'SIGKILL');
      return new Promise<Uint8Array>(() => undefined);
    },
    // Calls back over a connection of its own, which its caller can only accept when it is free.
    callBack: async (payload) => {
      const caller = await connect(Buffer.from(payload).toString(), { transport: 'unix' });
      try {
        return caller.callSync('echo', payload);
      } finally {
        await caller.close();
      }
    },
    // The same in steps: connect; call back at once; call back after an asynchronous call.
    backConnect: async (payload) => {
      back = await connect(Buffer.from(payload).toString(), { transport: 'unix' });
      return payload;
    },
    backAtOnce: (payload) => back.callSync('echo', payload, { timeout: 10_000 }),
    backAfterCall: async (payload) => {
      await back.call('echo', payload);
      return back.callSync('mark', payload, { timeout: 10_000 });
    },
    backAfterAnswer: async (payload) => {
      setTimeout(() => back.callSync('mark', payload, { timeout: 10_000 }), 40);
      await sleep(1);
      return payload;
    },
    backClose: async (payload) => {
      await back.close();
      return payload;
    },
  },
  { transport: 'unix', maxPayload: 4 * 1024 * 1024 },
);
process.send?.('ready');
