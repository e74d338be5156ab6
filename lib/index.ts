/** RPAL for Node.js: call into another process on this host as if it were a library. */
export { Client, type CallOptions, type CallSyncOptions } from './client.js';
export { type Codec, msgpack } from './codec.js';
export { connect, type ConnectOptions } from './connect.js';
export { type Counters } from './counters.js';
export { RpalError, type RpalErrorOptions } from './errors.js';
export { type CallContext, type Handler } from './handler.js';
export { type Transport, type TransportChoice } from './handshake.js';
export * from './low-level.js';
export { serve, type ServeOptions, Server } from './serve.js';
