import { channel } from 'node:diagnostics_channel';

/**
 * Channels of node:diagnostics_channel on which this package reports what it does. Nothing is
 * published per call: for that there are the counters of a connection.
 */
export const diagnostics = {
  /** `{ address, transport, fallbackReason, serverPid }`: a client has connected. */
  clientConnected: channel('rpal:client:connected'),
  /** `{ address, reason }`: a client's connection has ended. */
  clientClosed: channel('rpal:client:closed'),
  /** `{ address, transport, clientPid }`: a server has accepted a client. */
  serverConnected: channel('rpal:server:connected'),
  /** `{ address, reason }`: a server's connection has ended. */
  serverClosed: channel('rpal:server:closed'),
} as const;
