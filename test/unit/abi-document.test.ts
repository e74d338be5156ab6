import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { inRepository } from '../../vm/repository.js';

const header = readFileSync(
  inRepository('native', 'librpal', 'include', 'linux', 'rpal.h'),
  'utf8',
);
const document = readFileSync(inRepository('docs', 'abi.md'), 'utf8');

/** Macros of the header and what they stand for. */
const macros = new Map(
  [...header.matchAll(/^#define\s+(RPAL_\w+)(?:\(\w+\))?\s+(.+?)\s*(?:\/\*.*)?$/gm)].map(
    ([, name = '', value = '']) => [name, value] as const,
  ),
);

/** Rows of the document's tables whose second cell is a number. */
const rows = new Map(
  [...document.matchAll(/^\| `(\w+)` \| (0x[0-9a-f]+|\d+) \|/gm)].map(
    ([, name = '', value = '']) => [name, Number(value)] as const,
  ),
);

/** The number that a macro stands for: a number itself, or that of a command. */
function numberOf(value: string): number {
  const command = /^_IO\w*\(RPAL_IOC_MAGIC, (0x[0-9a-f]+)/.exec(value)?.[1];
  return Number(command ?? value.replace(/U?L*$/, ''));
}

describe('docs/abi.md', () => {
  it('has the names of the header, all of them and no others', () => {
    const documented = new Set(document.match(/\bRPAL_[A-Z]\w+/g));
    expect([...documented].sort()).toEqual([...macros.keys()].sort());
  });

  it('has its numbers', () => {
    const numbers = [...rows].filter(([name]) => name.startsWith('RPAL_'));
    expect(numbers.length).toBeGreaterThan(25);
    expect(numbers).toEqual(numbers.map(([name]) => [name, numberOf(macros.get(name) ?? '')]));
    for (const name of macros.keys()) {
      if (/^RPAL_(IOC_(?!MAGIC)|STATE_(?!TID)|FLAG_)/.test(name)) expect(rows.has(name)).toBe(true);
    }
  });

  it('has its version and its magic', () => {
    expect(document).toContain(`\`RPAL_ABI_VERSION\` is ${macros.get('RPAL_ABI_VERSION') ?? ''}.`);
    expect(document).toContain(`\`RPAL_IOC_MAGIC\` (${macros.get('RPAL_IOC_MAGIC') ?? ''})`);
  });

  it('has the fields of the control block where they are', () => {
    const body = /^struct rpal_control \{$([^]*?)^\};$/m.exec(header)?.[1] ?? '';
    const fields = [...body.matchAll(/__u(?:32|64) (\w+);\s*\/\*\s+(\d+)/g)].map(
      ([, name = '', offset]) => [name, Number(offset)] as const,
    );
    expect(fields.length).toBeGreaterThan(8);
    expect([...rows].filter(([name]) => !name.startsWith('RPAL_'))).toEqual(fields);
  });

  it('names its structures', () => {
    for (const [, name] of header.matchAll(/^struct (rpal_\w+) \{$/gm)) {
      expect(document).toContain(`\`struct ${name ?? ''}\``);
    }
  });
});
