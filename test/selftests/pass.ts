import { Failure } from '../../vm/failure.js';
import { defaultGuest, Guest, type GuestResult } from '../../vm/guest.js';
import { guestEnvironment } from '../../vm/guest-environment.js';
import type { KernelSelftests } from '../../vm/kernel-selftests.js';
import { nameOf, type SelftestProgram } from './collections.js';
import { count } from './differences.js';
import { describeEnd, readCases, verdictOfEnd, type End, type ProgramResult } from './results.js';

/** One run of a program, and what one wants to see of it later. */
export interface Run extends ProgramResult {
  program: SelftestProgram;
  milliseconds: number;
  output: string;
  /** What the kernel said, if it died or reported a fault in itself. */
  kernelLog: string;
}

/** All programs on one kernel, once. */
export interface Pass {
  kernel: string;
  /** What the kernel says it is. */
  version: string;
  milliseconds: number;
  runs: Run[];
}

/** Where the guest has them: in memory, where each may write beside itself. */
const inGuest = '/tmp/selftests';

/** So often a guest is booted until its clock is right. */
const bootAttempts = 5;

/** Copies "$@" to $0. */
const copy = 'mkdir "$0" && cp --archive --parents "$@" "$0" && uname -srv';

/** protection_keys goes on in a child; it is done when nobody holds its output any more. */
const untilAllAreGone = 'stdbuf --output=L "$@" 2>&1 | cat';

/** What a guest may need besides, before a program that hangs is taken for a guest that does. */
const patienceSeconds = 60;

/** Higher statuses than that of a program that it ended are a program's own, such as exit(-1). */
const lastSignal = 64;

/** Runs a shell script in a guest, with these arguments from $0 on; it must succeed. */
async function shell(
  guest: Guest,
  cwd: string,
  words: readonly string[],
  onStdout: (bytes: Buffer) => void,
): Promise<void> {
  const result = await guest.run(
    { argv: ['sh', '-c', ...words], cwd, env: guestEnvironment({}) },
    { onStdout, onStderr: (bytes) => process.stderr.write(bytes) },
    300,
  );
  if (result.outcome.kind === 'exited' && result.outcome.status === 0) return;
  throw new Failure(`${result.kernelLog}This failed in the guest: sh -c ${words.join(' ')}`);
}

/**
 * How long a second of the guest is. An emulated machine measures its clock while it boots, and on a
 * busy host it measures wrong: then whatever waits in the guest gives up too soon or too late.
 */
async function secondOf(guest: Guest): Promise<number> {
  const seconds = 3;
  const printed: number[] = [];
  await shell(guest, '/', [`echo; sleep ${seconds}; echo`], () => printed.push(Date.now()));
  const [first = 0, last = 0] = [printed[0], printed.at(-1)];
  return (last - first) / 1000 / seconds;
}

/** Boots a guest with collections in its memory; returns what its kernel says it is as well. */
async function boot(
  kernel: string,
  cpus: number,
  { directory, root }: KernelSelftests,
  collections: readonly string[],
): Promise<{ guest: Guest; version: string }> {
  const options = { kernel, cpus, memory: '4G', root, shared: directory };
  for (let attempt = 1; ; attempt++) {
    const guest = await Guest.boot({ ...defaultGuest, ...options });
    try {
      const second = await secondOf(guest);
      if (second > 0.8 && second < 2) {
        const output: Buffer[] = [];
        await shell(guest, directory, [copy, inGuest, ...collections], (bytes) => {
          output.push(bytes);
        });
        return { guest, version: Buffer.concat(output).toString().trim() };
      }
      const wrong = `A second of the guest takes ${second.toFixed(2)} s: this machine is too busy.`;
      if (attempt === bootAttempts) throw new Failure(wrong);
      process.stderr.write(`${wrong} Booting it again.\n`);
      await guest.close();
    } catch (error) {
      await guest.close();
      throw error;
    }
  }
}

/** `timeout` exits with 124; 137 is a KILL, of its own if the program had its time. */
function endOf(program: SelftestProgram, { outcome }: GuestResult, milliseconds: number): End {
  if (outcome.kind !== 'exited') return outcome;
  const { status } = outcome;
  if (status === 124 || (status === 128 + 9 && milliseconds >= program.seconds * 1000)) {
    return { kind: 'timed-out', seconds: program.seconds };
  }
  return status > 128 && status <= 128 + lastSignal
    ? { kind: 'signal', signal: status - 128 }
    : { kind: 'exited', status };
}

async function runProgram(guest: Guest, program: SelftestProgram): Promise<Run> {
  const output: Buffer[] = [];
  const collect = (bytes: Buffer): void => {
    output.push(bytes);
  };
  const started = Date.now();
  const script = [
    program.before,
    `exec timeout --kill-after=5 ${program.seconds} bash -o pipefail -c '${untilAllAreGone}' bash "$@"`,
  ].join('\n');
  const result = await guest.run(
    {
      argv: ['sh', '-c', script, 'sh', ...program.argv],
      cwd: `${inGuest}/${program.collection}`,
      env: guestEnvironment({}),
    },
    {
      onStdout: collect,
      onStderr: collect,
      onStarted: (input) => {
        input.end();
      },
    },
    program.seconds + patienceSeconds,
  );
  const milliseconds = Date.now() - started;
  const text = Buffer.concat(output).toString();
  const end = endOf(program, result, milliseconds);
  return {
    program,
    end,
    cases: readCases(text),
    reports: result.reports,
    milliseconds,
    output: text,
    kernelLog: end.kind === 'guest-died' || result.reports.length > 0 ? result.kernelLog : '',
  };
}

/** Runs all programs in one guest; in a new one only after one that did not survive. */
export async function runPass(
  kernel: string,
  cpus: number,
  selftests: KernelSelftests,
  programs: readonly SelftestProgram[],
): Promise<Pass> {
  const started = Date.now();
  const runs: Run[] = [];
  let booted: Awaited<ReturnType<typeof boot>> | undefined;
  let version = '';
  const names = [...new Set(programs.map(({ collection }) => collection))];
  try {
    for (const program of programs) {
      if (booted?.guest.alive !== true) {
        await booted?.guest.close();
        booted = await boot(kernel, cpus, selftests, names);
        version = booted.version;
      }
      const run = await runProgram(booted.guest, program);
      runs.push(run);
      const { fail } = count(run);
      const word = fail > 0 ? `${fail} failed` : verdictOfEnd(run.end);
      const seconds = (run.milliseconds / 1000).toFixed(1);
      process.stderr.write(
        `  ${word.padEnd(10)}${nameOf(program)} (${seconds} s, ${describeEnd(run.end)}), ${kernel}\n`,
      );
    }
  } finally {
    await booted?.guest.close();
  }
  return { kernel, version, milliseconds: Date.now() - started, runs };
}
