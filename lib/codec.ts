import { decode, encode } from '@msgpack/msgpack';

/**
 * How values become the bytes of a payload and back. Client and server of a connection must use
 * the same codec; the handshake compares their names.
 */
export interface Codec {
  /** Compared in the handshake. */
  readonly name: string;
  encode(value: unknown): Uint8Array;
  decode(bytes: Uint8Array): unknown;
}

/**
 * MessagePack: plain objects, arrays, strings, numbers, booleans, null, `Date` and `Uint8Array`.
 * `undefined` arrives as null.
 */
export const msgpack: Codec = {
  name: 'msgpack',
  encode: (value) => encode(value),
  decode: (bytes) => decode(bytes),
};

/** Name of "no codec": payloads are the bytes themselves. */
export const bytesCodecName = 'bytes';
