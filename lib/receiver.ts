import type { RpalOffer } from './handshake.js';
import type { LinkedReceiver, ServerConnection } from './server-connection.js';

/** This thread as a receiver of RPAL calls, shared by all its servers. */
export interface Receiver {
  /** Links with a client's service; the reason why not otherwise. */
  link(connection: ServerConnection, offer: RpalOffer): LinkedReceiver | string;
  close(): void;
}

/** Makes this thread a receiver; the reason why not otherwise. */
export function openReceiver(): Receiver | string {
  return 'the native addon is not built';
}
