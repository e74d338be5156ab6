import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { execa } from 'execa';
import { chooseAccelerator, type Accelerator } from './accelerator.js';
import { Failure } from './failure.js';
import {
  encodeCommand,
  encodeFrame,
  FrameReader,
  type Frame,
  type GuestCommand,
} from './guest-protocol.js';
import { GrowingFile } from './growing-file.js';
import { ensureHostPackages, guestNeeds } from './host-packages.js';
import { initramfs } from './initramfs.js';
import { kernelNamed } from './kernel-build.js';
import { faultReports, hasPanicked } from './kernel-log.js';
import { qemuArguments, type Machine } from './machine.js';
import { repository } from './repository.js';
import { rootFileSystem } from './rootfs.js';

/** What kind of guest to boot. */
export interface GuestOptions {
  /** normal, debug, stock, or the path of a bzImage. */
  kernel: string;
  cpus: number;
  memory: string;
  icount: boolean;
  /** Page tables with 5 levels. */
  la57: boolean;
  gdb: boolean;
  append: string;
  /** Its root file system; undefined: the one that all tests have. */
  root?: string;
  /** The directory of the host that it sees at the same path; undefined: the repository. */
  shared?: string;
}

/** A guest as the tests want it, if they do not say otherwise. */
export const defaultGuest: GuestOptions = {
  kernel: 'normal',
  cpus: 2,
  memory: '2G',
  icount: false,
  la57: false,
  gdb: false,
  append: '',
};

/** How a command in the guest ended. */
export type Outcome =
  /** It ran to its end; the status is its own. */
  | { kind: 'exited'; status: number }
  /** It could not be started. */
  | { kind: 'not-started'; why: string }
  /** It, or the guest, did not end in time. */
  | { kind: 'timed-out'; seconds: number }
  /** The guest went away under it. */
  | { kind: 'guest-died' };

/** The result of one command. */
export interface GuestResult {
  outcome: Outcome;
  /** What the kernel printed from the beginning of the command to its end. */
  kernelLog: string;
  /** Lines of it in which the kernel reports a fault in itself: the command counts as failed. */
  reports: string[];
}

/** Where the bytes of a command go to and come from. */
export interface GuestStreams {
  onStdout: (bytes: Buffer) => void;
  onStderr: (bytes: Buffer) => void;
  /** Called once with functions that send input. */
  onStarted?: (input: GuestInput) => void;
}

/** Sends input to the running command. */
export interface GuestInput {
  write(bytes: Buffer): void;
  end(): void;
  resize(rows: number, columns: number): void;
}

/** A guest without KVM needs about three seconds to boot; a debug kernel on a busy host a minute. */
const bootSeconds = 240;

/** A kernel prints its first line within a second, or never. */
const silenceSeconds = 10;

/** setpriv: should this process be killed outright, the kernel ends QEMU. */
function startQemu(machine: Machine) {
  return execa(
    'setpriv',
    ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...qemuArguments(machine)],
    { reject: false, buffer: false, stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' },
  );
}

/** A running guest: boots once, runs any number of commands one after the other. */
export class Guest {
  readonly #qemu: ReturnType<typeof startQemu>;
  readonly #ended: Promise<void>;
  readonly #logFile: GrowingFile;
  readonly #directory: string;
  readonly #frames = new FrameReader();
  readonly #onProcessExit: () => void;
  #server: Server | undefined;
  #control: Socket | undefined;
  #log = '';
  #errors = '';
  #gone = false;
  #onFrame: (frame: Frame) => void = () => undefined;
  #onChange: () => void = () => undefined;
  #commands = 0;

  private constructor(machine: Machine, directory: string, server: Server) {
    this.#directory = directory;
    this.#server = server;
    server.on('connection', (socket) => {
      this.#control = socket;
      socket.on('data', (bytes) => {
        for (const frame of this.#frames.push(bytes)) this.#onFrame(frame);
      });
      // QEMU's end is what counts, and it is awaited.
      socket.on('error', () => undefined);
    });
    this.#qemu = startQemu(machine);
    this.#logFile = new GrowingFile(machine.log, (text) => {
      this.#log += text.replaceAll('\r', '');
      this.#onChange();
    });
    this.#qemu.stderr.setEncoding('utf8').on('data', (text: string) => (this.#errors += text));
    this.#onProcessExit = () => {
      this.#qemu.kill('SIGKILL');
      rmSync(directory, { recursive: true, force: true });
    };
    process.on('exit', this.#onProcessExit);
    this.#ended = this.#qemu.then(() => {
      this.#logFile.close();
      this.#gone = true;
      this.#onChange();
    });
  }

  /** Prepares everything a guest of this kind needs and boots it. */
  static async boot(options: GuestOptions): Promise<Guest> {
    await ensureHostPackages(guestNeeds);
    const bzImage = await kernelNamed(options.kernel);
    const root = options.root ?? (await rootFileSystem());
    const parts = {
      ...options,
      bzImage,
      initramfs: await initramfs(),
      rootFileSystem: join(root, 'root'),
      repository: options.shared ?? repository,
    };
    const accelerator = options.icount ? 'tcg' : await chooseAccelerator();
    if (options.gdb) {
      process.stderr.write(
        `The guest waits for a debugger:\n` +
          `  gdb ${join(dirname(bzImage), 'vmlinux')} -ex 'target remote :1234'\n`,
      );
    }
    const guest = await Guest.#start(parts, accelerator);
    try {
      await guest.#ready(accelerator === 'kvm' ? silenceSeconds : bootSeconds, options.gdb);
      return guest;
    } catch (error) {
      await guest.close();
      if (accelerator !== 'kvm' || guest.kernelLog !== '') throw error;
      process.stderr.write('KVM does not work on this machine; using QEMU without it.\n');
      const second = await Guest.#start(parts, 'tcg');
      try {
        await second.#ready(bootSeconds, options.gdb);
        return second;
      } catch (cause) {
        await second.close();
        throw cause;
      }
    }
  }

  static async #start(
    parts: Omit<Machine, 'accelerator' | 'controlSocket' | 'log'>,
    accelerator: Accelerator,
  ): Promise<Guest> {
    const directory = await mkdtemp(join(tmpdir(), 'rpal-vm-'));
    const controlSocket = join(directory, 'control');
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(controlSocket, resolve);
    });
    const log = join(directory, 'kernel.log');
    await writeFile(log, '');
    return new Guest({ ...parts, accelerator, controlSocket, log }, directory, server);
  }

  /** All that the kernel has printed. */
  get kernelLog(): string {
    return this.#log;
  }

  /** Whether the guest still runs. */
  get alive(): boolean {
    return !this.#gone;
  }

  async #ready(firstSignSeconds: number, gdb: boolean): Promise<void> {
    const hello = new Promise<boolean>((resolve) => {
      this.#onFrame = (frame) => {
        if (frame.type === 'H') resolve(true);
      };
    });
    const started = Date.now();
    for (;;) {
      const booted = await Promise.race([hello, this.#change(1000).then(() => false)]);
      if (booted) break;
      const seconds = (Date.now() - started) / 1000;
      const late =
        !gdb && (seconds > bootSeconds || (this.#log === '' && seconds > firstSignSeconds));
      if (this.#gone || late) {
        const why = this.#gone
          ? 'The guest ended before it was ready.'
          : `The guest was not ready after ${seconds.toFixed(0)} s.`;
        throw new Failure(
          `${this.#log}${this.#errors}${why} The kernel log is above.`,
          exitStatus.guestDied,
        );
      }
    }
    this.#server?.close();
    this.#server = undefined;
  }

  /** Resolves at the next output of the kernel, the end of QEMU, or after this time. */
  #change(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#onChange = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /**
   * Runs one command and everything it starts to the end. Whether it may be called a success is
   * for `failureOf` to say. After a timeout the guest is killed: what hangs in it cannot be known.
   */
  async run(
    command: Omit<GuestCommand, 'marker'>,
    streams: GuestStreams,
    timeoutSeconds?: number,
  ): Promise<GuestResult> {
    const marker = `#${String(++this.#commands)} ${command.argv.join(' ')}`
      .replaceAll(/[^ -~]/g, '?')
      .slice(0, 200);
    const logStart = this.#log.length;
    const ended = new Promise<Outcome>((resolve) => {
      this.#onFrame = ({ type, payload }) => {
        if (type === 'O') streams.onStdout(payload);
        else if (type === 'E') streams.onStderr(payload);
        else if (type === 'X') {
          resolve({ kind: 'exited', status: Number(payload.toString()) });
        } else if (type === 'F') resolve({ kind: 'not-started', why: payload.toString() });
      };
      void this.#ended.then(() => {
        // Frames that are still in the socket come first.
        setImmediate(() => {
          resolve({ kind: 'guest-died' });
        });
      });
    });
    let timer: NodeJS.Timeout | undefined;
    const timedOut = new Promise<Outcome>((resolve) => {
      if (timeoutSeconds === undefined) return;
      timer = setTimeout(() => {
        resolve({ kind: 'timed-out', seconds: timeoutSeconds });
      }, timeoutSeconds * 1000);
    });

    this.#send('R', encodeCommand({ ...command, marker }));
    streams.onStarted?.({
      write: (bytes) => {
        this.#send('I', bytes);
      },
      end: () => {
        this.#send('I');
      },
      resize: (rows, columns) => {
        this.#send('W', `${String(rows)}x${String(columns)}`);
      },
    });
    let outcome = await Promise.race([ended, timedOut]);
    clearTimeout(timer);
    this.#onFrame = () => undefined;
    if (outcome.kind === 'timed-out') {
      // What every CPU and every blocked task is doing belongs into the log.
      this.#send('D');
      await this.#logged('rpal-vm: dumped', 5);
      await this.close();
    } else if (
      outcome.kind !== 'guest-died' &&
      !(await this.#logged(`rpal-vm: end ${marker}`, 30))
    ) {
      outcome = { kind: 'guest-died' };
    }
    const kernelLog = this.#log.slice(logStart);
    return { outcome, kernelLog, reports: faultReports(kernelLog) };
  }

  #send(type: string, payload?: Uint8Array | string): void {
    if (!this.#gone) this.#control?.write(encodeFrame(type, payload));
  }

  /**
   * Waits until the kernel has printed this line. It was written before the guest said that the
   * command has ended, but the serial port is another channel.
   */
  async #logged(line: string, seconds: number): Promise<boolean> {
    const until = Date.now() + seconds * 1000;
    while (!this.#log.includes(line)) {
      if (this.#gone || Date.now() > until) return false;
      await this.#change(1000);
    }
    return true;
  }

  /** Ends the guest. Nothing of it is left afterwards. */
  async close(): Promise<void> {
    this.#qemu.kill('SIGKILL');
    await this.#ended;
    this.#control?.destroy();
    this.#server?.close();
    process.off('exit', this.#onProcessExit);
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Exit statuses of `npm run vm` that are not the command's. */
export const exitStatus = {
  kernelReport: 70,
  guestDied: 71,
  timedOut: 72,
  notStarted: 127,
} as const;

/**
 * Why the result is a failure although the command may have ended with 0, and with which status,
 * or undefined if only the command's own status counts.
 */
export function failureOf(result: GuestResult): { status: number; message: string } | undefined {
  const { outcome, kernelLog, reports } = result;
  switch (outcome.kind) {
    case 'guest-died':
      return {
        status: exitStatus.guestDied,
        message: hasPanicked(kernelLog)
          ? 'The guest kernel panicked.'
          : 'The guest ended before the command did.',
      };
    case 'timed-out':
      return {
        status: exitStatus.timedOut,
        message: `The command did not end within ${String(outcome.seconds)} s.`,
      };
    case 'not-started':
      return { status: exitStatus.notStarted, message: outcome.why };
    case 'exited':
      if (reports.length === 0) return undefined;
      return {
        status: exitStatus.kernelReport,
        message: `The kernel reported a fault in itself: ${reports[0] ?? ''}`,
      };
  }
}
