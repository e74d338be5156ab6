import { join } from 'node:path';
import { Failure } from './failure.js';
import { defaultGuest, failureOf, Guest } from './guest.js';
import { guestEnvironment } from './guest-environment.js';
import { configuredTree, fragmentsOf, inScratchTree } from './kernel-build.js';
import { linuxSource } from './linux-source.js';
import { applySeries, patchSeries } from './patch-series.js';
import { step } from './progress.js';
import { repository } from './repository.js';

/**
 * Builds and boots the kernel as it is after each patch: who looks for the commit that broke
 * something must be able to stop at any. One tree, so that make compiles what a patch has changed.
 */
export async function eachPatch(onGood: (patch: string) => void): Promise<void> {
  const source = await linuxSource();
  const series = await patchSeries();
  const first = { ...series, patches: series.patches.slice(0, 1) };
  await inScratchTree('each', async (tree) => {
    const { objects, make } = await step(`Linux ${source.version} with the first patch`, (report) =>
      configuredTree(
        { source, series: first, fragments: fragmentsOf('normal', series), report },
        tree,
        'kernel-each',
      ),
    );
    for (const [index, patch] of series.patches.entries()) {
      await step(patch, async (report) => {
        if (index > 0) {
          report('applying');
          await applySeries(tree, { ...series, patches: [patch] }, source.version);
          await make(['olddefconfig']);
        }
        report('compiling');
        await make(['bzImage']);
        report('booting');
        await boot(join(objects, 'arch/x86/boot/bzImage'), patch);
      });
      onGood(patch);
    }
  });
}

/** /dev/rpal is there from the first patch on. */
async function boot(kernel: string, patch: string): Promise<void> {
  const guest = await Guest.boot({ ...defaultGuest, kernel });
  try {
    const result = await guest.run(
      { argv: ['test', '-c', '/dev/rpal'], cwd: repository, env: guestEnvironment({}) },
      { onStdout: () => undefined, onStderr: () => undefined },
      60,
    );
    const { outcome } = result;
    const found = outcome.kind === 'exited' && outcome.status === 0;
    const why = failureOf(result)?.message ?? (found ? undefined : 'There is no /dev/rpal.');
    if (why !== undefined) {
      throw new Failure(`With the patches up to ${patch}: ${why}\n${result.kernelLog}`);
    }
  } finally {
    await guest.close();
  }
}
