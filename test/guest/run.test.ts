// guest: cpus=1 timeout=60
/** `rpal run`: what the program inherits, and what cannot be run. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterAll, expect, it } from 'vitest';

const directory = mkdtempSync(join(tmpdir(), 'rpal-run-'));
afterAll(() => {
  rmSync(directory, { recursive: true });
});

function executable(name: string, content: string | Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, content, { mode: 0o755 });
  return path;
}

/** The start of an ELF file for this machine. */
function elf(name: string, type: number): string {
  const header = Buffer.alloc(64);
  header.write('\x7fELF\x02', 'latin1');
  header.writeUInt16LE(type, 16);
  header.writeUInt16LE(62, 18);
  return executable(name, header);
}

/** What rpal run says when it fails. */
function failure(...parameters: string[]): string {
  const { status, stdout, stderr } = spawnSync('bin/rpal', ['run', ...parameters]);
  expect([status, stdout.toString()]).toEqual([1, '']);
  return stderr.toString();
}

it('hands on descriptors, arguments, environment and directory', async () => {
  const script = `exec >&3; echo "$@"; cat <&4; echo "$GREETING $PWD"; env | grep -cE 'RPAL_|LD_PRELOAD'; true`;
  const child = spawn('bin/rpal', ['run', '--', 'sh', '-c', script, 'name', 'a b', '--call-only'], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe', 'pipe'],
    env: { ...process.env, GREETING: 'hello' },
  });
  const [, , , output, input] = child.stdio;
  if (!input || !('end' in input)) throw new Error('there is no pipe');
  input.end('from descriptor 4\n');
  const said = text(output as Readable);
  expect(await once(child, 'exit')).toEqual([0, null]);
  expect(await said).toBe(`a b --call-only\nfrom descriptor 4\nhello ${process.cwd()}\n0\n`);
});

it('leaves signals as they were', () => {
  const status = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
  const plain = spawnSync('sh', ['-c', status]).stdout.toString();
  expect(plain).toMatch(/SigIgn:/);
  expect(spawnSync('bin/rpal', ['run', '--', 'sh', '-c', status]).stdout.toString()).toBe(plain);
});

it('makes a service of the program, but not of its children', () => {
  /** In how many slots of 512 GiB a process that prints its maps has mappings. */
  const slots = (...command: string[]): number => {
    const { stdout, stderr } = spawnSync('bin/rpal', ['run', '--', ...command]);
    expect(stderr.toString()).toBe('');
    const lines = stdout.toString().trim().split('\n');
    const own = lines.filter((line) => !line.endsWith('[vsyscall]'));
    return new Set(own.map((line) => BigInt(`0x${line.split('-')[0] ?? ''}`) >> 39n)).size;
  };
  expect(slots('cat', '/proc/self/maps')).toBe(1);
  expect(slots('sh', '-c', 'cat /proc/self/maps; true')).toBeGreaterThan(1);
});

it('says why a program cannot be run, and what to do', () => {
  expect(failure('--', elf('fixed', 2))).toMatch(/fixed address \(ET_EXEC.*--call-only/);
  expect(failure('--', elf('object', 1))).toMatch(/no program for x86-64/);
  expect(failure('--', executable('script', '#!/bin/sh\n'))).toMatch(/name its interpreter/);
  expect(failure('no-such-program')).toMatch(/no program 'no-such-program' in PATH/);
  expect(failure(join(directory, 'none'))).toMatch(/no program '.*none' there/);
  expect(failure(directory)).toMatch(/no program/);
  expect(failure('--nonsense', 'sh')).toMatch(/no option '--nonsense'/);
  expect(failure()).toMatch(/no program to run. Try: rpal run/);
});

it('lets through a fixed-address program that only calls', () => {
  // It is no real program, so the kernel refuses it: later than rpal run would have.
  expect(failure('--call-only', '--', elf('caller', 2))).toMatch(/cannot be run.*: .*\./);
});

it('explains itself', () => {
  const { status, stdout } = spawnSync('bin/rpal', ['run', '--help']);
  expect([status, stdout.toString()]).toEqual([0, expect.stringMatching(/^Usage: rpal run/)]);
  expect(spawnSync('bin/rpal', ['--help']).stdout.toString()).toMatch(/run \[options\] -- PROGRAM/);
});
