import { getSystemErrorMap } from 'node:util';

/** What an {@link RpalError} is made of, beside its message. */
export interface RpalErrorOptions extends ErrorOptions {
  /** Stack of the error where it was thrown, if that was in the other process. */
  remoteStack?: string | undefined;
}

/**
 * The one error class of this package. Its message says what happened, why, and what to do;
 * `code` is for programs.
 *
 * Codes are those of the system where one fits (`EDEADLK`, `EOWNERDEAD`, `ETIMEDOUT`,
 * `ECONNREFUSED`, …), the code of the handler's own error for errors that a handler threw, and
 * otherwise one of the `ERR_RPAL_…` names in docs/errors.md.
 */
export class RpalError extends Error {
  override readonly name = 'RpalError';

  /** Stack of the error in the process that threw it; undefined for local errors. */
  readonly remoteStack: string | undefined;

  constructor(
    /** For programs; see the class comment. */
    readonly code: string,
    message: string,
    options: RpalErrorOptions = {},
  ) {
    super(message, options);
    this.remoteStack = options.remoteStack;
  }
}

/** Names that libuv, and so Node.js, does not have. */
const systemOnly: ReadonlyMap<number, string> = new Map([
  [8, 'ENOEXEC'],
  [35, 'EDEADLK'],
  [74, 'EBADMSG'],
  [87, 'EUSERS'],
  [115, 'EINPROGRESS'],
  [125, 'ECANCELED'],
  [130, 'EOWNERDEAD'],
]);

/** The system's name of an errno, given as the negative number that librpal returns. */
export function errnoName(negativeErrno: number): string {
  return (
    getSystemErrorMap().get(negativeErrno)?.[0] ??
    systemOnly.get(-negativeErrno) ??
    `ERRNO_${String(-negativeErrno)}`
  );
}

/** What to do about the errors of librpal that a user of this package can meet. */
const remedies: Readonly<Record<string, string>> = {
  ENOENT: 'this kernel has no /dev/rpal: boot a kernel with the RPAL patches (see rpal doctor)',
  EACCES:
    'this user may not use /dev/rpal or may not attach to the other process; both sides need the same user (see rpal doctor)',
  EPROTO: 'kernel and library speak different versions of RPAL; install matching ones',
  EPERM:
    'this process is no RPAL service; start it with: rpal run -- node … (if it is one: it may not attach to the other process as a debugger could; both need the same user)',
  ENODEV: 'the machine lacks what RPAL needs (see rpal doctor)',
  EOPNOTSUPP:
    'this program is linked to a fixed address (ET_EXEC) and can call but not serve; use a PIE build of Node.js, for example that of Debian',
  EBUSY:
    'the thread has a restartable-sequences area that cannot be given up; start the process with rpal run',
  EUSERS: 'this process has no room for another RPAL thread (256 at most)',
  EADDRINUSE:
    'both processes were given the same protection key; fewer services at a time get different ones',
  ECANCELED: 'the other process was ending and could not answer; connect again',
  ECONNREFUSED: 'the other process does not take requests; it must call registerService()',
  EXDEV: 'the other process has another time namespace; run both in one',
  EOWNERDEAD: 'the other process died or closed the connection during the call; connect again',
  ETIMEDOUT: 'the answer did not come in time; the handler may still be running',
  EDEADLK: 'the called thread waits for this one; answer that call first or use call()',
  EBADMSG: 'the server does not know this connection any more; connect again',
  ESRCH: 'the called thread has ended; connect again',
  ENOSYS: 'this build has no RPAL for this architecture (x86-64 only)',
};

/** An error for a failed step of librpal. */
export function systemError(
  step: string,
  negativeErrno: number,
  options?: RpalErrorOptions,
): RpalError {
  const code = errnoName(negativeErrno);
  const why = remedies[code] ?? getSystemErrorMap().get(negativeErrno)?.[1] ?? 'unknown error';
  return new RpalError(code, `${step} failed (${code}): ${why}.`, options);
}

/** The `code` of anything that was thrown, if it has one. */
export function codeOf(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}

/** The message of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** What was thrown, as an error: people throw other things, too. */
export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}
