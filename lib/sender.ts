import type { AnswerKind } from './frames.js';
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
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

/** The RPAL side of a client's connection. */
export interface Sender {
  readonly answerKind: AnswerKind;
  readonly answer: Uint8Array;
  /** Calls and waits for the answer, at most `timeout` ms (−1: for ever). */
  callSync(method: number, id: number, payload: Uint8Array, timeout: number): Outcome;
  /** Calls, but never waits for a receiver that is busy or was handed back. */
  post(method: number, id: number, payload: Uint8Array): Outcome;
  /** Waits until the socket has bytes and reads some, at most `timeout` ms; empty: it ended. */
  readSocket(descriptor: number, timeout: number): Uint8Array | undefined;
  readonly handBacks: number;
  readonly waits: number;
  close(): void;
}

/** This thread as a sender of RPAL calls. */
export interface SenderSide {
  readonly offer: RpalOffer;
  /** Links with the server that answered; the reason why not otherwise. */
  link(hello: ServerHello): Sender | string;
}

/** Makes this thread a sender; the reason why not otherwise. */
export function openSender(): SenderSide | string {
  return 'the native addon is not built';
}
