import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { mkdir, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { execa } from 'execa';
import { endOnSignals } from './end-on-signals.js';
import { Failure, runMain } from './failure.js';
import { guestEnvironment } from './guest-environment.js';
import { ensureHostPackages, kernelNeeds } from './host-packages.js';
import { linuxSource } from './linux-source.js';
import { patchDirectory, patchSeries } from './patch-series.js';
import { inRepository, repository } from './repository.js';
import { canUnshare, inRootFileSystem } from './rootfs-build.js';
import { lintRootFileSystem } from './rootfs.js';

/** Directories that clang-format keeps; the .clang-format above a file says how. */
const clangFormatted = ['native/addon', 'native/launcher', 'native/preload', 'vm', 'bench'];

/** Directories in the kernel's style, which is what checkpatch says it is. */
const kernelStyle = ['native/librpal', 'test/kernel', 'vm', 'bench', 'examples'];

/** What checkpatch says about every C file that is not in the kernel. */
const outsideTheKernel = [
  // The kernel's own names for what C and the compiler offer everyone.
  'ARRAY_SIZE',
  'AVOID_EXTERNS',
  'EMBEDDED_FUNCTION_NAME',
  'ENOSYS',
  'MACRO_WITH_FLOW_CONTROL',
  // rpal_compat.h has those of another library.
  'NEW_TYPEDEFS',
  'PREFER_DEFINED_ATTRIBUTE_MACRO',
  'PREFER_KERNEL_TYPES',
  'QUOTED_WHITESPACE_BEFORE_NEWLINE',
  'STATIC_CONST_CHAR_ARRAY',
  'STRCPY',
  'VOLATILE',
  'WEAK_DECLARATION',
  // clang-format cuts strings, checkpatch does not like it.
  'SPLIT_STRING',
  // Licences are in LICENSES/, and not all are the kernel's.
  'SPDX_LICENSE_TAG',
];

/** One linter: what it is called and the commands it runs. */
interface Linter {
  name: string;
  commands: readonly (readonly string[])[];
  /** Where they run; the repository if it is not named. */
  cwd?: string;
}

async function sources(directories: readonly string[], ending: RegExp): Promise<string[]> {
  const files: string[] = [];
  for (const directory of directories) {
    const names = await readdir(join(repository, directory), { recursive: true });
    files.push(...names.filter((name) => ending.test(name)).map((name) => join(directory, name)));
  }
  return files.sort();
}

function typescriptLinters(): Linter[] {
  const node = (...argv: string[]): string[][] => [[process.execPath, ...argv]];
  return [
    {
      name: 'tsc',
      commands: node('node_modules/typescript/bin/tsc', '--project', 'tsconfig.json'),
    },
    { name: 'eslint', commands: node('node_modules/eslint/bin/eslint.js', '.') },
    { name: 'prettier', commands: node('node_modules/prettier/bin/prettier.cjs', '--check', '.') },
  ];
}

async function clangFormat(root: string, fix: boolean): Promise<Linter> {
  const mode = fix ? ['-i'] : ['--dry-run', '--Werror'];
  const files = await sources(clangFormatted, /\.(c|h|cc)$/);
  return {
    name: 'clang-format',
    commands: [inRootFileSystem(root, ['clang-format', ...mode, ...files])],
  };
}

async function clangTidy(root: string): Promise<Linter> {
  const napi = join(
    dirname(createRequire(import.meta.url).resolve('node-addon-api/package.json')),
    'napi.h',
  );
  const flags = (file: string): string[] =>
    file.endsWith('.cc')
      ? ['-std=c++20', `-isystem${dirname(napi)}`, '-isystem/usr/include/node', '-DNAPI_VERSION=8']
      : ['-std=gnu11'];
  const files = await sources(
    ['native/addon', 'native/launcher', 'native/preload', 'vm'],
    /\.(c|cc)$/,
  );
  return {
    name: 'clang-tidy',
    commands: files.map((file) =>
      inRootFileSystem(root, [
        'clang-tidy',
        '--quiet',
        file,
        '--',
        ...flags(file),
        '-Inative/librpal/include',
        '-DNODE_ADDON_API_DISABLE_CPP_EXCEPTIONS',
      ]),
    ),
  };
}

async function checkpatch(): Promise<Linter[]> {
  await ensureHostPackages(kernelNeeds);
  const { patches } = await patchSeries();
  const { tree } = await linuxSource();
  const command = [join(tree, 'scripts', 'checkpatch.pl'), '--no-tree', '--show-types', '--quiet'];
  const files = await sources(kernelStyle, /\.(c|h|S)$/);
  // It leaves a list of names in its working directory.
  const cwd = inRepository('build');
  await mkdir(cwd, { recursive: true });
  return [
    {
      name: 'checkpatch of the series',
      cwd,
      commands: patches.map((name) => [
        ...command,
        '--strict',
        // The list of maintainers is Linux's; a series that lives outside of it has none.
        '--ignore=FILE_PATH_CHANGES',
        join(patchDirectory, name),
      ]),
    },
    {
      name: 'checkpatch of C outside the kernel',
      cwd,
      commands: [
        [
          ...command,
          '--file',
          `--ignore=${outsideTheKernel.join(',')}`,
          '--',
          ...files.map((file) => inRepository(file)),
        ],
      ],
    },
  ];
}

/** Runs the commands of a linter, as many at once as there are CPUs. Returns what failed. */
async function run(linter: Linter): Promise<string[]> {
  const failures: string[] = [];
  const left = [...linter.commands];
  const worker = async (): Promise<void> => {
    for (let argv = left.shift(); argv !== undefined; argv = left.shift()) {
      const [command = '', ...args] = argv;
      const result = await execa(command, args, {
        cwd: linter.cwd ?? repository,
        reject: false,
        all: true,
        ...(command === 'unshare' ? { env: guestEnvironment(process.env), extendEnv: false } : {}),
      });
      if (result.failed) failures.push(`${result.shortMessage}\n${result.all}`);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return failures;
}

async function main(): Promise<number> {
  const { fixC } = new Command('npm run lint --')
    .description('Checks style and types of everything in the repository.')
    .option('--fix-c', 'rewrite C and C++ files as clang-format wants them')
    .parse()
    .opts<{ fixC?: true }>();
  if (!(await canUnshare())) {
    throw new Failure(
      `The linters for C and C++ run in a root file system of their own, and this process may not ` +
        `make the namespaces for it (unshare --mount fails). Run this outside of the container.`,
    );
  }
  const root = await lintRootFileSystem();
  const linters =
    fixC === true
      ? [await clangFormat(root, true)]
      : [
          ...typescriptLinters(),
          await clangFormat(root, false),
          await clangTidy(root),
          ...(await checkpatch()),
        ];
  let failed = 0;
  for (const linter of linters) {
    const failures = await run(linter);
    if (failures.length > 0) failed++;
    for (const failure of failures) process.stdout.write(`${failure}\n`);
    process.stdout.write(`${linter.name}: ${failures.length > 0 ? 'failed' : 'ok'}\n`);
  }
  return failed === 0 ? 0 : 1;
}

endOnSignals();
await runMain(main);
