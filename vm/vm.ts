import { Command, InvalidArgumentError, Option } from 'commander';
import { endOnSignals } from './end-on-signals.js';
import { Failure, runMain } from './failure.js';
import { defaultGuest, failureOf, Guest, type GuestInput } from './guest.js';
import { guestEnvironment } from './guest-environment.js';
import { repository } from './repository.js';

interface VmOptions {
  kernel: string;
  cpus: number;
  memory: string;
  icount?: true;
  la57?: true;
  timeout?: number;
  env: Record<string, string>;
  shell?: true;
  gdb?: true;
  append: string;
}

function positive(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new InvalidArgumentError('It must be a positive number.');
  return number;
}

function assignment(text: string, before: Record<string, string>): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('It must have the form NAME=VALUE.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

async function main(): Promise<number> {
  const program = new Command('npm run vm --')
    .description('Runs a command in the guest, in this repository, and exits with its status.')
    .usage('[options] -- COMMAND [ARGUMENT...]')
    .argument('[command...]')
    .option('--kernel <name>', 'normal, debug, stock, or the path of a bzImage', 'normal')
    .addOption(
      new Option('--cpus <n>', 'number of CPUs').argParser(positive).default(defaultGuest.cpus),
    )
    .option('--memory <size>', 'for example 2G', defaultGuest.memory)
    .option('--icount', 'one CPU whose clock counts guest instructions: exact, repeatable')
    .option('--la57', 'page tables with 5 levels: no services')
    .addOption(new Option('--timeout <s>', 'seconds the command may take').argParser(positive))
    .addOption(
      new Option('--env <NAME=VALUE>', 'a variable for the command; may be repeated')
        .argParser(assignment)
        .default({}, 'none'),
    )
    .option('--shell', 'an interactive shell (or COMMAND) on a terminal')
    .option('--gdb', 'wait for a debugger (target remote :1234)')
    .option('--append <parameters>', 'more kernel parameters', '')
    .passThroughOptions()
    .parse();
  const options = program.opts<VmOptions>();
  const argv = program.args;
  const shell = options.shell === true;
  if (argv.length === 0 && !shell) {
    throw new Failure(`There is no command to run.\n\n${program.helpInformation()}`, 2);
  }
  if (options.icount && program.getOptionValueSource('cpus') === 'cli' && options.cpus !== 1) {
    throw new Failure('--icount needs one CPU: its clock counts the instructions of one.', 2);
  }
  if (shell && !process.stdin.isTTY) {
    throw new Failure('--shell needs a terminal. For scripts give the command itself.', 2);
  }

  const guest = await Guest.boot({
    kernel: options.kernel,
    cpus: options.icount ? 1 : options.cpus,
    memory: options.memory,
    icount: options.icount === true,
    la57: options.la57 === true,
    gdb: options.gdb === true,
    append: options.append,
  });
  try {
    const result = await guest.run(
      {
        argv: argv.length === 0 ? ['bash', '-i'] : argv,
        cwd: repository,
        env: guestEnvironment(process.env, options.env),
        ...(shell
          ? { terminal: { rows: process.stdout.rows, columns: process.stdout.columns } }
          : {}),
      },
      {
        onStdout: (bytes) => process.stdout.write(bytes),
        onStderr: (bytes) => process.stderr.write(bytes),
        onStarted: (input) => {
          connectInput(input, shell);
        },
      },
      options.timeout,
    );
    const failure = failureOf(result);
    if (failure === undefined) {
      return result.outcome.kind === 'exited' ? result.outcome.status : 1;
    }
    if (result.outcome.kind !== 'not-started') {
      process.stderr.write(`--- kernel log\n${result.kernelLog.trimEnd()}\n---\n`);
    }
    process.stderr.write(`${failure.message}\n`);
    return failure.status;
  } finally {
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdin.destroy();
    await guest.close();
  }
}

/** Standard input of this process, if something is piped in; or the keys of an interactive user. */
function connectInput(input: GuestInput, shell: boolean): void {
  if (process.stdin.isTTY && !shell) {
    input.end();
    return;
  }
  if (shell) {
    process.stdin.setRawMode(true);
    process.stdout.on('resize', () => {
      input.resize(process.stdout.rows, process.stdout.columns);
    });
  }
  process.stdin.on('data', (bytes: Buffer) => {
    input.write(bytes);
  });
  process.stdin.on('end', () => {
    input.end();
  });
}

endOnSignals();
await runMain(main);
