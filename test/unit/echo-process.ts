/** A server in a process of its own. Arguments: the address, and where the library is. */
import { setTimeout as sleep } from 'node:timers/promises';
const [, , address = '', library = '../../lib/index.js'] = process.argv;
const { connect, serve } = (await import(library)) as typeof import('../../lib/index.js');

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
    callBack: async (payload) => {
      const caller = await connect(Buffer.from(payload).toString(), { transport: 'unix' });
      try {
        return caller.callSync('echo', payload);
      } finally {
        await caller.close();
      }
    },
  },
  { transport: 'unix', maxPayload: 4 * 1024 * 1024 },
);
process.send?.('ready');
