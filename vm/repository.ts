import { fileURLToPath } from 'node:url';
import { dirname, join } from 'node:path';

/** Absolute path of the checkout. The guest sees it at the same path. */
export const repository = dirname(dirname(fileURLToPath(import.meta.url)));

/** Absolute path of a file of the checkout. */
export function inRepository(...parts: string[]): string {
  return join(repository, ...parts);
}
