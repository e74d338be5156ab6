/** librpal for JavaScript, function by function. Most programs want serve() and connect(). */
import { type Addon, loadAddon, type ThreadCounters } from './addon.js';
import { RpalError, systemError } from './errors.js';

/** Words that a call carries each way. */
export const messageWords = 6;

/** What the kernel offers to this process. */
export interface Capabilities {
  /** RPAL can be used; if not, `reason` says why. */
  available: boolean;
  reason?: string;
  /** Version of the kernel interface. */
  abi: number;
  /** Memory protection keys keep peers apart. */
  mpk: boolean;
  /** This process is a service (it was started by rpal run). */
  service: boolean;
  /** It may serve, too (its program is position independent). */
  receive: boolean;
  /** Longest time in ms that a call runs on its caller's thread before it is handed back. */
  tickLimit: number;
}

/** This process as a service. */
export interface Service {
  id: number;
  /** By this number others request it. Give it only to those who shall be peers. */
  key: bigint;
  /** Protection key of its memory. */
  pkey: number;
  /** Its slot of the address space. */
  slotStart: bigint;
  slotEnd: bigint;
}

/** A service that this one has requested. */
export interface Peer {
  id: number;
  pkey: number;
  /** The word that it gave to registerService(). */
  meta: bigint;
  /** It has requested this service, too: calls are possible. */
  linked: boolean;
}

/** A thread to call: its RPAL thread id, and the protection key of its service. */
export interface Target {
  tid: number;
  pkey: number;
}

/** What comes back from a call. */
export interface RpalAnswer {
  /** What the receiver gave to rpalReply(). 1: it waits again without having answered. */
  status: number;
  words: BigUint64Array;
}

/** A call that rpalEpollWait() has returned for. */
export interface RpalCall {
  /** Thread id of the sender; 0 if the call was handed back before it was taken. */
  caller: number;
  words: BigUint64Array;
}

/** An event of an ordinary descriptor. */
export interface EpollEvent {
  descriptor: number;
  events: number;
}

/** Roles of a thread. */
export type Role = 'sender' | 'receiver';

const roleBits = { sender: 1, receiver: 2 } as const;
const Cap = { mpk: 1, service: 2, receive: 4 } as const;
/** Bit of an event that stands for a call (EPOLLRPALIN in rpal.h). */
const callBit = 0x20000;

function addonOrThrow(): Addon {
  const addon = loadAddon();
  if (typeof addon === 'string') {
    throw new RpalError('ERR_RPAL_ADDON', `RPAL cannot be used here: ${addon}.`);
  }
  return addon;
}

function checked(step: string, result: number): number {
  if (result < 0) throw systemError(step, result);
  return result;
}

/** Says what is possible here. Never throws. */
export function capabilities(): Capabilities {
  const nothing = {
    available: false,
    abi: 0,
    mpk: false,
    service: false,
    receive: false,
    tickLimit: 0,
  };
  const addon = loadAddon();
  if (typeof addon === 'string') return { ...nothing, reason: addon };
  const kernel = addon.probe();
  if (typeof kernel === 'number') {
    return { ...nothing, reason: systemError('Looking for RPAL', kernel).message };
  }
  return {
    available: true,
    abi: kernel.abi,
    mpk: (kernel.caps & Cap.mpk) !== 0,
    service: (kernel.caps & Cap.service) !== 0,
    receive: (kernel.caps & Cap.receive) !== 0,
    tickLimit: kernel.tickLimit,
  };
}

/**
 * Opens RPAL for this process and allows others to request it (rpal_open, rpal_enable).
 *
 * @param meta a word that those who request it are told
 */
export function registerService(meta = 0n): Service {
  const addon = addonOrThrow();
  checked('Opening RPAL', addon.open());
  checked('Registering the service', addon.enable(meta));
  const service = addon.service();
  if (service === undefined) throw systemError('Opening RPAL', -1);
  const { id, key, pkey, slotStart, slotEnd } = service;
  return { id, key, pkey, slotStart, slotEnd };
}

/** Ends what registerService() began; peers are released (rpal_disable). */
export function unregisterService(): void {
  checked('Ending the registration', addonOrThrow().disable());
}

/**
 * Asks to become the peer of the service with this key (rpal_peer_request). Both must ask; asking
 * again tells whether the other has asked meanwhile.
 */
export function requestService(key: bigint): Peer {
  const peer = addonOrThrow().peerRequest(key);
  if (typeof peer === 'number') throw systemError('Requesting the service', peer);
  return peer;
}

/** Ends being peers; calls in progress fail (rpal_peer_release). */
export function releaseService(id: number): void {
  checked('Releasing the service', addonOrThrow().peerRelease(id));
}

/** Registers this thread for these roles, in addition to those it has. Returns its thread id. */
export function attachThread(...roles: Role[]): number {
  const bits = roles.reduce((sum, role) => sum | roleBits[role], 0);
  return checked('Registering the thread', addonOrThrow().attach(bits));
}

/** Ends all roles of this thread (rpal_detach). */
export function detachThread(): void {
  checked('Ending the registration of the thread', addonOrThrow().detach());
}

function wordsOf(message: BigUint64Array | Uint8Array): BigUint64Array {
  const words = new BigUint64Array(messageWords);
  if (message.byteLength > words.byteLength) {
    throw new RpalError(
      'ERR_RPAL_PAYLOAD_TOO_LONG',
      `A message has at most ${String(words.byteLength)} bytes, and this one has ${String(message.byteLength)}. Use connect() and serve() for more.`,
    );
  }
  new Uint8Array(words.buffer).set(
    new Uint8Array(message.buffer, message.byteOffset, message.byteLength),
  );
  return words;
}

/**
 * Calls a receiver thread and waits for its answer (rpal_call). This thread must be a sender.
 *
 * @param message up to six words, or their bytes
 * @param timeout in ms, for the case that the receiver is busy or needs the kernel; −1: none
 */
export function rpalCall(
  target: Target,
  message: BigUint64Array | Uint8Array,
  timeout = -1,
): RpalAnswer {
  const words = wordsOf(message);
  const status = addonOrThrow().rpalCall(target.tid, target.pkey, words, timeout);
  return { status: checked('The call', status), words };
}

/**
 * Waits on an epoll descriptor, and for calls (rpal_epoll_wait). This thread must be a receiver.
 * The next rpalEpollWait() ends the call with the answer of rpalReply().
 *
 * Node.js gives no epoll descriptors to JavaScript: take one of createEpoll(), empty, for a worker
 * thread that only answers calls.
 *
 * @param timeout in ms; −1: none
 */
export function rpalEpollWait(
  epoll: number,
  timeout = -1,
  maxEvents = 16,
): { call: RpalCall | undefined; events: EpollEvent[] } {
  const addon = addonOrThrow();
  const flat = addon.rpalEpollWait(epoll, maxEvents, timeout);
  if (typeof flat === 'number') throw systemError('Waiting for calls', flat);
  const events: EpollEvent[] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) {
    const event = { descriptor: flat[i] ?? -1, events: flat[i + 1] ?? 0 };
    if ((event.events & callBit) === 0) events.push(event);
  }
  const words = new BigUint64Array(messageWords);
  const caller = addon.rpalTake(words);
  return { call: caller < 0 ? undefined : { caller, words }, events };
}

/** Sets the answer of the call taken last (rpal_reply). */
export function rpalReply(status: number, message: BigUint64Array | Uint8Array): void {
  checked('Answering', addonOrThrow().rpalReply(status, wordsOf(message)));
}

/** A new, empty epoll descriptor. */
export function createEpoll(): number {
  return checked('Making an epoll descriptor', addonOrThrow().epollCreate());
}

/** Counters of this thread since it was attached (rpal_counters). */
export function threadCounters(): ThreadCounters {
  const counters = addonOrThrow().counters();
  if (typeof counters === 'number') throw systemError('Reading the counters', counters);
  return counters;
}
