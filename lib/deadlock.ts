import { randomUUID } from 'node:crypto';
import { RpalError } from './errors.js';

/**
 * A JavaScript thread that takes part in calls. A thread that waits in callSync() cannot answer,
 * so a synchronous call to it would wait for ever: that is what is found here, for a thread that
 * calls itself and for two that call each other.
 *
 * What another thread does is known from what it sends, over several sockets that are in no order
 * with each other. So each thread numbers all its calls, and it makes them one after the other: a
 * thread that has begun a later call, or that says or shows that it is past a call, does not wait
 * for that call any more, even if its handler here still runs.
 */
export interface Endpoint {
  readonly id: string;
  /** The newest call of that thread that is known here. */
  newest: number;
  /** It is synchronous, and that thread waits for this one to answer it. */
  waiting: boolean;
}

/** The name of this thread in handshakes. */
export const ownEndpointId = randomUUID();

/** Number of this thread's last call, 32 bits; the next after the highest is 0. */
let lastCall = 0;

/** Number of the last call that this thread has begun, to whomever. */
export function lastOwnCall(): number {
  return lastCall;
}

/** Begins a call of this thread; its number. */
export function nextOwnCall(): number {
  lastCall = (lastCall + 1) >>> 0;
  return lastCall;
}

const endpoints = new Map<string, { endpoint: Endpoint; uses: number }>();

/**
 * The thread with this name. Every connection takes it once and gives it back once.
 *
 * @param call the last call that it had begun when it told its name: it waits for none of them
 */
export function takeEndpoint(id: string, call: number): Endpoint {
  const known = endpoints.get(id);
  if (known) {
    known.uses += 1;
    isPast(known.endpoint, call);
    return known.endpoint;
  }
  const endpoint = { id, newest: call, waiting: false };
  endpoints.set(id, { endpoint, uses: 1 });
  return endpoint;
}

/** A connection to or from that thread has ended. */
export function giveEndpointBack(endpoint: Endpoint): void {
  const known = endpoints.get(endpoint.id);
  if (known?.endpoint !== endpoint) return;
  known.uses -= 1;
  if (known.uses === 0) endpoints.delete(endpoint.id);
}

/** That thread has begun this call. */
export function hasCalled(endpoint: Endpoint, call: number, sync: boolean): void {
  if (((call - endpoint.newest) | 0) <= 0) return;
  endpoint.newest = call;
  endpoint.waiting = sync;
}

/** That thread does not wait for this call, nor for an earlier one. */
export function isPast(endpoint: Endpoint, call: number): void {
  if (((call - endpoint.newest) | 0) < 0) return;
  endpoint.newest = call;
  endpoint.waiting = false;
}

/** Throws `EDEADLK` if a synchronous call to that thread could never be answered. */
export function refuseDeadlock(server: Endpoint, method: string): void {
  if (!server.waiting && server.id !== ownEndpointId) return;
  throw new RpalError(
    'EDEADLK',
    server.id === ownEndpointId
      ? `callSync('${method}') goes to this very thread, which would wait for itself. Call the function directly, or use call().`
      : `callSync('${method}') goes to a thread that is itself waiting in callSync() for an answer of this one. Answer first, or use call().`,
  );
}
