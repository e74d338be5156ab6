import { extname } from 'node:path';
import {
  type MessagePort,
  MessageChannel,
  receiveMessageOnPort,
  Worker,
} from 'node:worker_threads';
import { RpalError } from './errors.js';
import type { AnswerKind } from './frames.js';
import type { ClientHello } from './handshake.js';

/** A call on its way to the worker. */
export interface SyncRequest {
  id: number;
  method: number;
  payload: Uint8Array;
}

/** A call whose answer is not wanted any more. */
export interface SyncCancel {
  cancel: number;
}

/** What comes back: an answer, or why there will be none. */
export type SyncResult =
  | { id: number; kind: AnswerKind; payload: Uint8Array }
  | { id: number; code: string; message: string };

/** What the worker is started with. */
export interface SyncWorkerData {
  path: string;
  address: string;
  hello: ClientHello;
  port: MessagePort;
  /** Counts results; the waiting thread sleeps on it. */
  arrivals: Int32Array;
}

/**
 * Calls over a Unix socket that block the calling thread.
 *
 * Node.js cannot wait for a socket without its event loop, so a worker thread with a connection of
 * its own does, while this thread sleeps in Atomics.wait(). That is slow (two thread switches a
 * call); it exists so that callSync() means the same where there is no RPAL.
 */
export class SyncSocket {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #arrivals = new Int32Array(new SharedArrayBuffer(4));

  constructor(path: string, address: string, hello: ClientHello) {
    const { port1, port2 } = new MessageChannel();
    const data: SyncWorkerData = { path, address, hello, port: port2, arrivals: this.#arrivals };
    const extension = extname(import.meta.url);
    this.#port = port1;
    this.#worker = new Worker(new URL(`./sync-socket-worker${extension}`, import.meta.url), {
      workerData: data,
      transferList: [port2],
      // Run from its sources, this package needs the loader in the worker, too.
      execArgv: extension === '.ts' ? ['--import', 'tsx'] : [],
    });
    this.#worker.unref();
    this.#port.unref();
  }

  /** Sends a call and sleeps until its answer is there or `timeout` ms are over (−1: never). */
  call(request: SyncRequest, timeout: number): { kind: AnswerKind; payload: Uint8Array } {
    const end = timeout < 0 ? Infinity : performance.now() + timeout;
    // A view is cloned with all the memory that it is a part of.
    this.#port.postMessage({ ...request, payload: request.payload.slice() });
    for (;;) {
      const seen = Atomics.load(this.#arrivals, 0);
      const received = receiveMessageOnPort(this.#port) as { message: SyncResult } | undefined;
      if (received) {
        const result = received.message;
        // The answer of a call that was given up earlier.
        if (result.id !== request.id) continue;
        if ('kind' in result) return result;
        throw new RpalError(result.code, result.message);
      }
      const left = end - performance.now();
      if (left <= 0 || Atomics.wait(this.#arrivals, 0, seen, left) === 'timed-out') {
        const cancel: SyncCancel = { cancel: request.id };
        this.#port.postMessage(cancel);
        throw new RpalError(
          'ETIMEDOUT',
          `The answer did not come within ${String(timeout)} ms; the handler may still be running. Allow more time, or find out what keeps it.`,
        );
      }
    }
  }

  /** Ends the worker and its connection. */
  async close(): Promise<void> {
    this.#port.close();
    await this.#worker.terminate();
  }
}
