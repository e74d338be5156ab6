import { lstat, unlink } from 'node:fs/promises';
import {
  connect as netConnect,
  createServer,
  type Server as NetServer,
  type Socket,
} from 'node:net';
import { socketPath } from './address.js';
import { bytesCodecName, type Codec } from './codec.js';
import { type Counters, newCounters } from './counters.js';
import { codeOf, messageOf, RpalError } from './errors.js';
import { type BytesHandler, type Handler, withCodec } from './handler.js';
import type { Transport, TransportChoice } from './handshake.js';
import { Receiver } from './receiver.js';
import { ServerConnection, type Service } from './server-connection.js';

/** Largest payload if nothing else is said, in bytes. */
export const defaultMaxPayload = 64 * 1024 * 1024;

/** Options of {@link serve}. */
export interface ServeOptions {
  /**
   * 'auto' (default): RPAL where possible, else the Unix socket. 'rpal': fail where RPAL is not
   * possible. 'unix': never RPAL.
   */
  transport?: TransportChoice;
  /** Longest payload of a call that is accepted, in bytes (default 64 MiB). */
  maxPayload?: number;
}

/** A service that answers calls. Made by {@link serve}. */
export class Server implements AsyncDisposable {
  readonly #connections = new Set<ServerConnection>();
  readonly #past: Counters = newCounters();
  #closed: Promise<void> | undefined;

  /** @internal */
  constructor(
    /** Where it listens. */
    readonly address: string,
    private readonly net: NetServer,
    /** How clients are served that ask for the best transport. */
    readonly transport: Transport,
    /** Why that is not RPAL; undefined if it is, or if 'unix' was asked for. */
    readonly fallbackReason: string | undefined,
  ) {}

  /** Number of connected clients. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Sum over all clients, connected and gone. */
  get counters(): Counters {
    const sum = { ...this.#past };
    for (const connection of this.#connections) add(sum, connection.counters);
    return sum;
  }

  /** Lets the process end although the server listens. */
  unref(): this {
    this.net.unref();
    return this;
  }

  /** Stops listening, sends the answers that are due, and closes all connections. */
  close(): Promise<void> {
    this.#closed ??= new Promise((done) => {
      this.net.close(() => {
        done();
      });
      for (const connection of this.#connections) connection.close();
    });
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  accept(service: Service, socket: Socket): void {
    const connection = new ServerConnection(service, socket, (gone) => {
      add(this.#past, gone.counters);
      this.#connections.delete(gone);
    });
    this.#connections.add(connection);
  }
}

function add(sum: Counters, counters: Counters): void {
  for (const name of Object.keys(sum) as (keyof Counters)[]) sum[name] += counters[name];
}

/**
 * Answers calls of other processes on this host.
 *
 * ```ts
 * const server = await serve('/run/app/math.sock', {
 *   reverse: (payload) => payload.reverse(),
 * });
 * ```
 *
 * The handlers run on this thread as ordinary callbacks of its event loop. They may be
 * asynchronous. What they throw arrives at the caller as an {@link RpalError}.
 *
 * @param address path of the Unix socket by which clients find the service; whoever may connect to
 * it may call (the file gets the permissions that the process's umask leaves)
 * @param handlers the methods by name
 */
export function serve(
  address: string,
  handlers: Readonly<Record<string, Handler>>,
  options?: ServeOptions,
): Promise<Server>;
/** The same with values instead of bytes: `codec` says how they travel. */
export function serve(
  address: string,
  handlers: Readonly<Record<string, Handler<never, unknown>>>,
  options: ServeOptions & { codec: Codec },
): Promise<Server>;
export async function serve(
  address: string,
  handlers: Readonly<Record<string, Handler | Handler<never, unknown>>>,
  options: ServeOptions & { codec?: Codec } = {},
): Promise<Server> {
  const path = socketPath(address);
  const { codec, transport = 'auto', maxPayload = defaultMaxPayload } = options;
  const names = Object.keys(handlers);
  if (names.length > 0xffff) {
    throw new RpalError(
      'ERR_RPAL_METHODS',
      `A service has at most 65,535 methods, and this one has ${String(names.length)}. Use fewer, and put the rest into the payload.`,
    );
  }

  const receiver = transport === 'unix' ? undefined : Receiver.open();
  if (transport === 'rpal' && typeof receiver === 'string') {
    throw new RpalError('ERR_RPAL_UNAVAILABLE', `RPAL cannot be used here: ${receiver}`);
  }
  const service: Service = {
    address,
    codec: codec?.name ?? bytesCodecName,
    maxPayload,
    names,
    handlers: Object.values(handlers).map((handler) =>
      codec ? withCodec(handler as Handler<never, unknown>, codec) : (handler as BytesHandler),
    ),
    link(connection, offer) {
      if (receiver === undefined) return "the server was started with transport: 'unix'";
      return typeof receiver === 'string' ? receiver : receiver.link(connection, offer, maxPayload);
    },
  };

  const net = createServer();
  await listen(net, path);
  const server = new Server(
    address,
    net,
    typeof receiver === 'object' ? 'rpal' : 'unix',
    typeof receiver === 'string' ? receiver : undefined,
  );
  net.on('connection', (socket) => {
    server.accept(service, socket);
  });
  return server;
}

async function listen(net: NetServer, path: string): Promise<void> {
  try {
    await listenOnce(net, path);
  } catch (error) {
    if (codeOf(error) !== 'EADDRINUSE' || !(await isAbandoned(path)))
      throw listenError(path, error);
    await unlink(path);
    try {
      await listenOnce(net, path);
    } catch (again) {
      throw listenError(path, again);
    }
  }
}

function listenOnce(net: NetServer, path: string): Promise<void> {
  return new Promise((done, fail) => {
    net.once('error', fail);
    net.listen(path, () => {
      net.off('error', fail);
      done();
    });
  });
}

/** The socket's file is there and nobody listens: its server was killed. */
async function isAbandoned(path: string): Promise<boolean> {
  if (path.startsWith('\0') || !(await lstat(path)).isSocket()) return false;
  return new Promise((done) => {
    const probe = netConnect(path);
    probe.once('connect', () => {
      probe.destroy();
      done(false);
    });
    probe.once('error', (error) => {
      done(codeOf(error) === 'ECONNREFUSED');
    });
  });
}

const listenRemedies: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another process serves there, or the file is no socket; choose another address',
  EACCES: 'this user may not create it; choose a directory that it may write to',
  ENOENT: 'its directory does not exist; create it first',
};

function listenError(path: string, error: unknown): RpalError {
  const code = codeOf(error) ?? 'ERR_RPAL_LISTEN';
  return new RpalError(
    code,
    `Cannot listen on '${path.replace('\0', '@')}' (${code}): ${listenRemedies[code] ?? messageOf(error)}.`,
    { cause: error },
  );
}
