import { constants } from 'node:os';
import { type Addon, loadAddon } from './addon.js';
import { RpalError, systemError } from './errors.js';
import {
  CallFlag,
  Exchange,
  InlineBytes,
  inlineBytes,
  Place,
  ReplyForm,
  Word,
} from './exchange.js';
import { AnswerKind } from './frames.js';
import type { RpalOffer, ServerHello } from './handshake.js';

/** How an RPAL call ended for the one who made it. */
export const Outcome = {
  /** `answerKind` and `answer` hold the answer. */
  answered: 0,
  /** The handler is asynchronous: the answer comes over the socket. */
  deferred: 1,
  /** The receiver was busy and the call was not to wait: nothing has been delivered. */
  busy: 2,
  /** The handler goes on in its own process; its answer must be fetched over the socket. */
  handedBack: 3,
  /** Its time was over: nothing has been delivered, or the handler goes on. */
  late: 4,
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

const { ETIMEDOUT, EINPROGRESS, ENOTCONN, EMSGSIZE } = constants.errno;
/** Status of librpal: the receiver waits again and has not answered. */
const pending = 1;
const longestTimeout = 0x7fffffff;
const noBytes = new Uint8Array(0);

/** This thread as a sender of RPAL calls. */
export class SenderSide {
  private constructor(
    private readonly addon: Addon,
    private readonly exchange: Exchange,
    /** What the server must know to link with this service. */
    readonly offer: RpalOffer,
  ) {}

  static #open: SenderSide | undefined;

  /** Makes this thread a sender; the reason why not otherwise. */
  static open(): SenderSide | string {
    if (SenderSide.#open) return SenderSide.#open;
    const addon = loadAddon();
    if (typeof addon === 'string') return addon;
    const tid = addon.openSender();
    if (tid < 0) return systemError('Becoming an RPAL caller', tid).message;
    const service = addon.service();
    if (service === undefined) return 'this process is no RPAL service';
    SenderSide.#open = new SenderSide(addon, new Exchange(addon.exchange), {
      abi: service.abi,
      service: service.id,
      key: service.key.toString(16),
    });
    return SenderSide.#open;
  }

  /** Links with the server that sent this hello; the reason why not otherwise. */
  link(hello: ServerHello, maxPayload: number): Sender | string {
    const { rpal } = hello;
    if (rpal?.receiver === undefined || rpal.cookie === undefined) {
      return `the server says: ${hello.unixReason ?? 'no RPAL'}`;
    }
    if (rpal.abi !== this.offer.abi) return 'the server uses another version of RPAL';
    const connection = this.addon.linkServer(
      BigInt(`0x${rpal.key}`),
      rpal.receiver,
      BigInt(`0x${rpal.cookie}`),
      Math.min(maxPayload, 0xffffffff),
    );
    if (connection === -ENOTCONN) return 'the server has not linked with this process';
    if (connection < 0) return systemError('Linking with the server', connection).message;
    return new Sender(this.addon, this.exchange, connection);
  }
}

/** The RPAL side of a client's connection. */
export class Sender {
  /** Kind of the last answer, and its bytes. */
  answerKind: AnswerKind = AnswerKind.value;
  answer: Uint8Array = noBytes;
  readonly #reply: InlineBytes;
  #help: [handBacks: number, waits: number] = [0, 0];
  #closed = false;

  /** @internal */
  constructor(
    private readonly addon: Addon,
    private readonly exchange: Exchange,
    private readonly connection: number,
  ) {
    this.#reply = new InlineBytes(exchange, Place.reply);
  }

  /** Calls and waits for the answer, at most `timeout` ms (−1: for ever). */
  callSync(method: number, id: number, payload: Uint8Array, timeout: number): Outcome {
    return this.#call(method, id, payload, CallFlag.sync, timeout);
  }

  /**
   * Calls, but never waits for a receiver that is busy or was handed back. That may read a payload
   * after this has returned, when the caller writes to it again: it gets a copy.
   */
  post(method: number, id: number, payload: Uint8Array): Outcome {
    const own = payload.length > inlineBytes ? payload.slice() : payload;
    return this.#call(method, id, own, 0, 0);
  }

  /** Reads from a socket, waiting at most `timeout` ms for bytes. Empty: the other side ended. */
  readSocket(descriptor: number, timeout: number): Uint8Array | undefined {
    const chunk = this.addon.readSocket(descriptor, timeout);
    if (typeof chunk === 'number') throw systemError('Waiting for the answer', chunk);
    return chunk;
  }

  /** Calls whose handler needed the kernel. */
  get handBacks(): number {
    return this.#kernelHelp()[0];
  }

  /** Calls that waited for a busy receiver. */
  get waits(): number {
    return this.#kernelHelp()[1];
  }

  close(): void {
    if (this.#closed) return;
    this.#help = this.#kernelHelp();
    this.#closed = true;
    this.addon.unlinkServer(this.connection);
  }

  #kernelHelp(): [number, number] {
    return this.#closed ? this.#help : this.addon.kernelHelp(this.connection);
  }

  #call(method: number, id: number, payload: Uint8Array, flags: number, timeout: number): Outcome {
    const { exchange } = this;
    const { words } = exchange;
    const { length } = payload;
    words[Word.requestConnection] = this.connection;
    words[Word.requestMethod] = method;
    words[Word.requestId] = id;
    words[Word.requestTimeout] = timeout < 0 ? -1 : Math.min(Math.ceil(timeout), longestTimeout);
    let bulk: Uint8Array | undefined;
    if (length <= inlineBytes) {
      words[Word.requestFlags] = flags;
      words[Word.requestLength] = length;
      exchange.put(Place.request, payload);
      bulk = this.addon.call();
    } else {
      words[Word.requestFlags] = flags | CallFlag.bulk;
      bulk = this.addon.call(payload);
    }
    const status = exchange.word(Word.replyStatus);
    if (status !== 0) return this.#unanswered(status, flags);
    const form = words[Word.replyForm];
    if (form === ReplyForm.deferred) return Outcome.deferred;
    this.answerKind = exchange.word(Word.replyKind) as AnswerKind;
    this.answer = bulk ?? this.#reply.copy(exchange.word(Word.replyLength));
    return Outcome.answered;
  }

  #unanswered(status: number, flags: number): Outcome {
    if (status === -ETIMEDOUT) {
      return (flags & CallFlag.sync) === 0 ? Outcome.busy : Outcome.late;
    }
    if (status === -EINPROGRESS && (flags & CallFlag.sync) === 0) return Outcome.handedBack;
    if (status === -EMSGSIZE) {
      throw new RpalError(
        'ERR_RPAL_PAYLOAD_TOO_LONG',
        'The payload or its answer is longer than the other side accepts. Raise maxPayload there.',
      );
    }
    if (status === pending) {
      throw new RpalError(
        'ERR_RPAL_NO_ANSWER',
        'The handler ended without an answer: its process met an error that it did not handle.',
      );
    }
    throw systemError('The call', status);
  }
}
