import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';

/** What a cached artefact depends on: names, and the values that change it. */
export type Ingredients = Record<string, string | readonly string[]>;

/**
 * Key of an artefact made from these ingredients. The order in which they are named does not
 * matter; every name, value and boundary does.
 */
export function contentKey(ingredients: Ingredients): string {
  const sorted = Object.entries(ingredients).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex').slice(0, 20);
}

/** SHA-256 of a file's content. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
