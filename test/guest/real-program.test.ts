// guest: cpus=1,2 timeout=300
/** Node.js as a service runs what real programs do, and all its memory lies in its slot. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Caller, freshAddress, Program, type Seen } from './program.js';

interface Mapping {
  slot: number;
  bytes: number;
  line: string;
}

interface Everything {
  webAssembly: unknown;
  http: unknown;
  workerThread: unknown;
  childProcess: unknown;
  capabilities: { service: boolean; receive: boolean };
}

const slotBits = 39n;
const GiB = 2 ** 30;

/** All mappings of a process but [vsyscall], which is the kernel's and the same for everybody. */
function mappingsOf(pid: number): Mapping[] {
  const lines = readFileSync(`/proc/${String(pid)}/maps`, 'utf8')
    .trim()
    .split('\n');
  return lines
    .filter((line) => !line.endsWith('[vsyscall]'))
    .map((line) => {
      const [start = 0n, end = 0n] = (line.split(' ')[0] ?? '')
        .split('-')
        .map((address) => BigInt(`0x${address}`));
      return { slot: Number(start >> slotBits), bytes: Number(end - start), line };
    });
}

const webAssembly = {
  seen: [
    [1, 1],
    [2, 2],
    [302, 3],
  ],
  first: 1,
  tooMany: -1,
  outside: 'RuntimeError',
};

describe.each([
  ['service', 'rpal'],
  ['plain', 'unix'],
] as const)('Node.js as a %s program', (how, transport) => {
  const address = freshAddress();
  let program: Program;
  let seen: Seen<Everything>;
  beforeAll(async () => {
    program = new Program(how, 'real-program.js', address);
    expect(await program.line()).toBe(`ready ${transport}`);
    await using caller = new Caller(address);
    seen = await caller.call<Everything>('everyMethod');
  });
  afterAll(() => program[Symbol.asyncDispose]());

  it(`is called by ${transport}`, () => {
    expect(seen.transport).toBe(transport);
    const isService = how === 'service';
    expect(seen.result.capabilities).toMatchObject({ service: isService, receive: isService });
  });

  it('runs WebAssembly whose memory grows, and which goes beyond it', () => {
    expect(seen.result.webAssembly).toEqual(webAssembly);
  });

  it('serves and requests by HTTP', () => {
    expect(seen.result.http).toEqual([
      [200, '/first', 170_000, 'POSTED TO /FIRST'],
      [200, '/second', 180_000, 'POSTED TO /SECON'],
    ]);
  });

  it('runs a worker thread that shares memory with it and has WebAssembly of its own', () => {
    expect(seen.result.workerThread).toEqual({ count: 100_000, webAssembly });
  });

  it('starts child processes and reads what they say', () => {
    expect(seen.result.childProcess).toEqual({
      output: 'to the child and back',
      isChild: true,
      failed: 3,
    });
  });

  it(`has ${how === 'service' ? 'all of its memory in one slot' : 'its memory anywhere'}`, () => {
    const mappings = mappingsOf(program.pid);
    // Both WebAssembly memories are there, with the addresses that V8 reserves for each.
    expect(mappings.filter(({ bytes }) => bytes > 4 * GiB)).toHaveLength(2);
    const slots = [...new Set(mappings.map(({ slot }) => slot))];
    if (how === 'service') {
      const elsewhere = mappings.filter(({ slot }) => slot !== slots[0]);
      expect(elsewhere.map(({ line }) => line)).toEqual([]);
      // Slot 0 is that of fixed addresses, and 255 that of other programs' stacks.
      expect(slots[0]).toBeGreaterThan(0);
      expect(slots[0]).toBeLessThan(255);
    } else {
      expect(slots.length).toBeGreaterThan(1);
    }
  });
});
