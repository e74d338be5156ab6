import { existsSync } from 'node:fs';
import { lstat, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/**
 * What a build left behind, so that the next one can tell whether it is all still there and still
 * the same: people delete, copy and rebuild files in build/ with tools of their own.
 */
interface BuildRecord {
  /** Stands for the sources. */
  key: string;
  /** Stands for the compiler and the command; files made by others are of no use. */
  tools: string;
  /** Size and time of every file, by its path. */
  files: Record<string, string>;
}

/** One build whose outputs are kept in a directory of its own. */
export interface RecordedBuild {
  /** File that holds the record. */
  record: string;
  /** Directory with everything that the build makes. */
  outputs: string;
  key: string;
  tools: string;
}

/**
 * Makes the outputs unless they are as the record says, and writes the record. A build may be
 * incremental, so whatever it must not trust is removed before: files that were changed since, and
 * all of them if they are from other tools or if nothing says where they are from.
 */
export async function recordedBuild(
  build: RecordedBuild,
  make: () => Promise<void>,
): Promise<'made' | 'unchanged'> {
  const before = await readRecord(build.record);
  const present = await filesIn(build.outputs);
  const same = (path: string): boolean => before?.files[path] === present[path];
  const complete = Object.keys(before?.files ?? {}).every(same);
  if (complete && before?.key === build.key && before.tools === build.tools) return 'unchanged';
  if (before?.tools !== build.tools) await rm(build.outputs, { recursive: true, force: true });
  else {
    for (const path of Object.keys(present).filter((each) => !same(each))) {
      await rm(join(build.outputs, path), { force: true });
    }
  }
  await make();
  const files = await filesIn(build.outputs);
  if (Object.keys(files).length === 0) {
    throw new Error(`The build has succeeded, but there is nothing in ${build.outputs}.`);
  }
  const record: BuildRecord = { key: build.key, tools: build.tools, files };
  await mkdir(dirname(build.record), { recursive: true });
  await writeFile(build.record, JSON.stringify(record));
  return 'made';
}

async function readRecord(path: string): Promise<BuildRecord | undefined> {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(await readFile(path, 'utf8')) as BuildRecord;
  } catch {
    // Cut off while it was written.
    return undefined;
  }
}

async function filesIn(directory: string): Promise<BuildRecord['files']> {
  const files: BuildRecord['files'] = {};
  if (!existsSync(directory)) return files;
  for (const name of await readdir(directory, { recursive: true })) {
    const info = await lstat(join(directory, name));
    if (!info.isDirectory()) files[name] = `${info.size} ${info.mtimeMs}`;
  }
  return files;
}
