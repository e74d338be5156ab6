import { RpalError } from './errors.js';

/** Version of the frames and of the message format of calls. Both sides must have the same. */
export const protocolVersion = 1;

/** Bytes that a frame may have before the handshake is over: enough for 1,000 method names. */
export const handshakeFrameLimit = 64 * 1024;

/** Time in ms in which the other side must have finished the handshake. */
export const handshakeTimeout = 10_000;

/** How calls travel. */
export type Transport = 'rpal' | 'unix';

/** What `transport` may be asked for: 'auto' is RPAL where possible, else the socket. */
export type TransportChoice = Transport | 'auto';

/** Where a service can be reached by RPAL calls. 64-bit numbers travel as text. */
export interface RpalOffer {
  /** ABI of the kernel interface. */
  abi: number;
  /** Service id, and its random key, by which it may be requested. */
  service: number;
  key: string;
  /** Only from the server: its receiver thread, and the cookie that names this connection. */
  receiver?: number;
  cookie?: string;
}

/** First frame of the client. */
export interface ClientHello {
  version: number;
  /** Name of the thread, and the number of the last call that it has begun; see deadlock.ts. */
  endpoint: string;
  call: number;
  pid: number;
  codec: string;
  maxPayload: number;
  /** Present if the client wants RPAL. */
  rpal?: RpalOffer;
}

/** First frame of the server. */
export interface ServerHello {
  version: number;
  /** As in the client's. */
  endpoint: string;
  call: number;
  pid: number;
  maxPayload: number;
  /** A method's number is its place here. */
  methods: string[];
  /** Present if the server can be called by RPAL and has requested the client's service. */
  rpal?: RpalOffer;
  /** Why it is not. */
  unixReason?: string;
}

/** The client's conclusion. Calls may follow at once. */
export interface Ready {
  rpal: boolean;
}

/** Why a server ends a handshake. */
export interface Refusal {
  code: string;
  message: string;
}

function invalid(what: string): RpalError {
  return new RpalError(
    'ERR_RPAL_PROTOCOL',
    `The handshake failed: ${what}. Check that both sides use the rpal package and that the address is the right one.`,
  );
}

type Fields = Record<string, unknown>;

function fieldsOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(`${what} is no object`);
  }
  return value as Fields;
}

function text(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value !== 'string' || value === '') throw invalid(`'${name}' is missing`);
  return value;
}

function count(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw invalid(`'${name}' is no number`);
  }
  return value;
}

function hex64(fields: Fields, name: string): string {
  const value = text(fields, name);
  if (!/^[0-9a-f]{1,16}$/.test(value)) throw invalid(`'${name}' is no 64-bit number`);
  return value;
}

function parseOffer(value: unknown): RpalOffer {
  const fields = fieldsOf(value, 'the RPAL offer');
  return {
    abi: count(fields, 'abi'),
    service: count(fields, 'service'),
    key: hex64(fields, 'key'),
    ...(fields.receiver === undefined ? {} : { receiver: count(fields, 'receiver') }),
    ...(fields.cookie === undefined ? {} : { cookie: hex64(fields, 'cookie') }),
  };
}

function checkVersion(fields: Fields): number {
  const version = count(fields, 'version');
  if (version !== protocolVersion) {
    throw new RpalError(
      'ERR_RPAL_VERSION',
      `The other side speaks version ${String(version)} of the protocol and this side version ${String(protocolVersion)}. Install the same version of the rpal package on both.`,
    );
  }
  return version;
}

/** Checks a client's hello, which anyone who may connect can send. */
export function parseClientHello(value: unknown): ClientHello {
  const fields = fieldsOf(value, 'the hello');
  return {
    version: checkVersion(fields),
    endpoint: text(fields, 'endpoint'),
    call: count(fields, 'call'),
    pid: count(fields, 'pid'),
    codec: text(fields, 'codec'),
    maxPayload: count(fields, 'maxPayload'),
    ...(fields.rpal === undefined ? {} : { rpal: parseOffer(fields.rpal) }),
  };
}

/** Checks a server's hello. */
export function parseServerHello(value: unknown): ServerHello {
  const fields = fieldsOf(value, 'the hello');
  const methods = fields.methods;
  if (!Array.isArray(methods) || !methods.every((name) => typeof name === 'string')) {
    throw invalid("'methods' is no list of names");
  }
  return {
    version: checkVersion(fields),
    endpoint: text(fields, 'endpoint'),
    call: count(fields, 'call'),
    pid: count(fields, 'pid'),
    maxPayload: count(fields, 'maxPayload'),
    methods,
    ...(fields.rpal === undefined ? {} : { rpal: parseOffer(fields.rpal) }),
    ...(typeof fields.unixReason === 'string' ? { unixReason: fields.unixReason } : {}),
  };
}

/** Checks the client's conclusion. */
export function parseReady(value: unknown): Ready {
  return { rpal: fieldsOf(value, 'the conclusion').rpal === true };
}

/** The error for a server's refusal. */
export function refusalError(value: unknown): RpalError {
  const fields = fieldsOf(value, 'the refusal');
  return new RpalError(text(fields, 'code'), text(fields, 'message'));
}
