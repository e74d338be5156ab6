import { execa } from 'execa';
import { exitStatus } from '../vm/guest.js';
import { repository } from '../vm/repository.js';
import type { Narrowing } from './guest-runs.js';
import type { Tally } from './tally.js';

/** One use of `npm run vm` and what must come of it. */
interface RunnerTest {
  name: string;
  options?: readonly string[];
  command: readonly string[];
  input?: string;
  /** Where several are given, any of them. */
  status: number | readonly number[];
  stdout?: string;
  stderr?: RegExp;
}

/** Words that a shell, or a careless join, would change. */
const awkward = ['a b', '', "it's", '"q"', '$HOME', '*', '\\', '-x', 'tab\there', 'é', '%41'];

const tests: readonly RunnerTest[] = [
  {
    name: 'arguments, directory and environment arrive exactly',
    options: ['--env', 'GREETING=hello  world'],
    command: [
      'node',
      '-p',
      'JSON.stringify([process.argv.slice(1), process.cwd(), process.env.GREETING])',
      ...awkward,
    ],
    status: 0,
    stdout: `${JSON.stringify([awkward, repository, 'hello  world'])}\n`,
  },
  {
    name: 'the exit status and both streams are those of the command',
    command: ['sh', '-c', 'echo out; echo err >&2; exit 3'],
    status: 3,
    stdout: 'out\n',
    stderr: /^err$/m,
  },
  {
    name: 'standard input reaches the command, and its end too',
    command: ['wc', '-c'],
    input: 'x'.repeat(300_000),
    status: 0,
    stdout: '300000\n',
  },
  {
    name: 'a signal that ends the command shows as in a shell',
    command: ['sh', '-c', 'kill -SEGV $$'],
    status: 139,
  },
  {
    name: 'a command that does not exist',
    command: ['no-such-command'],
    status: exitStatus.notStarted,
    stderr: /no-such-command: No such file/,
  },
  {
    name: 'output of children that outlive the command is not lost, the children are',
    command: ['sh', '-c', 'echo one; sleep 1000 & exec true'],
    status: 0,
    stdout: 'one\n',
  },
  {
    name: 'a command that hangs is a failure',
    options: ['--timeout', '3'],
    command: ['sleep', '1000'],
    status: exitStatus.timedOut,
    stderr: /did not end within 3 s/,
  },
  {
    name: 'a panic is a failure and its log is shown',
    command: ['sh', '-c', 'echo c > /proc/sysrq-trigger'],
    status: exitStatus.guestDied,
    stderr: /Kernel panic/,
  },
  {
    name: 'a guest that just ends is a failure',
    command: ['sh', '-c', 'echo b > /proc/sysrq-trigger'],
    status: exitStatus.guestDied,
  },
  {
    name: 'a kernel warning is a failure, although the command succeeded',
    options: ['--kernel', 'debug'],
    command: ['sh', '-c', 'echo WARNING > /sys/kernel/debug/provoke-crash/DIRECT; exit 0'],
    status: exitStatus.kernelReport,
    stderr: /WARNING: CPU/,
  },
  {
    name: 'a KASAN report is a failure, although the command succeeded',
    options: ['--kernel', 'debug'],
    command: ['sh', '-c', 'echo READ_AFTER_FREE > /sys/kernel/debug/provoke-crash/DIRECT; exit 0'],
    status: exitStatus.kernelReport,
    stderr: /BUG: KASAN/,
  },
  {
    name: 'a report of lockdep is a failure, although the command succeeded',
    options: ['--kernel', 'debug'],
    command: ['sh', '-c', 'echo SPINLOCKUP > /sys/kernel/debug/provoke-crash/DIRECT; exit 0'],
    // Who returns to user space with a lock may not get any further.
    status: [exitStatus.kernelReport, exitStatus.timedOut],
    stderr: /lock held when returning to user space/,
  },
  {
    name: 'a BUG ends the guest, which is a failure',
    options: ['--kernel', 'debug'],
    command: ['sh', '-c', 'echo BUG > /sys/kernel/debug/provoke-crash/DIRECT; exit 0'],
    status: exitStatus.guestDied,
    stderr: /kernel BUG at/,
  },
  {
    name: 'a task that hangs in the kernel is a failure, and the log says where',
    options: ['--kernel', 'debug', '--timeout', '40'],
    command: [
      'sh',
      '-c',
      'echo 5 > /proc/sys/kernel/hung_task_timeout_secs; ' +
        'echo HUNG_TASK > /sys/kernel/debug/provoke-crash/DIRECT & exit 0',
    ],
    status: exitStatus.timedOut,
    stderr: /blocked for more than[^]*lkdtm/,
  },
];

/** Tests `npm run vm` itself: above all that it cannot call a broken guest a success. */
export async function runRunnerTests(
  tally: Tally,
  filter: string | undefined,
  narrowing: Narrowing,
): Promise<void> {
  process.stderr.write('\nTests of the runner\n');
  for (const test of tests) {
    if (filter !== undefined && !test.name.includes(filter)) continue;
    const on = test.options?.includes('debug') === true ? 'debug' : 'normal';
    if (narrowing.kernel !== undefined && narrowing.kernel !== on) continue;
    const started = Date.now();
    const result = await execa(
      process.execPath,
      [
        '--import',
        'tsx',
        'vm/vm.ts',
        '--timeout',
        '120',
        ...(test.options ?? []),
        '--',
        ...test.command,
      ],
      {
        cwd: repository,
        reject: false,
        stripFinalNewline: false,
        ...(test.input === undefined ? { stdin: 'ignore' } : { input: test.input }),
      },
    );
    const wrong: string[] = [];
    const expected = [test.status].flat();
    if (result.exitCode === undefined || !expected.includes(result.exitCode)) {
      wrong.push(`exit status ${String(result.exitCode)} instead of ${expected.join(' or ')}`);
    }
    if (test.stdout !== undefined && result.stdout !== test.stdout) {
      wrong.push(`standard output is not ${JSON.stringify(test.stdout)}`);
    }
    if (test.stderr?.test(result.stderr) === false) {
      wrong.push(`nothing like ${String(test.stderr)} on standard error`);
    }
    const failed = wrong.length > 0;
    tally.add({ passed: failed ? 0 : 1, failed: failed ? 1 : 0, skipped: 0 });
    const seconds = ((Date.now() - started) / 1000).toFixed(1);
    process.stderr.write(`  ${(failed ? 'FAILED' : 'ok').padEnd(8)}${test.name} (${seconds} s)\n`);
    if (failed) {
      tally.describe({
        where: `runner: ${test.name}`,
        what: wrong.join('\n'),
        details: `--- stdout\n${result.stdout}\n--- stderr\n${result.stderr}`,
      });
    }
  }
}
