import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, release } from 'node:os';
import { join } from 'node:path';
import { cacheDirectory } from './cache.js';
import { Failure } from './failure.js';
import { ensureHostPackages, kernelNeeds } from './host-packages.js';
import { copyTree } from './kernel-build.js';
import { parseKernelOptions } from './kernel-config.js';
import { linuxSource } from './linux-source.js';
import { loggedCommand } from './logged-command.js';
import { applySeries, patchDirectory, patchSeries } from './patch-series.js';
import { step } from './progress.js';
import { inRepository } from './repository.js';

/** What packaging needs besides what building needs. */
const packagingNeeds = [
  ...kernelNeeds,
  { package: 'dpkg-dev', evidence: 'dpkg-buildpackage' },
  { package: 'debhelper', evidence: 'dh' },
  { package: 'fakeroot', evidence: 'fakeroot' },
  { package: 'rsync', evidence: 'rsync' },
  { package: 'kmod', evidence: 'depmod' },
  { package: 'cpio', evidence: 'cpio' },
] as const;

/**
 * Settings of distributions that only work with their own keys, or only make packages ten times as
 * big; everything else of the configuration is kept.
 */
const overrides = `
CONFIG_SYSTEM_TRUSTED_KEYS=""
CONFIG_SYSTEM_REVOCATION_KEYS=""
CONFIG_MODULE_SIG_KEY="certs/signing_key.pem"
CONFIG_DEBUG_INFO_NONE=y
# CONFIG_DEBUG_INFO_BTF is not set
CONFIG_LOCALVERSION="-rpal"
`;

/**
 * Builds Debian packages of the patched kernel for a real machine, with the configuration of the
 * running kernel or the one given. Returns the paths of the packages.
 */
export async function kernelPackages(configuration?: string): Promise<string[]> {
  const config = configuration ?? `/boot/config-${release()}`;
  if (!existsSync(config)) {
    throw new Failure(
      configuration === undefined
        ? `The configuration of the running kernel is not in ${config}. Name the one to start ` +
            `from: npm run kernel -- deb --config FILE. (Some kernels have theirs in ` +
            `/proc/config.gz; Debian's are in the packages linux-config-6.12 and linux-image-*.)`
        : `There is no file ${config}.`,
    );
  }
  await ensureHostPackages(packagingNeeds);
  const source = await linuxSource();
  const series = await patchSeries();
  const packages = inRepository('build', 'deb');
  await mkdir(packages, { recursive: true });
  await mkdir(cacheDirectory, { recursive: true });
  // bindeb-pkg leaves its packages beside the tree.
  const directory = await mkdtemp(join(cacheDirectory, 'deb-'));
  const tree = join(directory, 'linux');
  const log = 'kernel-deb';
  try {
    return await step(`Debian packages of Linux ${source.version}-rpal`, async (report) => {
      report('copying the source');
      await copyTree(source.tree, tree);
      await applySeries(tree, series, source.version);
      const rpal =
        series.patches.length === 0
          ? ''
          : await readFile(join(patchDirectory, 'configs', 'rpal.config'), 'utf8');
      await writeFile(
        join(tree, '.config'),
        `${await readFile(config, 'utf8')}\n${overrides}\n${rpal}`,
      );
      await loggedCommand('make', ['olddefconfig'], { log, cwd: tree });
      const final = parseKernelOptions(await readFile(join(tree, '.config'), 'utf8'));
      if (rpal !== '' && final.get('CONFIG_RPAL') !== 'y') {
        throw new Failure(
          `With ${config} this kernel cannot have CONFIG_RPAL: \`grep -A9 "config RPAL" ` +
            `rpal/Kconfig\` in the patched source names what it depends on.`,
        );
      }
      let files = 0;
      await loggedCommand(
        'make',
        [
          `-j${String(availableParallelism())}`,
          'CC=ccache gcc',
          'HOSTCC=ccache gcc',
          'KDEB_PKGVERSION=' + `${source.version}-1`,
          'bindeb-pkg',
        ],
        {
          log,
          append: true,
          cwd: tree,
          onLine: (line) => {
            if (/^\s+(CC|CC \[M\]|LD|AR)\s/.test(line)) report(`${String(++files)} steps`);
          },
        },
      );
      const built: string[] = [];
      for (const name of (await readdir(directory)).filter((each) => each.endsWith('.deb'))) {
        built.push(join(packages, name));
        await copyFile(join(directory, name), join(packages, name));
      }
      return built.sort();
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
