import { describe, expect, it } from 'vitest';
import {
  FrameReader,
  FrameType,
  jsonFrame,
  parseJson,
  parseRequest,
  parseResponse,
  requestFrame,
  responseFrame,
} from '../../lib/frames.js';

function framesOf(reader: FrameReader, chunk: Uint8Array): { type: number; body: number[] }[] {
  return [...reader.push(chunk)].map(({ type, body }) => ({ type, body: [...body] }));
}

describe('FrameReader', () => {
  const stream = Buffer.concat([
    jsonFrame(FrameType.hello, { a: 1 }),
    requestFrame(7, 2, 1, Uint8Array.of(1, 2, 3)),
    responseFrame(7, 0, new Uint8Array(0)),
    requestFrame(8, 0, 0, new Uint8Array(1000).fill(9)),
  ]);
  const whole = framesOf(new FrameReader(2000), stream);
  const bodyOf = (index: number): Uint8Array => Uint8Array.from(whole[index]?.body ?? []);

  it('cuts a stream into its frames', () => {
    expect(whole.map((frame) => frame.type)).toEqual([
      FrameType.hello,
      FrameType.request,
      FrameType.response,
      FrameType.request,
    ]);
    expect(parseJson(bodyOf(0))).toEqual({ a: 1 });
    expect(parseRequest(bodyOf(1))).toMatchObject({
      id: 7,
      method: 2,
      flags: 1,
      payload: Uint8Array.of(1, 2, 3),
    });
    expect(parseResponse(bodyOf(2)).id).toBe(7);
  });

  it.each([1, 2, 3, 4, 5, 7, 64, 1023])('does so when it comes in pieces of %i bytes', (size) => {
    const reader = new FrameReader(2000);
    const frames = [];
    for (let at = 0; at < stream.length; at += size) {
      // The memory of a piece is reused by its owner.
      const piece = Buffer.from(stream.subarray(at, at + size));
      frames.push(...framesOf(reader, piece));
      piece.fill(0xff);
    }
    expect(frames).toEqual(whole);
  });

  it('refuses a frame over the limit by its length alone', () => {
    const reader = new FrameReader(100);
    const start = Buffer.alloc(4);
    start.writeUInt32LE(101);
    expect(() => framesOf(reader, start)).toThrow(
      expect.objectContaining({ code: 'ERR_RPAL_FRAME_TOO_LONG' }),
    );
  });

  it('refuses an empty frame', () => {
    expect(() => framesOf(new FrameReader(100), new Uint8Array(4))).toThrow(
      expect.objectContaining({ code: 'ERR_RPAL_PROTOCOL' }),
    );
  });
});

describe('bodies that are cut short', () => {
  it.each([parseRequest, parseResponse, parseJson])('%o refuses them', (parse) => {
    expect(() => parse(Uint8Array.of(1, 2))).toThrow(
      expect.objectContaining({ code: 'ERR_RPAL_PROTOCOL' }),
    );
  });
});
