import { buildCommand } from './addon.js';
import { RpalError } from './errors.js';

/** Bytes of a payload that travel in the registers of a call. */
export const inlineBytes = 32;

/** Flags of a request, as in native/addon/message_format.h. */
export const CallFlag = { sync: 1, bulk: 2 } as const;

/** Where the bytes of a reply are, as in native/addon/message_format.h. */
export const ReplyForm = { inline: 0, bulk: 1, deferred: 2 } as const;

/** Places of the 32-bit words in the block that is shared with the addon (native/addon/exchange.h). */
export const Word = {
  requestConnection: 0,
  requestMethod: 1,
  requestFlags: 2,
  requestId: 3,
  requestLength: 4,
  requestTimeout: 5,
  replyStatus: 16,
  replyForm: 17,
  replyKind: 18,
  replyLength: 19,
  servedConnection: 32,
  servedMethod: 33,
  servedFlags: 34,
  servedId: 35,
  servedLength: 36,
  servedPresent: 37,
  answerForm: 48,
  answerKind: 49,
  answerLength: 50,
} as const;

/** Places of the inline bytes in that block. */
export const Place = { request: 32, reply: 96, served: 160, answer: 224 } as const;

const blockBytes = 256;

/** The block as JavaScript sees it. */
export class Exchange {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;

  constructor(buffer: ArrayBuffer) {
    if (buffer.byteLength !== blockBytes) {
      throw new RpalError(
        'ERR_RPAL_ADDON',
        `The native addon does not belong to this version of the package. Build it again: ${buildCommand()}`,
      );
    }
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
  }

  /** One of the words. */
  word(place: number): number {
    return this.words[place] ?? 0;
  }

  /** Puts up to 32 bytes into the block. */
  put(place: number, payload: Uint8Array): void {
    this.bytes.set(payload, place);
  }
}

/** The inline bytes at one place of the block, for reading. */
export class InlineBytes {
  /** By length: a new array of a view that exists is the fastest copy that JavaScript has. */
  readonly #views: Uint8Array[];

  constructor(exchange: Exchange, place: number) {
    this.#views = Array.from({ length: inlineBytes + 1 }, (_, length) =>
      exchange.bytes.subarray(place, place + length),
    );
  }

  /** A copy of the first `length` of them. */
  copy(length: number): Uint8Array {
    const view = this.#views[length];
    if (view === undefined) {
      throw new RpalError(
        'ERR_RPAL_PROTOCOL',
        `The other side says that ${length} bytes came where ${inlineBytes} have room. Use the same version of the package on both sides.`,
      );
    }
    return new Uint8Array(view);
  }
}
