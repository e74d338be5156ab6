import { createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { finished } from 'node:stream/promises';
import { execa } from 'execa';
import { cacheDirectory } from './cache.js';
import { interruptedWith, stoppable } from './end-on-signals.js';
import { Failure } from './failure.js';

/** How to run one command of a build. */
export interface LoggedCommand {
  /** Name of the log file, without directory and ending. */
  log: string;
  /** Continue the log instead of beginning a new one. */
  append?: boolean;
  cwd?: string;
  env?: Record<string, string>;
  /** false: the command gets no variables but these. */
  extendEnv?: boolean;
  input?: string;
  /** What a person can do when it fails. */
  advice?: string;
  onLine?: (line: string) => void;
}

/**
 * Runs a command of a build at low priority with its output in a log file in the cache. When it
 * fails, the last lines and the name of the log are in the message.
 */
export async function loggedCommand(
  command: string,
  args: readonly string[],
  options: LoggedCommand,
): Promise<void> {
  const path = join(cacheDirectory, 'logs', `${options.log}.log`);
  await mkdir(dirname(path), { recursive: true });
  const log = createWriteStream(path, { flags: options.append ? 'a' : 'w' });
  log.write(`$ ${[command, ...args].join(' ')}\n`);
  const result = await stoppable(async (cancelSignal) => {
    // setpriv: should this process be killed outright, its command is told to end.
    const child = execa('setpriv', ['--pdeathsig', 'TERM', 'nice', '-n', '10', command, ...args], {
      cancelSignal,
      all: true,
      buffer: false,
      reject: false,
      extendEnv: options.extendEnv ?? true,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.input === undefined ? { stdin: 'ignore' as const } : { input: options.input }),
    });
    for await (const line of child.iterable({ from: 'all' })) {
      log.write(`${line}\n`);
      options.onLine?.(line);
    }
    return child;
  });
  log.end();
  await finished(log);
  const interrupted = interruptedWith();
  if (interrupted !== undefined) throw new Failure('Interrupted.', interrupted);
  if (result.failed) {
    const lines = (await readFile(path, 'utf8')).trimEnd().split('\n').slice(-30);
    throw new Failure(
      `${lines.map((line) => `  | ${line}`).join('\n')}\n` +
        `${command} failed: ${result.originalMessage ?? `exit status ${String(result.exitCode)}`}.\n` +
        `The whole log: ${path}${options.advice === undefined ? '' : `\n${options.advice}`}`,
    );
  }
}
