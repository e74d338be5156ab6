import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { programKind } from '../../lib/elf.js';

const directory = mkdtempSync(join(tmpdir(), 'rpal-elf-'));
afterAll(() => {
  rmSync(directory, { recursive: true });
});

/** The start of an ELF file. */
function elf(name: string, type: number, machine = 62, bits = 2): string {
  const header = Buffer.alloc(64);
  header.write('\x7fELF', 'latin1');
  header[4] = bits;
  header.writeUInt16LE(type, 16);
  header.writeUInt16LE(machine, 18);
  const path = join(directory, name);
  writeFileSync(path, header, { mode: 0o755 });
  return path;
}

function script(): string {
  const path = join(directory, 'script');
  writeFileSync(path, '#!/usr/bin/env node\nconsole.log(1);\n', { mode: 0o755 });
  return path;
}

it('tells programs apart', () => {
  expect(programKind(elf('pie', 3))).toBe('pie');
  expect(programKind(elf('fixed', 2))).toBe('fixed');
  expect(programKind(elf('object', 1))).toBe('foreign');
  expect(programKind(elf('arm', 3, 183))).toBe('foreign');
  expect(programKind(elf('small', 3, 3, 1))).toBe('foreign');
  expect(programKind(script())).toBe('other');
});
