/**
 * A process whose worker thread serves. Argument: the address. Reads commands from standard input
 * and answers each with a line:
 *   serve      starts a worker thread that serves
 *   terminate  ends it from outside, whatever it does
 *   close      lets it close its server, and waits until it has ended by itself
 * It ends when its input does, if nothing else keeps it.
 */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { serve } from 'rpal';

async function main([address]) {
  let worker;
  const commands = {
    async serve() {
      worker = new Worker(new URL(import.meta.url), { workerData: address });
      const [transport] = await once(worker, 'message');
      return `serving ${transport}`;
    },
    async terminate() {
      return `ended ${await worker.terminate()}`;
    },
    async close() {
      worker.postMessage('close');
      const [status] = await once(worker, 'exit');
      return `ended ${status}`;
    },
  };
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(await commands[line]());
  }
}

async function work() {
  const server = await serve(workerData, {
    echo: (payload) => payload,
    later: async (payload) => payload,
    never: () => new Promise(() => undefined),
  });
  parentPort.once('message', () => {
    void server.close();
  });
  parentPort.postMessage(server.transport);
}

await (isMainThread ? main(process.argv.slice(2)) : work());
