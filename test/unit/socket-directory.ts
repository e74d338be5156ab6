import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const directory = mkdtempSync(join(tmpdir(), 'rpal-test-'));
let count = 0;

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

/** A path for a socket that no other test uses; removed after the tests of the file. */
export function freshAddress(): string {
  count += 1;
  return join(directory, `${String(count)}.sock`);
}
