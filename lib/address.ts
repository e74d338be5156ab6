import { isAbsolute, resolve } from 'node:path';
import { RpalError } from './errors.js';

/** Room for the path in a Unix socket address (sockaddr_un), without its final zero byte. */
const longestPath = 107;

/**
 * The path of the Unix socket that an address names.
 *
 * An address is a path, `unix:` and a path, or `@` and a name for a socket without a file
 * (Linux's abstract sockets: any process of the network namespace may connect to those).
 */
export function socketPath(address: string): string {
  const text = address.startsWith('unix:') ? address.slice('unix:'.length) : address;
  if (text === '' || text === '@' || text.slice(1).includes('\0')) {
    throw new RpalError(
      'ERR_RPAL_ADDRESS',
      `'${address}' is no address. Give the path of a Unix socket, for example /run/app/sidecar.sock, or @name for one without a file.`,
    );
  }
  const path =
    text.startsWith('@') || text.startsWith('\0')
      ? `\0${text.slice(1)}`
      : isAbsolute(text)
        ? text
        : resolve(text);
  if (Buffer.byteLength(path) > longestPath) {
    throw new RpalError(
      'ERR_RPAL_ADDRESS',
      `The path '${path}' is too long for a Unix socket (${String(Buffer.byteLength(path))} bytes, at most ${String(longestPath)}). Choose a shorter one.`,
    );
  }
  return path;
}
