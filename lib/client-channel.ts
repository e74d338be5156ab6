import { connect as netConnect, type Socket } from 'node:net';
import { codeOf, messageOf, RpalError } from './errors.js';
import {
  AnswerKind,
  callFrame,
  type Frame,
  FrameReader,
  FrameType,
  jsonFrame,
  longestError,
  parseJson,
  parseResponse,
  responseHeader,
} from './frames.js';
import {
  type ClientHello,
  handshakeFrameLimit,
  handshakeTimeout,
  parseServerHello,
  refusalError,
  type ServerHello,
} from './handshake.js';

/** A call whose answer will come over the socket. */
export interface PendingAnswer {
  /** It came; the bytes belong to the callee of this function. */
  answered: (kind: AnswerKind, payload: Uint8Array) => void;
  /** It will not come: the connection has ended. */
  lost: (reason: RpalError) => void;
}

const connectRemedies: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket; start the server first, or check the address',
  ECONNREFUSED: 'its server has ended; start it again',
  EACCES: "this user may not connect to it; check the file's permissions",
};

/**
 * The client's end of the Unix socket: the handshake, calls and answers that travel as frames, and
 * the news that the server is gone.
 */
export class ClientChannel {
  readonly #pending = new Map<number, PendingAnswer>();
  readonly #reader = new FrameReader(handshakeFrameLimit);
  #greeted: ((hello: ServerHello) => void) | undefined;
  #refused: ((error: RpalError) => void) | undefined;
  #end: RpalError | undefined;
  #drained: Promise<void> | undefined;

  private constructor(
    private readonly socket: Socket,
    private readonly address: string,
    /** Told once, when the connection has ended for whatever reason. */
    private readonly onEnd: (reason: RpalError) => void,
  ) {
    socket.on('data', (chunk) => {
      this.receive(chunk);
    });
    socket.on('error', (error) => {
      const code = codeOf(error);
      this.#finish(
        new RpalError(
          // Who writes before it has read that the server is gone gets EPIPE.
          code === undefined || code === 'EPIPE' ? 'ECONNRESET' : code,
          `The connection to '${address}' broke (${messageOf(error)}). Connect again.`,
          { cause: error },
        ),
      );
    });
    socket.on('close', () => {
      this.#finish(
        new RpalError(
          'ECONNRESET',
          `The server at '${address}' has closed the connection. It may have ended: start it again and connect again.`,
        ),
      );
    });
  }

  /** Connects to the socket at `path`. */
  static open(
    path: string,
    address: string,
    onEnd: (reason: RpalError) => void,
  ): Promise<ClientChannel> {
    return new Promise((done, fail) => {
      const socket = netConnect(path);
      const failed = (error: Error): void => {
        const code = codeOf(error) ?? 'ERR_RPAL_CONNECT';
        fail(
          new RpalError(
            code,
            `Cannot connect to '${address}' (${code}): ${connectRemedies[code] ?? messageOf(error)}.`,
            { cause: error },
          ),
        );
      };
      socket.once('error', failed);
      socket.once('connect', () => {
        socket.off('error', failed);
        done(new ClientChannel(socket, address, onEnd));
      });
    });
  }

  /** Why the connection has ended; undefined while it lives. */
  get ended(): RpalError | undefined {
    return this.#end;
  }

  /** Descriptor of the socket, −1 when it is closed: for waiting without the event loop. */
  get descriptor(): number {
    const { _handle: handle } = this.socket as unknown as { _handle: { fd?: number } | null };
    return handle?.fd ?? -1;
  }

  /** Exchanges the hellos. */
  greet(hello: ClientHello): Promise<ServerHello> {
    return new Promise((done, fail) => {
      const deadline = setTimeout(() => {
        this.destroy(
          new RpalError(
            'ETIMEDOUT',
            `The server at '${this.address}' did not answer in ${String(handshakeTimeout)} ms. It may be blocked; check that its event loop runs.`,
          ),
        );
      }, handshakeTimeout);
      this.#greeted = (answer) => {
        clearTimeout(deadline);
        this.#refused = undefined;
        this.#reader.limit = responseHeader + Math.max(hello.maxPayload, longestError);
        done(answer);
      };
      this.#refused = (error) => {
        clearTimeout(deadline);
        fail(error);
      };
      if (this.#end) this.#refused(this.#end);
      else this.socket.write(jsonFrame(FrameType.hello, hello));
    });
  }

  /** Sends a frame. */
  send(frame: Uint8Array): void {
    if (this.#end === undefined) this.socket.write(frame);
  }

  /** The unsent bytes are so many that a polite sender waits for {@link drained}. */
  get congested(): boolean {
    return this.socket.writableNeedDrain;
  }

  /** Resolves when the unsent bytes are few again, or when the connection has ended. */
  drained(): Promise<void> {
    this.#drained ??= new Promise((done) => {
      const over = (): void => {
        this.#drained = undefined;
        this.socket.off('drain', over).off('close', over);
        done();
      };
      this.socket.once('drain', over).once('close', over);
    });
    return this.#drained;
  }

  /** Waits for the answer of a call. It keeps the process alive until then. */
  expect(id: number, pending: PendingAnswer): void {
    if (this.#end) {
      pending.lost(this.#end);
      return;
    }
    this.#pending.set(id, pending);
    this.socket.ref();
  }

  /** The answer of this call is still waited for. */
  expects(id: number): boolean {
    return this.#pending.has(id);
  }

  /** Does not wait any longer. */
  forget(id: number): void {
    this.#pending.delete(id);
    this.#rest();
  }

  /** Does not wait any longer, and tells the server. */
  cancel(id: number): void {
    this.forget(id);
    this.send(callFrame(FrameType.cancel, id));
  }

  /** Lets an idle client's process end. */
  #rest(): void {
    if (this.#pending.size === 0 && this.#refused === undefined) this.socket.unref();
  }

  /** The handshake is over: from now on only calls keep the process alive. */
  settle(): void {
    this.#rest();
  }

  /** Takes bytes that were read from the socket, by the event loop or by a waiting thread. */
  receive(chunk: Uint8Array): void {
    try {
      for (const frame of this.#reader.push(chunk)) this.#take(frame);
    } catch (error) {
      this.destroy(
        error instanceof RpalError
          ? error
          : new RpalError('ERR_RPAL_PROTOCOL', messageOf(error), { cause: error }),
      );
    }
  }

  #take(frame: Frame): void {
    if (frame.type === FrameType.refused) {
      this.destroy(refusalError(parseJson(frame.body)));
      return;
    }
    if (this.#greeted) {
      if (frame.type !== FrameType.hello) {
        throw new RpalError(
          'ERR_RPAL_PROTOCOL',
          `What listens at '${this.address}' did not answer with a hello. Check that the address is that of an rpal service.`,
        );
      }
      const greeted = this.#greeted;
      const hello = parseServerHello(parseJson(frame.body));
      this.#greeted = undefined;
      greeted(hello);
      return;
    }
    if (frame.type !== FrameType.response) {
      throw new RpalError(
        'ERR_RPAL_PROTOCOL',
        `The server at '${this.address}' sent a frame of the unknown type ${String(frame.type)}. Install the same version of the rpal package on both sides.`,
      );
    }
    const { id, kind, payload } = parseResponse(frame.body);
    const pending = this.#pending.get(id);
    // An answer that nobody waits for came after its deadline.
    if (pending === undefined) return;
    this.#pending.delete(id);
    this.#rest();
    // The caller may keep the answer, the reader's memory is reused.
    pending.answered(
      kind === AnswerKind.value ? AnswerKind.value : AnswerKind.error,
      payload.slice(),
    );
  }

  /** Sends what is due and closes; calls that wait fail with `reason`. */
  close(reason: RpalError): Promise<void> {
    this.#finish(reason);
    return new Promise((done) => {
      if (this.socket.closed) {
        done();
        return;
      }
      this.socket.ref();
      this.socket.once('close', () => {
        done();
      });
      this.socket.destroySoon();
    });
  }

  /** Ends the connection at once. */
  destroy(reason: RpalError): void {
    this.#finish(reason);
    this.socket.destroy();
  }

  #finish(reason: RpalError): void {
    if (this.#end) return;
    this.#end = reason;
    this.#refused?.(reason);
    for (const pending of this.#pending.values()) pending.lost(reason);
    this.#pending.clear();
    this.onEnd(reason);
  }
}
