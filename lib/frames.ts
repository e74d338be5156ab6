import { RpalError } from './errors.js';

/**
 * Frames on the Unix socket: the handshake, all traffic of the 'unix' transport, and what the
 * 'rpal' transport cannot say in a call.
 *
 *     length  u32, little endian: bytes after this word
 *     type    u8, one of FrameType
 *     body    as its type says
 */
export const FrameType = {
  /** First frame each way. Body: JSON, see handshake.ts. */
  hello: 1,
  /** Client, after the server's hello: whether it could link. Body: JSON. */
  ready: 2,
  /** A call. Body: id u32, method u16, flags u8, payload. */
  request: 3,
  /** Its answer. Body: id u32, kind u8 (AnswerKind), payload. */
  response: 4,
  /** The client does not want that answer any more. Body: id u32. */
  cancel: 5,
  /** Client: the answer to this RPAL call was lost in a hand-back, send it here. Body: id u32. */
  fetch: 6,
  /** The server ends the handshake. Body: JSON, code and message. */
  refused: 7,
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Flags of a request. */
export const RequestFlag = {
  /** The caller's thread is blocked until the answer is there. */
  sync: 1,
} as const;

/** What the payload of an answer is. */
export const AnswerKind = { value: 0, error: 1 } as const;
export type AnswerKind = (typeof AnswerKind)[keyof typeof AnswerKind];

/**
 * Longest payload of an answer of kind error, in bytes. Apart from maxPayload, which is about what
 * handlers return: an error must always arrive.
 */
export const longestError = 64 * 1024;

const lengthBytes = 4;
/** Bytes before the payload of a request, without the length word. */
export const requestHeader = 1 + 4 + 2 + 1;
/** Bytes before the payload of a response, without the length word. */
export const responseHeader = 1 + 4 + 1;

/** A frame as it arrived. `body` is a view that is valid until the reader gets more bytes. */
export interface Frame {
  type: number;
  body: Uint8Array;
}

function startFrame(type: FrameType, bodyBytes: number): Buffer {
  const frame = Buffer.allocUnsafe(lengthBytes + 1 + bodyBytes);
  frame.writeUInt32LE(1 + bodyBytes, 0);
  frame[lengthBytes] = type;
  return frame;
}

/** A frame whose body is a JSON value. */
export function jsonFrame(type: FrameType, value: unknown): Buffer {
  const body = Buffer.from(JSON.stringify(value));
  const frame = startFrame(type, body.length);
  frame.set(body, lengthBytes + 1);
  return frame;
}

/** A request frame. */
export function requestFrame(
  id: number,
  method: number,
  flags: number,
  payload: Uint8Array,
): Buffer {
  const frame = startFrame(FrameType.request, requestHeader - 1 + payload.length);
  frame.writeUInt32LE(id, 5);
  frame.writeUInt16LE(method, 9);
  frame[11] = flags;
  frame.set(payload, 12);
  return frame;
}

/** A response frame. */
export function responseFrame(id: number, kind: AnswerKind, payload: Uint8Array): Buffer {
  const frame = startFrame(FrameType.response, responseHeader - 1 + payload.length);
  frame.writeUInt32LE(id, 5);
  frame[9] = kind;
  frame.set(payload, 10);
  return frame;
}

/** A frame that only names a call: cancel or fetch. */
export function callFrame(type: FrameType, id: number): Buffer {
  const frame = startFrame(type, 4);
  frame.writeUInt32LE(id, 5);
  return frame;
}

/** Number of the call that a frame is about. Throws if the frame has none. */
export function frameCallId(body: Uint8Array): number {
  if (body.length < 4) throw garbage('a frame ends before its call number');
  return new DataView(body.buffer, body.byteOffset).getUint32(0, true);
}

/** The parts of a request's body. */
export function parseRequest(body: Uint8Array): {
  id: number;
  method: number;
  flags: number;
  payload: Uint8Array;
} {
  if (body.length < requestHeader - 1) throw garbage('a request ends before its payload');
  const view = new DataView(body.buffer, body.byteOffset);
  return {
    id: view.getUint32(0, true),
    method: view.getUint16(4, true),
    flags: view.getUint8(6),
    payload: body.subarray(requestHeader - 1),
  };
}

/** The parts of a response's body. */
export function parseResponse(body: Uint8Array): {
  id: number;
  kind: number;
  payload: Uint8Array;
} {
  if (body.length < responseHeader - 1) throw garbage('a response ends before its payload');
  const view = new DataView(body.buffer, body.byteOffset);
  return { id: view.getUint32(0, true), kind: view.getUint8(4), payload: body.subarray(5) };
}

/** The JSON value of a body. */
export function parseJson(body: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.length).toString());
  } catch (error) {
    throw garbage('a frame is no JSON', error);
  }
}

function garbage(what: string, cause?: unknown): RpalError {
  return new RpalError(
    'ERR_RPAL_PROTOCOL',
    `The other side of the socket does not speak this protocol (${what}). Check that both sides use the rpal package and that the address is the right one.`,
    { cause },
  );
}

/**
 * Cuts a stream of bytes into frames, however the stream was cut on its way.
 *
 * It never holds more than one frame, and it refuses a frame that is longer than `limit` when its
 * length arrives, not when its bytes have filled the memory.
 */
export class FrameReader {
  /** Bytes of the frame that has not come completely, in order. */
  #parts: Uint8Array[] = [];
  #bytes = 0;
  /** Length of that frame with its length word, 0 while unknown. */
  #wanted = 0;

  constructor(
    /** Longest frame that is accepted; may grow when the handshake is over. */
    public limit: number,
  ) {}

  /** Frames that `chunk` completes. Throws {@link RpalError} when the stream is unusable. */
  *push(chunk: Uint8Array): Generator<Frame, void> {
    // A plain view: the methods of Buffer differ (slice() does not copy there).
    let rest = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
    for (;;) {
      if (this.#wanted === 0) {
        if (this.#bytes + rest.length < lengthBytes) break;
        const first = this.#take(rest, lengthBytes);
        const length = new DataView(first.buffer, first.byteOffset).getUint32(0, true);
        if (length === 0) throw garbage('an empty frame');
        if (length > this.limit) {
          throw new RpalError(
            'ERR_RPAL_FRAME_TOO_LONG',
            `A frame of ${String(length)} bytes arrived, and ${String(this.limit)} is the limit here. If the other side is right to send it, raise maxPayload on this side.`,
          );
        }
        rest = rest.subarray(lengthBytes - this.#bytes);
        this.#parts = [];
        this.#bytes = 0;
        this.#wanted = length;
      }
      if (this.#bytes + rest.length < this.#wanted) break;
      const frame = this.#take(rest, this.#wanted);
      rest = rest.subarray(this.#wanted - this.#bytes);
      this.#parts = [];
      this.#bytes = 0;
      this.#wanted = 0;
      yield { type: frame[0] ?? 0, body: frame.subarray(1) };
    }
    if (rest.length > 0) {
      this.#parts.push(rest.slice());
      this.#bytes += rest.length;
    }
  }

  /** The first `count` bytes of what is held and `rest`: a view when they lie in one piece. */
  #take(rest: Uint8Array, count: number): Uint8Array {
    if (this.#bytes === 0) return rest.subarray(0, count);
    const whole = new Uint8Array(count);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    whole.set(rest.subarray(0, count - at), at);
    return whole;
  }
}
