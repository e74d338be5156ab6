import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const repository = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Compiles lib/ as it is now and returns where its index module is. For tests that need the real
 * thing: a worker thread of sources cannot start while the thread that made it is blocked. Test files
 * run at the same time, so each has a copy of its own, by its name.
 */
export function compileLibrary(user: string): string {
  const directory = `${repository}build/unit-library/${user}`;
  execFileSync(
    process.execPath,
    ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--outDir', directory],
    { cwd: repository, stdio: 'inherit' },
  );
  return `${directory}/lib/index.js`;
}
