import { accessSync, constants } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { buildCommand, loadAddon, shimPath } from './addon.js';
import { programKind } from './elf.js';
import { errnoName, RpalError, systemError } from './errors.js';

/** How {@link runService} starts the program. */
export interface RunOptions {
  /** The program will only call, never serve: then it may be one with a fixed address. */
  callOnly?: boolean;
  environment?: Readonly<NodeJS.ProcessEnv>;
}

/** One sentence for people whose Node.js cannot serve. */
export const fixedAddressSentence =
  'it is linked to a fixed address (ET_EXEC, as the official Node.js binaries are), so its data lies outside of the memory that RPAL shares, and it can call but not serve; use a position-independent build, for example the nodejs package of Debian';

/**
 * Replaces this process by a program that is an RPAL service: the kernel puts it into a slot of its
 * own, and its event loop can be called. Returns only by throwing.
 */
export function runService(command: readonly string[], options: RunOptions = {}): never {
  const environment = { ...(options.environment ?? process.env) };
  const [name] = command;
  if (name === undefined) {
    throw new RpalError('ERR_RPAL_RUN', 'There is no program to run. Try: rpal run -- node app.js');
  }
  const path = findProgram(name, environment.PATH ?? '');
  checkProgram(path, options.callOnly === true);
  const addon = loadAddon();
  if (typeof addon === 'string') {
    throw new RpalError('ERR_RPAL_ADDON', `Cannot run '${name}' as a service: ${addon}.`);
  }
  const shim = shimPath();
  if (shim === undefined) {
    throw new RpalError(
      'ERR_RPAL_ADDON',
      `Cannot run '${name}' as a service: the epoll shim is not built. Build it with: ${buildCommand()}`,
    );
  }
  const preload = environment.LD_PRELOAD;
  environment.RPAL_PRELOAD = shim;
  environment.LD_PRELOAD = preload === undefined || preload === '' ? shim : `${shim}:${preload}`;
  // With io_uring libuv would wait in a place that cannot be called.
  environment.UV_USE_IO_URING = '0';
  const error = addon.execService(
    path,
    [...command],
    Object.entries(environment).map(([key, value]) => `${key}=${value ?? ''}`),
  );
  throw systemError(`Running '${name}' as a service`, error);
}

function findProgram(name: string, searchPath: string): string {
  const candidates = name.includes('/')
    ? [resolve(name)]
    : searchPath.split(delimiter).map((directory) => join(directory || '.', name));
  for (const candidate of candidates) {
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // The next one, then.
    }
  }
  throw new RpalError(
    errnoName(-2),
    `There is no program '${name}' ${name.includes('/') ? 'there' : 'in PATH'} that this user may run.`,
  );
}

function checkProgram(path: string, callOnly: boolean): void {
  const kind = programKind(path);
  if (kind === 'pie' || (kind === 'fixed' && callOnly)) return;
  const reasons = {
    fixed: `${fixedAddressSentence}. To run it as a caller only: rpal run --call-only -- …`,
    foreign: 'it is no program for x86-64',
    other: 'it is no ELF program; if it is a script, name its interpreter: rpal run -- node app.js',
  };
  throw new RpalError('ERR_RPAL_RUN', `'${path}' cannot be run as a service: ${reasons[kind]}.`);
}
