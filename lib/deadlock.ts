import { randomUUID } from 'node:crypto';
import { RpalError } from './errors.js';

/**
 * A JavaScript thread that takes part in calls. A thread that waits in callSync() cannot answer,
 * so a synchronous call to it would wait for ever: that is what is found here, for a thread that
 * calls itself and for two that call each other.
 */
export interface Endpoint {
  readonly id: string;
  /** Calls from that thread which this thread has not answered and that thread waits for. */
  waiting: number;
}

/** The name of this thread in handshakes. */
export const ownEndpointId = randomUUID();

const endpoints = new Map<string, { endpoint: Endpoint; uses: number }>();

/** The thread with this name. Every connection takes it once and gives it back once. */
export function takeEndpoint(id: string): Endpoint {
  const known = endpoints.get(id);
  if (known) {
    known.uses += 1;
    return known.endpoint;
  }
  const endpoint = { id, waiting: 0 };
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

/** Throws `EDEADLK` if a synchronous call to that thread could never be answered. */
export function refuseDeadlock(server: Endpoint, method: string): void {
  if (server.waiting === 0 && server.id !== ownEndpointId) return;
  throw new RpalError(
    'EDEADLK',
    server.id === ownEndpointId
      ? `callSync('${method}') goes to this very thread, which would wait for itself. Call the function directly, or use call().`
      : `callSync('${method}') goes to a thread that is itself waiting in callSync() for an answer of this one. Answer first, or use call().`,
  );
}
