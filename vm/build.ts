import { existsSync } from 'node:fs';
import { execa } from 'execa';
import { endOnSignals } from './end-on-signals.js';
import { Failure, runMain } from './failure.js';
import { buildNative } from './native-build.js';
import { step } from './progress.js';
import { inRepository, repository } from './repository.js';

/** Compiles lib/ to dist/, for those who use the package as JavaScript. */
export async function buildTypeScript(): Promise<void> {
  if (!existsSync(inRepository('lib', 'index.ts'))) return;
  await step('Compiling TypeScript', async () => {
    const result = await execa(
      'node',
      ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'],
      {
        cwd: repository,
        reject: false,
        all: true,
      },
    );
    if (result.failed) throw new Failure(`${result.all}\nlib/ does not compile.`);
  });
}

if (process.argv[1] === import.meta.filename) {
  endOnSignals();
  await runMain(async () => {
    await buildNative(['librpal', 'addon']);
    await buildTypeScript();
    return 0;
  });
}
