import type { ClientChannel } from './client-channel.js';
import type { Codec } from './codec.js';
import { type Counters, newCounters } from './counters.js';
import {
  type Endpoint,
  giveEndpointBack,
  isPast,
  lastOwnCall,
  nextOwnCall,
  refuseDeadlock,
  takeEndpoint,
} from './deadlock.js';
import { diagnostics } from './diagnostics.js';
import { RpalError, toError } from './errors.js';
import { AnswerKind, callFrame, FrameType, requestFrame } from './frames.js';
import type { ClientHello, ServerHello, Transport } from './handshake.js';
import { decodeError } from './remote-error.js';
import { Outcome, type Sender } from './sender.js';
import { SyncSocket } from './sync-socket.js';

/** The most ms that setTimeout() counts, 24 days: a longer time is none. */
const longestTimer = 2 ** 31 - 1;

/** Options of a synchronous call. */
export interface CallSyncOptions {
  /** Longest time in ms that the call may take; −1 or not given: that of the connection. */
  timeout?: number;
}

/** Options of a call. */
export interface CallOptions extends CallSyncOptions {
  /** Gives the call up when it aborts. */
  signal?: AbortSignal;
}

/** @internal */
export interface ClientParts {
  address: string;
  path: string;
  channel: ClientChannel;
  hello: ClientHello;
  server: ServerHello;
  codec: Codec | undefined;
  timeout: number;
  sender: Sender | undefined;
  fallbackReason: string | undefined;
}

/**
 * A connection to a service. Made by connect().
 *
 * An idle client does not keep its process alive; a call that waits does.
 */
export class Client<Payload = Uint8Array, Answer = Uint8Array> implements AsyncDisposable {
  /** What connect() was given. */
  readonly address: string;
  /** How calls travel. */
  readonly transport: Transport;
  /** Why that is not RPAL; undefined if it is, or if 'unix' was asked for. */
  readonly fallbackReason: string | undefined;
  /** Process id of the server, as it said itself. */
  readonly serverPid: number;

  readonly #channel: ClientChannel;
  readonly #sender: Sender | undefined;
  readonly #codec: Codec | undefined;
  readonly #methods: ReadonlyMap<string, number>;
  readonly #server: Endpoint;
  readonly #timeout: number;
  readonly #maxPayload: number;
  readonly #counters: Counters = newCounters();
  readonly #openSyncSocket: () => SyncSocket;
  #syncSocket: SyncSocket | undefined;
  /** An answer was lost in a hand-back and is being fetched: the server keeps only one. */
  #fetching = false;

  /** @internal */
  constructor(parts: ClientParts) {
    this.address = parts.address;
    this.transport = parts.sender ? 'rpal' : 'unix';
    this.fallbackReason = parts.fallbackReason;
    this.serverPid = parts.server.pid;
    this.#channel = parts.channel;
    this.#sender = parts.sender;
    this.#codec = parts.codec;
    this.#methods = new Map(parts.server.methods.map((name, number) => [name, number]));
    this.#server = takeEndpoint(parts.server.endpoint, parts.server.call);
    this.#timeout = parts.timeout;
    this.#maxPayload = parts.server.maxPayload;
    this.#openSyncSocket = () =>
      new SyncSocket(parts.path, parts.address, { ...parts.hello, call: lastOwnCall() });
  }

  /** Names of the service's methods. */
  get methods(): string[] {
    return [...this.#methods.keys()];
  }

  /** What this connection has done so far. */
  get counters(): Counters {
    const sender = this.#sender;
    return {
      ...this.#counters,
      ...(sender ? { handBacks: sender.handBacks, waits: sender.waits } : {}),
    };
  }

  /**
   * Calls a method and returns its answer: a function call into another process. The thread, and
   * so its event loop, waits until the answer is there.
   *
   * Throws an RpalError: what the handler threw, `ETIMEDOUT`, `EDEADLK` (the other thread waits
   * for this one), `EOWNERDEAD` or `ECONNRESET` (the server died), `ERR_RPAL_…`.
   */
  callSync(method: string, payload: Payload, options?: CallSyncOptions): Answer {
    const number = this.#numberOf(method);
    const bytes = this.#encode(method, payload);
    if (this.#channel.ended) throw this.#channel.ended;
    refuseDeadlock(this.#server, method);
    const timeout = options?.timeout ?? this.#timeout;
    // Opened before the call begins: its hello says that this thread is past the calls until then.
    const sender = this.#sender ?? (this.#syncSocket ??= this.#openSyncSocket());
    const id = this.#begin(bytes);
    try {
      if (sender instanceof SyncSocket) {
        const result = sender.call({ id, method: number, payload: bytes }, timeout);
        return this.#conclude(method, result.kind, result.payload);
      }
      const begun = timeout < 0 ? 0 : performance.now();
      const outcome = sender.callSync(number, id, bytes, timeout);
      if (outcome === Outcome.answered) {
        return this.#conclude(method, sender.answerKind, sender.answer);
      }
      if (outcome === Outcome.late) {
        this.#channel.cancel(id);
        throw late(method, timeout);
      }
      return this.#awaitSync(sender, method, id, timeout, begun);
    } catch (error) {
      this.#counters.errors += 1;
      throw error;
    }
  }

  /**
   * Calls a method without blocking: the handler runs at once if the server is idle, else the call
   * waits for it in the server's event loop. There a later call can overtake it: where the order
   * matters, wait for one answer before the next call. Rejects as callSync() throws, and with
   * `ABORT_ERR`.
   */
  call(method: string, payload: Payload, options: CallOptions = {}): Promise<Answer> {
    try {
      const number = this.#numberOf(method);
      const bytes = this.#encode(method, payload);
      if (this.#channel.ended) throw this.#channel.ended;
      if (options.signal?.aborted) throw aborted(method, options.signal);
      const id = this.#begin(bytes);
      const sender = this.#sender;
      const rpal = sender !== undefined && !this.#fetching;
      const newest = this.#server.newest;
      const outcome = rpal ? sender.post(number, id, bytes) : Outcome.busy;
      if (rpal && outcome === Outcome.answered) {
        isPast(this.#server, newest);
        return Promise.resolve(this.#conclude(method, sender.answerKind, sender.answer));
      }
      const answer = this.#awaitAnswer(method, id, options, newest);
      if (outcome === Outcome.busy) {
        if (sender) this.#counters.fallbacks += 1;
        this.#request(id, requestFrame(id, number, 0, bytes));
      } else if (outcome === Outcome.handedBack) {
        this.#fetch(id, answer);
      }
      return answer;
    } catch (error) {
      this.#counters.errors += 1;
      return Promise.reject(toError(error));
    }
  }

  /** Ends the connection. Calls that wait fail with `ERR_RPAL_CLOSED`. */
  async close(): Promise<void> {
    const closed = this.#channel.close(
      new RpalError('ERR_RPAL_CLOSED', 'This client was closed; connect() again for more calls.'),
    );
    await Promise.all([closed, this.#syncSocket?.close()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal The connection has ended. */
  ended(reason: RpalError): void {
    this.#sender?.close();
    giveEndpointBack(this.#server);
    void this.#syncSocket?.close();
    diagnostics.clientClosed.publish({ address: this.address, reason: reason.message });
  }

  #begin(bytes: Uint8Array): number {
    this.#counters.calls += 1;
    this.#counters.bytesSent += bytes.length;
    return nextOwnCall();
  }

  #numberOf(method: string): number {
    const number = this.#methods.get(method);
    if (number !== undefined) return number;
    throw new RpalError(
      'ERR_RPAL_NO_METHOD',
      `The service at '${this.address}' has no method '${method}'. It has: ${this.methods.join(', ') || 'none'}.`,
    );
  }

  #encode(method: string, payload: Payload): Uint8Array {
    const bytes: unknown = this.#codec ? this.#codec.encode(payload) : payload;
    if (!(bytes instanceof Uint8Array)) {
      throw new RpalError(
        'ERR_RPAL_NO_BYTES',
        `The payload for '${method}' is ${bytes === null ? 'null' : typeof bytes}, and without a codec it must be a Uint8Array. Pass one, or pass a codec to serve() and connect().`,
      );
    }
    if (bytes.length > this.#maxPayload) {
      throw new RpalError(
        'ERR_RPAL_PAYLOAD_TOO_LONG',
        `The payload for '${method}' has ${String(bytes.length)} bytes, and the server accepts ${String(this.#maxPayload)}. Raise maxPayload in its serve(), or send it in parts.`,
      );
    }
    return bytes;
  }

  #conclude(method: string, kind: AnswerKind, payload: Uint8Array): Answer {
    this.#counters.bytesReceived += payload.length;
    if (kind !== AnswerKind.value) throw decodeError(method, payload);
    return (this.#codec ? this.#codec.decode(payload) : payload) as Answer;
  }

  /** The answer of an asynchronous handler, read from the socket without the event loop. */
  #awaitSync(sender: Sender, method: string, id: number, timeout: number, begun: number): Answer {
    const end = timeout < 0 ? Infinity : begun + timeout;
    let result: { kind: AnswerKind; payload: Uint8Array } | RpalError | undefined;
    this.#channel.expect(id, {
      answered: (kind, payload) => {
        result = { kind, payload };
      },
      lost: (reason) => {
        result = reason;
      },
    });
    while (result === undefined) {
      const left = end === Infinity ? -1 : Math.ceil(end - performance.now());
      const chunk =
        end !== Infinity && left <= 0
          ? undefined
          : sender.readSocket(this.#channel.descriptor, left);
      if (chunk === undefined) {
        this.#channel.cancel(id);
        throw late(method, timeout);
      }
      if (chunk.length === 0) {
        this.#channel.destroy(
          new RpalError(
            'EOWNERDEAD',
            `The server at '${this.address}' ended before it answered '${method}'. Connect again.`,
          ),
        );
      } else {
        this.#channel.receive(chunk);
      }
    }
    if (result instanceof RpalError) throw result;
    return this.#conclude(method, result.kind, result.payload);
  }

  /**
   * @param newest the server thread's newest call when this one was sent: if it waited for that
   * one then, it does not when it answers
   */
  #awaitAnswer(method: string, id: number, options: CallOptions, newest: number): Promise<Answer> {
    const { signal } = options;
    const timeout = options.timeout ?? this.#timeout;
    return new Promise((done, fail) => {
      let timer: NodeJS.Timeout | undefined;
      const giveUp = (error: RpalError): void => {
        this.#channel.cancel(id);
        failed(error);
      };
      const onAbort = (): void => {
        giveUp(aborted(method, signal));
      };
      const settle = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
      };
      const failed = (error: unknown): void => {
        settle();
        this.#counters.errors += 1;
        fail(toError(error));
      };
      if (timeout >= 0 && timeout <= longestTimer) {
        timer = setTimeout(() => {
          giveUp(late(method, timeout));
        }, timeout);
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#channel.expect(id, {
        answered: (kind, payload) => {
          isPast(this.#server, newest);
          let answer: Answer;
          try {
            answer = this.#conclude(method, kind, payload);
          } catch (error) {
            failed(error);
            return;
          }
          settle();
          done(answer);
        },
        lost: failed,
      });
    });
  }

  /** Sends a request, unless it is given up while the socket is congested. */
  #request(id: number, frame: Uint8Array): void {
    if (!this.#channel.congested) {
      this.#channel.send(frame);
      return;
    }
    void this.#channel.drained().then(() => {
      if (this.#channel.expects(id)) this.#request(id, frame);
    });
  }

  #fetch(id: number, answer: Promise<Answer>): void {
    this.#fetching = true;
    this.#counters.fallbacks += 1;
    this.#channel.send(callFrame(FrameType.fetch, id));
    const fetched = (): void => {
      this.#fetching = false;
    };
    answer.then(fetched, fetched);
  }
}

function late(method: string, timeout: number): RpalError {
  return new RpalError(
    'ETIMEDOUT',
    `'${method}' did not answer within ${String(Math.round(timeout))} ms; its handler may still be running. Allow more time, or find out what keeps it.`,
  );
}

function aborted(method: string, signal: AbortSignal | undefined): RpalError {
  return new RpalError('ABORT_ERR', `The call of '${method}' was aborted by its AbortSignal.`, {
    cause: signal?.reason,
  });
}
