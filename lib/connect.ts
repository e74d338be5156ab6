import { socketPath } from './address.js';
import { Client } from './client.js';
import { ClientChannel } from './client-channel.js';
import { bytesCodecName, type Codec } from './codec.js';
import { lastOwnCall, ownEndpointId } from './deadlock.js';
import { diagnostics } from './diagnostics.js';
import { RpalError } from './errors.js';
import { FrameType, jsonFrame, longestError } from './frames.js';
import { type ClientHello, protocolVersion, type TransportChoice } from './handshake.js';
import { SenderSide } from './sender.js';
import { defaultMaxPayload } from './serve.js';

/** Options of {@link connect}. */
export interface ConnectOptions {
  /**
   * 'auto' (default): RPAL where possible, else the Unix socket, and `client.fallbackReason` says
   * why. 'rpal': fail where RPAL is not possible. 'unix': never RPAL.
   */
  transport?: TransportChoice;
  /** Longest answer that is accepted, in bytes (default 64 MiB). */
  maxPayload?: number;
  /** Deadline in ms of calls that say none of their own (default: none). */
  timeout?: number;
}

/**
 * Connects to a service on this host.
 *
 * ```ts
 * const client = await connect('/run/app/math.sock');
 * const answer = client.callSync('reverse', Uint8Array.of(1, 2, 3));
 * ```
 *
 * @param address what the server gave to serve()
 */
export function connect(address: string, options?: ConnectOptions): Promise<Client>;
/** The same with values instead of bytes: `codec` says how they travel. */
export function connect(
  address: string,
  options: ConnectOptions & { codec: Codec },
): Promise<Client<unknown, unknown>>;
export async function connect(
  address: string,
  options: ConnectOptions & { codec?: Codec } = {},
): Promise<Client<unknown, unknown> | Client> {
  const path = socketPath(address);
  const { transport = 'auto', maxPayload = defaultMaxPayload, timeout = -1, codec } = options;

  const side = transport === 'unix' ? undefined : SenderSide.open();
  if (transport === 'rpal' && typeof side === 'string') throw unavailable(address, side);

  let client: Client | undefined;
  const channel = await ClientChannel.open(path, address, (reason) => {
    client?.ended(reason);
  });
  const hello: ClientHello = {
    version: protocolVersion,
    endpoint: ownEndpointId,
    call: lastOwnCall(),
    pid: process.pid,
    codec: codec?.name ?? bytesCodecName,
    maxPayload,
  };
  try {
    const server = await channel.greet(
      typeof side === 'object' ? { ...hello, rpal: side.offer } : hello,
    );
    const sender =
      typeof side === 'object' ? side.link(server, Math.max(maxPayload, longestError)) : side;
    if (typeof sender === 'string' && transport === 'rpal') throw unavailable(address, sender);
    channel.send(jsonFrame(FrameType.ready, { rpal: typeof sender === 'object' }));
    client = new Client({
      address,
      path,
      channel,
      hello,
      server,
      codec,
      timeout,
      sender: typeof sender === 'object' ? sender : undefined,
      fallbackReason: typeof sender === 'string' ? sender : undefined,
    });
    // The server may have gone between its hello and now.
    if (channel.ended) throw channel.ended;
    channel.settle();
  } catch (error) {
    channel.destroy(new RpalError('ERR_RPAL_CLOSED', 'The handshake failed.', { cause: error }));
    throw error;
  }
  diagnostics.clientConnected.publish({
    address,
    transport: client.transport,
    fallbackReason: client.fallbackReason,
    serverPid: client.serverPid,
  });
  return client;
}

function unavailable(address: string, reason: string): RpalError {
  return new RpalError(
    'ERR_RPAL_UNAVAILABLE',
    `'${address}' cannot be called by RPAL: ${reason}. Run rpal doctor for what is missing, or allow the socket with transport: 'auto'.`,
  );
}
