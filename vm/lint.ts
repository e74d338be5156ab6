import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { execa } from 'execa';
import { runMain } from './failure.js';
import { ensureHostPackages } from './host-packages.js';
import { linuxSource } from './linux-source.js';
import { patchDirectory, patchSeries } from './patch-series.js';
import { repository } from './repository.js';

/** Directories with C or C++; each has the .clang-format that is right for it. */
const nativeDirectories = ['native', 'test/kernel', 'vm', 'bench', 'examples'];

/** One linter: what it is called and what it runs. */
interface Linter {
  name: string;
  argv: readonly string[];
}

async function nativeFiles(): Promise<string[]> {
  const files: string[] = [];
  for (const directory of nativeDirectories) {
    const names = await readdir(join(repository, directory), { recursive: true }).catch(() => []);
    files.push(
      ...names.filter((name) => /\.(c|h|cc|hpp)$/.test(name)).map((name) => join(directory, name)),
    );
  }
  return files.sort();
}

const clangFormat: readonly [string, string] = ['clang-format', 'clang-format'];

async function linters(fix: boolean): Promise<Linter[]> {
  const node = (...argv: string[]): string[] => [process.execPath, ...argv];
  const series = await patchSeries();
  const native = await nativeFiles();
  const list: Linter[] = [];
  if (!fix) {
    list.push(
      { name: 'tsc', argv: node('node_modules/typescript/bin/tsc', '--project', 'tsconfig.json') },
      { name: 'eslint', argv: node('node_modules/eslint/bin/eslint.js', '.') },
      { name: 'prettier', argv: node('node_modules/prettier/bin/prettier.cjs', '--check', '.') },
    );
  }
  if (native.length > 0) {
    await ensureHostPackages([{ package: clangFormat[0], evidence: clangFormat[1] }]);
    const mode = fix ? ['-i'] : ['--dry-run', '--Werror'];
    list.push({ name: 'clang-format', argv: [clangFormat[1], ...mode, ...native] });
  }
  if (!fix && series.patches.length > 0) {
    const { tree } = await linuxSource();
    list.push({
      name: 'checkpatch',
      argv: [
        join(tree, 'scripts', 'checkpatch.pl'),
        '--strict',
        '--no-tree',
        '--show-types',
        // The list of maintainers is Linux's; a series that lives outside of it has none.
        '--ignore=FILE_PATH_CHANGES',
        ...series.patches.map((name) => join(patchDirectory, name)),
      ],
    });
  }
  return list;
}

const options = new Command('npm run lint --')
  .description('Checks style and types of everything in the repository.')
  .option('--fix-c', 'rewrite C and C++ files as clang-format wants them')
  .parse()
  .opts<{ fixC?: true }>();

await runMain(async () => {
  let failed = 0;
  for (const { name, argv } of await linters(options.fixC === true)) {
    const [command = '', ...args] = argv;
    const result = await execa(command, args, { cwd: repository, reject: false, all: true });
    if (result.failed) {
      failed++;
      process.stdout.write(`${result.all}\n`);
    }
    process.stdout.write(`${name}: ${result.failed ? 'failed' : 'ok'}\n`);
  }
  return failed === 0 ? 0 : 1;
});
