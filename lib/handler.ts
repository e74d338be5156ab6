import type { Codec } from './codec.js';
import type { Transport } from './handshake.js';

/** What a handler is told about the call it answers. */
export interface CallContext {
  /** Name of the method. */
  readonly method: string;
  /** How the call came. */
  readonly transport: Transport;
  /** Process id of the caller, as it said itself. */
  readonly callerPid: number;
  /**
   * Aborts when the caller does not want the answer any more: its deadline has passed, its
   * AbortSignal fired, or its connection is gone. Only asynchronous handlers can notice.
   */
  readonly signal: AbortSignal;
}

/**
 * Answers calls of one method. The payload belongs to the handler. The answer belongs to the
 * library once it is returned: do not change it afterwards.
 */
export type Handler<Payload = Uint8Array, Answer = Uint8Array> = (
  payload: Payload,
  context: CallContext,
) => Answer | Promise<Answer>;

/** A handler as the transports use it. */
export type BytesHandler = Handler;

/** What a handler returned, if it is a promise or something that acts like one. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    'then' in value &&
    typeof value.then === 'function'
  );
}

/** The bytes handler that decodes for `handler` and encodes what it answers. */
export function withCodec(handler: Handler<never, unknown>, codec: Codec): BytesHandler {
  return (payload, context) => {
    const answer = handler(codec.decode(payload) as never, context);
    return isThenable(answer)
      ? Promise.resolve(answer).then((value) => codec.encode(value))
      : codec.encode(answer);
  };
}
