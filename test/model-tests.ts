import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { ensureHostPackages, modelNeeds } from '../vm/host-packages.js';
import { repository } from '../vm/repository.js';
import type { Tally } from './tally.js';

/** A search of all states of test/model/call.pml; docs/call-model.md explains the words. */
interface Search {
  name: string;
  /** What can happen, and how often. */
  with: readonly string[];
}

/** Each must be searched completely, without an error. */
const correct: readonly Search[] = [
  {
    name: 'every hook at every step, and death of either side',
    with: ['SIGNALS=1', 'TICKS=1', 'SYSCALLS=1', 'KILLS=2', 'LONG', 'CRASHES'],
  },
  {
    name: 'events, signals and timeouts of the receiver, hand-backs and replies',
    with: [
      ...['TICKS=1', 'SYSCALLS=1', 'EVENTS=1'],
      ...['RECEIVER_SIGNALS=1', 'RECEIVER_TIMEOUTS=1', 'LONG'],
    ],
  },
  {
    name: 'recall of an endless loan without a tick',
    with: ['SYSCALLS=1', 'EVENTS=1', 'RECEIVER_SIGNALS=1', 'RECALLED'],
  },
  { name: 'two senders and events', with: ['SENDERS=2', 'EVENTS=1'] },
  { name: 'two senders and hand-backs', with: ['SENDERS=2', 'SYSCALLS=1'] },
  { name: 'two senders and a death', with: ['SENDERS=2', 'KILLS=1'] },
  {
    name: 'two senders, a hand-back and a death',
    with: ['SENDERS=2', 'SYSCALLS=1', 'KILLS=1', 'CALLS=1'],
  },
  {
    name: 'parting the services, death of any of the three tasks',
    with: ['UNLINKS=1', 'KILLED_UNLINKER', 'TICKS=1', 'KILLS=1', 'LONG'],
  },
  {
    name: 'parting the services, with signals and deadlines',
    with: ['UNLINKS=1', 'SYSCALLS=1', 'SIGNALS=1', 'TIMED'],
  },
  {
    name: 'parting, linking again and parting again',
    with: ['UNLINKS=2', 'RELINK', 'SYSCALLS=1', 'CALLS=1'],
  },
];

/** Each must be searched completely without a cycle: what can be repeated, might be for ever. */
const finite: readonly Search[] = [
  { name: 'recalls, one sender', with: ['EVENTS=1', 'RECEIVER_SIGNALS=1', 'RECALLED'] },
  { name: 'contention, two senders', with: ['SENDERS=2', 'SYSCALLS=1'] },
];

/** Faults that spin has to find: those called FAULT_* the code has had. */
const broken: readonly Search[] = [
  { name: 'BREAK_CALLEE_BEFORE_SP', with: ['SIGNALS=1'] },
  { name: 'BREAK_CALLEE_AFTER_CLAIM', with: ['KILLS=1'] },
  { name: 'BREAK_ACTIVE_BEFORE_ADOPTION', with: ['SIGNALS=1'] },
  { name: 'BREAK_POP_BEFORE_ACTIVE', with: ['SIGNALS=1'] },
  { name: 'BREAK_RETURNING_BEFORE_REPLY', with: ['SIGNALS=1'] },
  { name: 'BREAK_FLAGS_IGNORED', with: ['EVENTS=1'] },
  { name: 'BREAK_FS_DECIDES', with: ['SIGNALS=1'] },
  { name: 'BREAK_NO_SYSCALL_HOOK', with: ['SYSCALLS=1'] },
  { name: 'BREAK_PARKED_AFTER_STATE', with: ['SYSCALLS=1'] },
  { name: 'BREAK_REPLY_AFTER_PUBLICATION', with: ['SYSCALLS=1', 'TICKS=1'] },
  { name: 'BREAK_WANTED_UNSEEN', with: ['SIGNALS=1', 'EVENTS=1'] },
  { name: 'BREAK_CONTENDED_LOST', with: ['SENDERS=2'] },
  { name: 'BREAK_TURN_KEPT', with: ['SENDERS=2', 'SYSCALLS=1', 'KILLS=1', 'CALLS=1'] },
  { name: 'BREAK_POKE_UNSEEN', with: ['EVENTS=1'] },
  { name: 'BREAK_NO_RECALL', with: ['RECEIVER_SIGNALS=1', 'RECALLED'] },
  { name: 'FAULT_DYING_RECEIVER', with: ['TICKS=1', 'KILLS=1'] },
  { name: 'FAULT_RELEASE_SKIPPED', with: ['SIGNALS=1', 'KILLS=1'] },
  { name: 'FAULT_STALE_WORD', with: ['SIGNALS=1', 'TICKS=1', 'KILLS=1'] },
  { name: 'FAULT_CONTENDED_NOT_SET', with: ['SENDERS=2'] },
  { name: 'FAULT_UNBOUND_EARLY', with: ['UNLINKS=1', 'KILLED_UNLINKER'] },
  { name: 'FAULT_UNBOUND_BY_ANOTHER', with: ['UNLINKS=2', 'RELINK', 'CALLS=1'] },
  { name: 'FAULT_WAITS_THOUGH_LINKED', with: ['UNLINKS=1', 'RELINK', 'CALLS=1'] },
];

type Property = 'assertions' | 'no cycles';

interface Outcome {
  states: number;
  /** What spin found wrong; undefined: nothing, and every state was looked at. */
  error: string | undefined;
  output: string;
}

/** Reads what a verifier printed. */
function readOutcome(output: string): Outcome {
  const count = (pattern: RegExp): number => Number(pattern.exec(output)?.[1] ?? NaN);
  const states = count(/(\d+) states, stored/);
  const complete = !/max search depth too small|search not completed/i.test(output);
  const errors = count(/errors: (\d+)/);
  if (errors === 0 && complete && states > 0) return { states, error: undefined, output };
  if (!(errors > 0)) throw new Error(`The search was not completed:\n${output}`);
  return { states, error: /^pan:\d+: (.*)$/m.exec(output)?.[1] ?? 'an error', output };
}

/** Makes a verifier of the model and runs it, one after the other and with patience. */
async function verify(defines: readonly string[], property: Property): Promise<Outcome> {
  const directory = await mkdtemp(join(tmpdir(), 'rpal-model-'));
  const run = async (command: string, args: readonly string[]): Promise<string> => {
    const options = { cwd: directory, all: true, reject: false } as const;
    const result = await execa('nice', ['-n', '10', command, ...args], options);
    if (result.failed) throw new Error(`${command} failed:\n${result.all}`);
    return result.all;
  };
  try {
    const flags = defines.map((define) => `-D${define}`);
    await run('spin', [...flags, '-a', join(repository, 'test', 'model', 'call.pml')]);
    const kind = property === 'no cycles' ? '-DNP' : '-DSAFETY';
    // Optimization would take longer than it saves.
    await run('gcc', ['-w', '-O0', kind, '-DCOLLAPSE', '-DNOFAIR', '-o', 'pan', 'pan.c']);
    // The model says itself, by assertions, in which states everything may end: hence -E.
    const search = property === 'no cycles' ? ['-l'] : [];
    return readOutcome(await run('./pan', ['-E', '-m100000', '-w22', ...search]));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/**
 * Searches the model of a call: the protocol as it is must be right in all states, and each
 * deliberate fault must be found.
 */
export async function runModelTests(tally: Tally, filter: string | undefined): Promise<void> {
  await ensureHostPackages(modelNeeds);
  process.stderr.write('\nThe model of a call (docs/call-model.md)\n');
  const judge = async (
    { name }: Search,
    defines: readonly string[],
    property: Property,
    mustFail: boolean,
  ): Promise<void> => {
    if (filter !== undefined && !name.includes(filter)) return;
    const started = Date.now();
    const { states, error, output } = await verify(defines, property);
    const passed = (error !== undefined) === mustFail;
    tally.add({ passed: passed ? 1 : 0, failed: passed ? 0 : 1, skipped: 0 });
    const seconds = ((Date.now() - started) / 1000).toFixed(1);
    const found = mustFail && error !== undefined ? 'found, ' : '';
    process.stderr.write(
      `  ${(passed ? 'ok' : 'FAILED').padEnd(8)}${name} (${property}: ${found}` +
        `${states.toLocaleString('en')} states, ${seconds} s)\n`,
    );
    if (passed) return;
    tally.describe({
      where: `model: ${name}`,
      what: error ?? 'spin did not find this fault',
      details:
        `Defined: ${defines.join(' ')}. ` +
        `docs/call-model.md says how to see the steps that lead there.\n${output}`,
    });
  };
  for (const search of correct) await judge(search, search.with, 'assertions', false);
  for (const search of finite) await judge(search, search.with, 'no cycles', false);
  for (const search of broken) {
    await judge(search, [...search.with, search.name], 'assertions', true);
  }
}
