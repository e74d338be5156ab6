import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { threadsOf } from './threads.js';

const repository = fileURLToPath(new URL('../..', import.meta.url));
const rpal = join(repository, 'bin', 'rpal');
/**
 * Longest time in ms in which a program prints nothing. The machine may be many times slower than
 * it should be, so this says nothing about speed: who needs longer hangs.
 */
const longestSilence = 200_000;
let addresses = 0;

/** 'service': by rpal run; 'profiled': that, with a profiler; 'plain': as any other program. */
export type Start = 'service' | 'profiled' | 'plain';

const asService = [rpal, 'run', '--', 'node'] as const;
const starts: Record<Start, readonly [string, ...string[]]> = {
  service: asService,
  profiled: [
    ...asService,
    '--prof',
    '--no-logfile-per-isolate',
    `--logfile=${join(tmpdir(), 'rpal-profile.log')}`,
  ],
  plain: ['node'],
};

/** A path for a socket that no other test uses. */
export function freshAddress(): string {
  addresses += 1;
  return join(tmpdir(), `rpal-${String(process.pid)}-${String(addresses)}.sock`);
}

/** A program of test/guest/programs that runs, and what it prints. */
export class Program implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #exit: Promise<unknown>;

  constructor(how: Start, name: string, ...parameters: string[]) {
    const script = join(repository, 'test', 'guest', 'programs', name);
    const [program, ...start] = starts[how];
    this.#child = spawn(program, [...start, script, ...parameters], {
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: repository,
    });
    if (!this.#child.stdout) throw new Error('there is no pipe');
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#exit = once(this.#child, 'exit');
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** The next line that it prints. */
  async line(): Promise<string> {
    const next = await this.#nextLine();
    if (next.done === true) {
      await this.#exit;
      throw new Error(
        `The program ended without another line (${String(this.#child.exitCode ?? this.#child.signalCode)}).`,
      );
    }
    return next.value;
  }

  async #nextLine(): Promise<IteratorResult<string>> {
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<never>((_, fail) => {
      timer = setTimeout(() => {
        const seconds = String(longestSilence / 1000);
        fail(new Error(`The program was silent for ${seconds} s:\n${threadsOf(this.pid)}`));
      }, longestSilence);
    });
    try {
      return await Promise.race([this.#lines.next(), silent]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** The next line as JSON. */
  async json<T>(): Promise<T> {
    return JSON.parse(await this.line()) as T;
  }

  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Its exit status, or the name of the signal that ended it. */
  async end(): Promise<number | string | null> {
    await this.#exit;
    return this.#child.exitCode ?? this.#child.signalCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }
}

/** What programs/caller.js prints. */
export interface Seen<T> {
  transport: string;
  fallbackReason?: string;
  result: T;
}

/** Starts programs/service.js and waits until it serves. */
export async function startService(
  address: string,
  how: 'service' | 'plain' = 'service',
): Promise<{ service: Program; ready: string }> {
  const service = new Program(how, 'service.js', address);
  return { service, ready: await service.line() };
}

/** A process of programs/caller.js, which runs one scenario after the other. */
export class Caller extends Program {
  constructor(address: string, how: 'service' | 'plain' = 'service') {
    super(how, 'caller.js', address);
  }

  /** Runs a scenario, with another service if one is named, and returns what it saw. */
  async call<T>(scenario: string, address?: string): Promise<Seen<T>> {
    this.say(address === undefined ? scenario : `${scenario} ${address}`);
    return this.json<Seen<T>>();
  }
}
