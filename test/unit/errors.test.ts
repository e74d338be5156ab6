import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { errnoName, messageOf, systemError } from '../../lib/errors.js';

const library = new URL('../../lib/', import.meta.url);
const sources = readdirSync(library, { recursive: true })
  .map(String)
  .filter((name) => name.endsWith('.ts'))
  .map((name) => readFileSync(new URL(name, library), 'utf8'));

/** Codes that the library gives to errors: literals, and the keys of its tables of remedies. */
function codesIn(source: string): string[] {
  return [
    ...source.matchAll(/'(ERR_RPAL_[A-Z_]+|ABORT_ERR)'/g),
    ...source.matchAll(/new RpalError\(\s*'([A-Z_]+)'/g),
    ...source.matchAll(/^ {2}(E[A-Z]+):/gm),
    ...source.matchAll(/^ {2}\[\d+, '(E[A-Z]+)'\],$/gm),
  ].map(([, code]) => code ?? '');
}

describe('docs/errors.md', () => {
  const text = readFileSync(new URL('../docs/errors.md', library), 'utf8');
  const headings = [...text.matchAll(/^### (.*)$/gm)].flatMap(([, heading]) =>
    [...(heading ?? '').matchAll(/`([A-Z_]+)`/g)].map(([, code]) => code ?? ''),
  );
  const codes = [...new Set(sources.flatMap(codesIn))].sort();

  it('has an entry for every code', () => {
    expect(codes).toContain('ERR_RPAL_HANDLER');
    expect(codes).toContain('EOWNERDEAD');
    expect(codes.filter((code) => !headings.includes(code))).toEqual([]);
  });

  it('has none for codes that there are not', () => {
    const package_ = headings.filter((code) => code.startsWith('ERR_'));
    expect(package_.filter((code) => !codes.includes(code))).toEqual([]);
    expect(headings).toHaveLength(new Set(headings).size);
  });

  it('says something in each entry', () => {
    for (const entry of text.split(/^### /m).slice(1)) {
      expect(entry.slice(entry.indexOf('\n')).trim().length).toBeGreaterThan(40);
    }
  });
});

it('names the errors of librpal and says what to do', () => {
  expect(errnoName(-130)).toBe('EOWNERDEAD');
  expect(errnoName(-2)).toBe('ENOENT');
  expect(errnoName(-3999)).toBe('ERRNO_3999');
  expect(systemError('Linking', -98)).toMatchObject({
    code: 'EADDRINUSE',
    message: expect.stringMatching(/^Linking failed \(EADDRINUSE\): .*protection key/) as string,
  });
});

it('has a message for whatever was thrown', () => {
  expect(messageOf(new Error('why'))).toBe('why');
  expect(messageOf('why')).toBe('why');
  expect(messageOf(undefined)).toBe('undefined');
});
