/** What a connection has done so far. */
export interface Counters {
  /** Calls that were made (client) or taken (server). */
  calls: number;
  /** Of these, calls that failed or were answered with an error. */
  errors: number;
  /** RPAL calls whose handler needed the kernel, so that it went on in its own process. */
  handBacks: number;
  /** RPAL calls that had to wait because the receiver was busy. */
  waits: number;
  /** Calls and answers that travelled over the socket although the connection uses RPAL. */
  fallbacks: number;
  /** Bytes of payloads sent and received. */
  bytesSent: number;
  bytesReceived: number;
}

/** Counters at their start. */
export function newCounters(): Counters {
  return {
    calls: 0,
    errors: 0,
    handBacks: 0,
    waits: 0,
    fallbacks: 0,
    bytesSent: 0,
    bytesReceived: 0,
  };
}
