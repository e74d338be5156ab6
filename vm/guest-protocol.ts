/** Frames between the host and the guest's first process; vm/init.c says what they mean. */
export interface Frame {
  type: string;
  payload: Buffer;
}

/** A command for the guest. */
export interface GuestCommand {
  argv: readonly string[];
  cwd: string;
  env: Readonly<Record<string, string>>;
  /** Appears in the kernel log before and after the command. */
  marker?: string;
  /** The command gets a terminal of this size. */
  terminal?: { rows: number; columns: number };
}

const headerLength = 5;
const longestPayload = 4 << 20;

/** One frame as bytes. */
export function encodeFrame(type: string, payload: Uint8Array | string = ''): Buffer {
  const body = Buffer.from(payload as string);
  if (body.length > longestPayload) {
    throw new RangeError(`A frame of ${String(body.length)} bytes is more than the guest takes.`);
  }
  const head = Buffer.alloc(headerLength);
  head.write(type, 0, 1, 'latin1');
  head.writeUInt32LE(body.length, 1);
  return Buffer.concat([head, body]);
}

/**
 * A command as the payload of its frame. Nothing is quoted: words arrive as they are. The one
 * thing that cannot be passed to a process is a NUL.
 */
export function encodeCommand(command: GuestCommand): Buffer {
  const words = [
    `w${command.cwd}`,
    ...command.argv.map((word) => `a${word}`),
    ...Object.entries(command.env).map(([name, value]) => `e${name}=${value}`),
  ];
  if (command.marker !== undefined) words.push(`m${command.marker}`);
  if (command.terminal !== undefined) {
    words.push(`t${String(command.terminal.rows)}x${String(command.terminal.columns)}`);
  }
  for (const word of words) {
    if (word.includes('\0')) {
      throw new RangeError(`No command can have a NUL in its arguments: ${JSON.stringify(word)}`);
    }
  }
  return Buffer.from(words.map((word) => `${word}\0`).join(''));
}

/** Takes frames out of a stream of bytes that arrives in arbitrary pieces. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** Frames that are complete with these bytes. */
  push(bytes: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const frames: Frame[] = [];
    let at = 0;
    while (this.#rest.length - at >= headerLength) {
      const length = this.#rest.readUInt32LE(at + 1);
      if (this.#rest.length - at - headerLength < length) break;
      const start = at + headerLength;
      frames.push({
        type: this.#rest.toString('latin1', at, at + 1),
        payload: this.#rest.subarray(start, start + length),
      });
      at = start + length;
    }
    this.#rest = this.#rest.subarray(at);
    return frames;
  }
}
