import { Command } from 'commander';
import { endOnSignals } from './end-on-signals.js';
import { Failure, runMain } from './failure.js';
import { kernel, kernelWarnings, type KernelFlavour } from './kernel-build.js';
import { kernelPackages } from './kernel-deb.js';
import { countSeries, tooMany } from './kernel-lines.js';
import { eachPatch } from './kernel-each.js';
import { rpalSymbols } from './kernel-symbols.js';
import { exportSeries, kernelTree } from './kernel-tree.js';

const program = new Command('npm run kernel --').description(
  'Builds the RPAL kernel, and keeps its patches.',
);

async function printKernel(flavour: KernelFlavour): Promise<void> {
  const built = await kernel(flavour);
  process.stdout.write(`${built.bzImage}\n`);
}

program
  .command('build')
  .description('build the kernel of the guest and print the path of its bzImage')
  .action(() => printKernel('normal'));
program
  .command('debug')
  .description('build the kernel with KASAN, lockdep and the other checkers')
  .action(() => printKernel('debug'));
program
  .command('kcsan')
  .description('build the kernel with the detector of data races')
  .action(() => printKernel('kcsan'));
program
  .command('stock')
  .description('build the same kernel without the patches')
  .action(() => printKernel('stock'));
program
  .command('without')
  .description(
    'build the patched kernel with CONFIG_RPAL=n and check that it has no symbol of RPAL',
  )
  .action(async () => {
    const built = await kernel('without');
    const symbols = await rpalSymbols(built.vmlinux);
    if (symbols.length > 0) {
      throw new Failure(`With CONFIG_RPAL=n vmlinux has symbols of RPAL:\n${symbols.join('\n')}`);
    }
    process.stdout.write(`${built.bzImage}\n`);
  });
program
  .command('warnings')
  .description('compile arch/x86/rpal with W=1, check it with sparse, and fail if one warns')
  .action(async () => {
    const warnings = await kernelWarnings();
    if (warnings.length > 0) throw new Failure(warnings.join('\n'));
  });
program
  .command('lines')
  .description('count the lines of code of that tree, and fail if they are too many for a reviewer')
  .action(async () => {
    const { own, hooks } = await countSeries();
    process.stdout.write(
      `${String(own + hooks)} lines of code: ${String(own)} in files of RPAL, ` +
        `${String(hooks)} in files of others\n`,
    );
    const wrong = tooMany({ own, hooks });
    if (wrong.length > 0) throw new Failure(wrong.join('\n'));
  });
program
  .command('each')
  .description('build and boot the kernel as it is after each of the patches')
  .action(() => eachPatch((patch) => process.stdout.write(`${patch}\n`)));
program
  .command('tree')
  .description('make a git tree of the patched source to work in, and print its path')
  .action(async () => {
    process.stdout.write(`${await kernelTree()}\n`);
  });
program
  .command('export')
  .description('write the commits of that tree back to kernel-patches/')
  .option('--tree <path>', 'another git tree; its stock commit has the tag rpal-base')
  .action(async (options: { tree?: string }) => {
    for (const name of await exportSeries(options.tree)) process.stdout.write(`${name}\n`);
  });
program
  .command('deb')
  .description('build Debian packages for a real machine into build/deb')
  .option('--config <file>', "configuration to start from (default: the running kernel's)")
  .action(async (options: { config?: string }) => {
    for (const path of await kernelPackages(options.config)) process.stdout.write(`${path}\n`);
  });

endOnSignals();
await runMain(async () => {
  await program.parseAsync();
  return 0;
});
