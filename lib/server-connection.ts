import type { Socket } from 'node:net';
import { type Counters, newCounters } from './counters.js';
import {
  type Endpoint,
  giveEndpointBack,
  hasCalled,
  isPast,
  lastOwnCall,
  ownEndpointId,
  takeEndpoint,
} from './deadlock.js';
import { diagnostics } from './diagnostics.js';
import { codeOf, messageOf, RpalError } from './errors.js';
import {
  AnswerKind,
  type Frame,
  frameCallId,
  FrameReader,
  FrameType,
  jsonFrame,
  parseJson,
  parseRequest,
  RequestFlag,
  requestHeader,
  responseFrame,
} from './frames.js';
import { type BytesHandler, type CallContext, isThenable } from './handler.js';
import {
  type ClientHello,
  handshakeFrameLimit,
  handshakeTimeout,
  parseClientHello,
  parseReady,
  protocolVersion,
  type Refusal,
  type RpalOffer,
  type ServerHello,
  type Transport,
} from './handshake.js';
import { encodeError } from './remote-error.js';

/** What all connections of a server share. */
export interface Service {
  readonly address: string;
  readonly codec: string;
  readonly maxPayload: number;
  /** A method's number is its place here. */
  readonly names: readonly string[];
  readonly handlers: readonly BytesHandler[];
  /** Links with a client that offers RPAL; the reason why not otherwise. */
  link(connection: ServerConnection, offer: RpalOffer): LinkedReceiver | string;
}

/** The RPAL side of a connection. */
export interface LinkedReceiver {
  readonly offer: RpalOffer;
  /** The client has linked, too. Throws if it has not. */
  confirm(): void;
  close(): void;
}

/** Unsent bytes at which no more requests are read from a socket until it has drained. */
const highWater = 1024 * 1024;

class Context implements CallContext {
  #abort: AbortController | undefined;

  constructor(
    readonly method: string,
    readonly transport: Transport,
    readonly callerPid: number,
  ) {}

  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    return this.#abort.signal;
  }

  /** The answer is not wanted any more. */
  abandon(reason: RpalError): void {
    this.#abort ??= new AbortController();
    this.#abort.abort(reason);
  }
}

/** One client of a server: the handshake, then its calls by socket and by RPAL. */
export class ServerConnection {
  readonly counters: Counters = newCounters();
  transport: Transport = 'unix';

  /** Kind of the answer that invoke() has returned last. */
  answerKind: AnswerKind = AnswerKind.value;

  #client: ClientHello | undefined;
  #endpoint: Endpoint | undefined;
  #linked: LinkedReceiver | undefined;
  #ready = false;
  #closed = false;
  #closing = false;
  /** Calls whose handlers have not answered, by number. */
  readonly #running = new Map<number, Context>();
  /** The last asynchronous RPAL call that was answered at once, in case its answer was lost. */
  #lastId = -1;
  #lastKind: AnswerKind = AnswerKind.value;
  #lastAnswer: Uint8Array | undefined;
  readonly #reader = new FrameReader(handshakeFrameLimit);
  readonly #deadline: NodeJS.Timeout;

  constructor(
    private readonly service: Service,
    private readonly socket: Socket,
    private readonly onClosed: (connection: ServerConnection) => void,
  ) {
    socket.on('data', (chunk) => {
      this.#receive(chunk);
    });
    socket.on('error', (error) => {
      this.#end(messageOf(error));
    });
    socket.on('close', () => {
      this.#end('the client closed the connection');
    });
    this.#deadline = setTimeout(() => {
      this.#refuse(
        new RpalError(
          'ETIMEDOUT',
          `The client did not finish the handshake in ${String(handshakeTimeout)} ms.`,
        ),
      );
    }, handshakeTimeout);
    this.#deadline.unref();
  }

  /** Process id that the client gave, 0 before its hello. */
  get clientPid(): number {
    return this.#client?.pid ?? 0;
  }

  /**
   * Runs the handler of a call. Returns its answer (see answerKind), or undefined if it is
   * asynchronous: then the answer goes over the socket when it is there.
   */
  invoke(
    method: number,
    id: number,
    sync: boolean,
    payload: Uint8Array,
    transport: Transport,
  ): Uint8Array | undefined {
    this.counters.calls += 1;
    this.counters.bytesReceived += payload.length;
    const handler = this.service.handlers[method];
    if (handler === undefined) {
      return this.#failed(
        new RpalError(
          'ERR_RPAL_NO_METHOD',
          `There is no method number ${String(method)} here; the client must use the numbers of the handshake.`,
        ),
      );
    }
    const endpoint = this.#endpoint;
    if (endpoint === undefined || this.#closed) {
      return this.#failed(new RpalError('ERR_RPAL_CLOSED', 'The connection is closed.'));
    }
    if (this.#closing) {
      return this.#failed(
        new RpalError('ERR_RPAL_CLOSED', 'The server is closing; connect again later.'),
      );
    }
    const context = new Context(this.service.names[method] ?? '', transport, this.clientPid);
    hasCalled(endpoint, id, sync);
    let deferred = false;
    try {
      const answer: unknown = handler(payload, context);
      if (answer instanceof Uint8Array) return this.#answered(answer);
      if (isThenable(answer)) {
        deferred = true;
        this.#running.set(id, context);
        void this.#answerLater(id, answer);
        return undefined;
      }
      return this.#failed(noBytes(context.method, answer));
    } catch (error) {
      return this.#failed(error);
    } finally {
      if (!deferred) isPast(endpoint, id);
    }
  }

  /** Remembers the answer of an asynchronous RPAL call until the next one comes. */
  remember(id: number, answer: Uint8Array | undefined): void {
    this.#lastId = id;
    this.#lastAnswer = answer;
    this.#lastKind = this.answerKind;
  }

  /** Takes no more calls, sends the answers that are due, then closes. */
  close(): void {
    if (this.#closed || this.#closing) return;
    this.#closing = true;
    this.#endWhenDone();
  }

  #endWhenDone(): void {
    if (!this.#closing || this.#running.size > 0) return;
    // A client that calls all the time would not read that the socket has ended.
    this.#linked?.close();
    this.socket.end();
  }

  async #answerLater(id: number, promise: PromiseLike<unknown>): Promise<void> {
    let answer: Uint8Array;
    try {
      const value = await promise;
      answer =
        value instanceof Uint8Array
          ? this.#answered(value)
          : this.#failed(noBytes(this.#running.get(id)?.method ?? '', value));
    } catch (error) {
      answer = this.#failed(error);
    }
    const kind = this.answerKind;
    if (this.#endpoint) isPast(this.#endpoint, id);
    this.#running.delete(id);
    this.#send(responseFrame(id, kind, answer));
    this.#endWhenDone();
  }

  #answered(answer: Uint8Array): Uint8Array {
    const limit = this.#client?.maxPayload ?? 0;
    if (answer.length > limit) {
      return this.#failed(
        new RpalError(
          'ERR_RPAL_PAYLOAD_TOO_LONG',
          `The answer has ${String(answer.length)} bytes, and the client accepts ${String(limit)}. Raise maxPayload in its connect(), or answer in parts.`,
        ),
      );
    }
    this.answerKind = AnswerKind.value;
    this.counters.bytesSent += answer.length;
    return answer;
  }

  #failed(error: unknown): Uint8Array {
    this.counters.errors += 1;
    this.answerKind = AnswerKind.error;
    return encodeError(error);
  }

  #receive(chunk: Uint8Array): void {
    try {
      for (const frame of this.#reader.push(chunk)) {
        if (this.#closed) return;
        this.#take(frame);
      }
    } catch (error) {
      this.#refuse(error);
    }
  }

  #take(frame: Frame): void {
    if (this.#client === undefined) {
      if (frame.type !== FrameType.hello) throw unexpected(frame.type, 'before the hello');
      this.#greet(parseClientHello(parseJson(frame.body)));
      return;
    }
    if (!this.#ready) {
      if (frame.type !== FrameType.ready)
        throw unexpected(frame.type, 'before the handshake ended');
      this.#begin(parseReady(parseJson(frame.body)).rpal);
      return;
    }
    switch (frame.type) {
      case FrameType.request: {
        const { id, method, flags, payload } = parseRequest(frame.body);
        if (this.transport === 'rpal') this.counters.fallbacks += 1;
        // The handler may keep its payload, the reader's memory is reused.
        const sync = (flags & RequestFlag.sync) !== 0;
        const answer = this.invoke(method, id, sync, payload.slice(), 'unix');
        if (answer) this.#send(responseFrame(id, this.answerKind, answer));
        return;
      }
      case FrameType.cancel: {
        const id = frameCallId(frame.body);
        if (this.#endpoint) isPast(this.#endpoint, id);
        this.#running
          .get(id)
          ?.abandon(
            new RpalError(
              'ERR_RPAL_CANCELLED',
              'The caller does not wait for the answer any more.',
            ),
          );
        return;
      }
      case FrameType.fetch: {
        const id = frameCallId(frame.body);
        // An answer that is not here yet goes over the socket by itself.
        if (id === this.#lastId && this.#lastAnswer) {
          this.counters.fallbacks += 1;
          this.#send(responseFrame(id, this.#lastKind, this.#lastAnswer));
        }
        return;
      }
      default:
        throw unexpected(frame.type, 'from a client');
    }
  }

  #greet(hello: ClientHello): void {
    if (hello.codec !== this.service.codec) {
      throw new RpalError(
        'ERR_RPAL_CODEC',
        `The server uses the codec '${this.service.codec}' and the client '${hello.codec}'. Pass the same codec to serve() and connect().`,
      );
    }
    this.#client = hello;
    this.#endpoint = takeEndpoint(hello.endpoint, hello.call);
    const linked =
      hello.rpal === undefined
        ? 'the client did not ask for it'
        : this.service.link(this, hello.rpal);
    const answer: ServerHello = {
      version: protocolVersion,
      endpoint: ownEndpointId,
      call: lastOwnCall(),
      pid: process.pid,
      maxPayload: this.service.maxPayload,
      methods: [...this.service.names],
      ...(typeof linked === 'string' ? { unixReason: linked } : { rpal: linked.offer }),
    };
    if (typeof linked !== 'string') this.#linked = linked;
    this.#send(jsonFrame(FrameType.hello, answer));
  }

  #begin(rpal: boolean): void {
    clearTimeout(this.#deadline);
    this.#ready = true;
    this.#reader.limit = requestHeader + this.service.maxPayload;
    if (rpal) {
      if (this.#linked === undefined) {
        throw new RpalError('ERR_RPAL_PROTOCOL', 'The client chose RPAL, which was not offered.');
      }
      this.#linked.confirm();
      this.transport = 'rpal';
    } else {
      this.#linked?.close();
      this.#linked = undefined;
    }
    diagnostics.serverConnected.publish({
      address: this.service.address,
      transport: this.transport,
      clientPid: this.clientPid,
    });
  }

  #send(frame: Uint8Array): void {
    if (this.#closed || this.socket.destroyed) return;
    this.socket.write(frame);
    if (this.socket.writableLength > highWater && !this.socket.isPaused()) {
      this.socket.pause();
      this.socket.once('drain', () => {
        this.socket.resume();
      });
    }
  }

  #refuse(error: unknown): void {
    const refusal: Refusal = {
      code: codeOf(error) ?? 'ERR_RPAL_PROTOCOL',
      message: messageOf(error),
    };
    this.#send(jsonFrame(FrameType.refused, refusal));
    this.socket.destroySoon();
    this.#end(refusal.message);
  }

  #end(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#deadline);
    const gone = new RpalError('ERR_RPAL_CLOSED', 'The caller is gone.');
    for (const context of this.#running.values()) context.abandon(gone);
    this.#linked?.close();
    if (this.#endpoint) {
      for (const id of this.#running.keys()) isPast(this.#endpoint, id);
      giveEndpointBack(this.#endpoint);
    }
    this.onClosed(this);
    diagnostics.serverClosed.publish({ address: this.service.address, reason });
  }
}

function noBytes(method: string, answer: unknown): RpalError {
  return new RpalError(
    'ERR_RPAL_NO_BYTES',
    `The handler of '${method}' returned ${answer === null ? 'null' : typeof answer}, and without a codec an answer must be a Uint8Array. Return one (new Uint8Array(0) for nothing), or pass a codec to serve() and connect().`,
  );
}

function unexpected(type: number, when: string): RpalError {
  return new RpalError(
    'ERR_RPAL_PROTOCOL',
    `A frame of type ${String(type)} ${when} is not part of the protocol. Check that both sides use the same version of the rpal package.`,
  );
}
