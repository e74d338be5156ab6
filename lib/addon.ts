import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from './errors.js';

/** The kernel's description of this process. All but `abi` and `caps` is 0 if it is no service. */
export interface KernelInfo {
  abi: number;
  caps: number;
  id: number;
  pkey: number;
  key: bigint;
  slotStart: bigint;
  slotEnd: bigint;
  tickLimit: number;
}

/** A peer as librpal describes it. */
export interface PeerInfo {
  id: number;
  pkey: number;
  meta: bigint;
  linked: boolean;
}

/** Counters of a thread as librpal keeps them. */
export interface ThreadCounters {
  calls: number;
  handedBack: number;
  retries: number;
  waits: number;
  served: number;
  parks: number;
}

/** The native addon. Numbers that are results may be negative errnos. */
export interface Addon {
  readonly exchange: ArrayBuffer;
  probe(): KernelInfo | number;
  service(): KernelInfo | undefined;
  open(): number;
  enable(meta: bigint): number;
  disable(): number;
  peerRequest(key: bigint): PeerInfo | number;
  peerRelease(id: number): number;
  attach(roles: number): number;
  detach(): number;
  rpalCall(tid: number, pkey: number, words: BigUint64Array, timeout: number): number;
  rpalEpollWait(epfd: number, maxEvents: number, timeout: number): number[] | number;
  rpalTake(words: BigUint64Array): number;
  rpalReply(status: number, words: BigUint64Array): number;
  epollCreate(): number;
  counters(): ThreadCounters | number;
  readSocket(descriptor: number, timeout: number): Uint8Array | number | undefined;
  openSender(): number;
  linkServer(key: bigint, receiver: number, cookie: bigint, maxPayload: number): number;
  unlinkServer(connection: number): void;
  kernelHelp(connection: number): [number, number];
  call(payload?: Uint8Array): Uint8Array | undefined;
  openReceiver(dispatch: (payload?: Uint8Array) => void): number;
  next(answer?: Uint8Array): Uint8Array | undefined;
  reportUncaught(error: unknown): void;
  linkClient(key: bigint, maxPayload: number): bigint | number;
  clientLinked(connection: number, key: bigint): boolean;
  unlinkClient(connection: number): void;
}

type Bindings = ((options: { bindings: string; module_root: string }) => Addon) & {
  getRoot(file: string): string;
};

let loaded: Addon | string | undefined;

/** The addon, loaded at first use; the reason why there is none otherwise. */
export function loadAddon(): Addon | string {
  loaded ??= load();
  return loaded;
}

/**
 * What builds the addon: in a checkout that is done with the guest's tools, in an installed package
 * with those of this machine.
 */
export function buildCommand(): string {
  const root = packageRoot(requireBindings());
  if (existsSync(join(root, 'vm'))) return 'npm run build';
  return `npx node-gyp rebuild --release --directory ${relative('.', root)}`;
}

/** Directory of the package. */
function packageRoot(bindings: Bindings): string {
  return bindings.getRoot(fileURLToPath(import.meta.url));
}

function requireBindings(): Bindings {
  return createRequire(import.meta.url)('bindings') as Bindings;
}

function load(): Addon | string {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return `RPAL exists for Linux on x86-64 only, and this is ${process.platform} on ${process.arch}`;
  }
  try {
    const bindings = requireBindings();
    return bindings({ bindings: 'rpal', module_root: packageRoot(bindings) });
  } catch (error) {
    const [firstLine] = messageOf(error).split('\n');
    return `the native addon cannot be loaded (${firstLine ?? ''}); build it with: ${buildCommand()}`;
  }
}

/** Path of the shim that rpal run preloads; undefined if it is not built. */
export function shimPath(): string | undefined {
  const path = join(packageRoot(requireBindings()), 'build', 'Release', 'rpal_preload.so');
  return existsSync(path) ? path : undefined;
}
