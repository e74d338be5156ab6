import { mkdir, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { cached } from './cache.js';
import { contentKey } from './content-hash.js';
import { ensureHostPackages, guestNeeds } from './host-packages.js';
import { loggedCommand } from './logged-command.js';
import { step, waitingFor } from './progress.js';

/** The Debian release in the guest: its Node.js 20 is position independent, so it can serve. */
const suite = 'trixie';

/**
 * What the guest has besides Debian's essential packages: what runs there, and the tools that build
 * native code for it (see rootfs-build.ts), so that the host's compiler and libraries do not matter.
 */
const packages = [
  'nodejs',
  'procps',
  'strace',
  'gdb-minimal',
  'gcc',
  'g++',
  'make',
  'pkgconf',
  'libnode-dev',
  'python3',
] as const;

/**
 * URI of the Debian mirror: RPAL_DEBIAN_MIRROR, or the one that apt on this machine is configured
 * with, or undefined where apt knows none (then mmdebstrap has its own default).
 */
export async function debianMirror(): Promise<string | undefined> {
  if (process.env.RPAL_DEBIAN_MIRROR !== undefined) return process.env.RPAL_DEBIAN_MIRROR;
  const { stdout } = await execa(
    'apt-get',
    ['indextargets', '--format', '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)'],
    { reject: false },
  );
  return mirrorFromIndexTargets(stdout);
}

/** The main archive among apt's index targets; security updates are kept elsewhere. */
export function mirrorFromIndexTargets(indexTargets: string): string | undefined {
  for (const line of indexTargets.split('\n')) {
    const [origin, label, component, ...uri] = line.split('|');
    if (origin === 'Debian' && label === 'Debian' && component === 'main') return uri.join('|');
  }
  return undefined;
}

/** Directory of the guest's root file system. Guests see it read-only. */
export async function rootFileSystem(): Promise<string> {
  return rootWith(packages, `Root file system (Debian ${suite}, Node.js)`);
}

/**
 * The same with linters for C and C++: always of one version, since every version of clang-format
 * has its own opinion. Of no use to guests, so they are in a root of their own.
 */
export async function lintRootFileSystem(): Promise<string> {
  return rootWith(
    [...packages, 'clang-format', 'clang-tidy'],
    `Root file system with linters (Debian ${suite})`,
  );
}

/**
 * The same with what the kernel's own selftests need to be built and to run: 32-bit programs, and
 * the libraries that some of them use.
 */
export async function selftestRootFileSystem(): Promise<string> {
  return rootWith(
    [...packages, 'gcc-multilib', 'libcap-dev', 'libnuma-dev', 'liburing-dev', 'rsync'],
    `Root file system for selftests (Debian ${suite})`,
  );
}

async function rootWith(included: readonly string[], title: string): Promise<string> {
  const key = contentKey({ suite, packages: included, layout: '1' });
  return cached('rootfs', key, waitingFor('the root file system'), async (directory) => {
    await ensureHostPackages(guestNeeds);
    await step(title, async (report) => {
      await debootstrap(directory, included, report);
    });
  });
}

async function debootstrap(
  directory: string,
  included: readonly string[],
  report: (detail: string) => void,
): Promise<void> {
  const mirror = await debianMirror();
  const root = `${directory}/root`;
  await mkdir(root);
  const isRoot = process.getuid?.() === 0;
  const common = [
    '--variant=minbase',
    `--include=${included.join(',')}`,
    '--aptopt=Acquire::Retries "3"',
    '--dpkgopt=path-exclude=/usr/share/doc/*',
    '--dpkgopt=path-exclude=/usr/share/man/*',
    '--dpkgopt=path-exclude=/usr/share/locale/*',
  ];
  const options = {
    log: 'rootfs',
    advice:
      'If packages could not be fetched: RPAL_DEBIAN_MIRROR=<URI> names another Debian mirror.',
    onLine: (line: string) => {
      const phase = /^I: (.*?)\.*$/.exec(line)?.[1];
      if (phase !== undefined) report(phase);
    },
  };
  const source = mirror === undefined ? [] : [mirror];
  if (isRoot) {
    await loggedCommand('mmdebstrap', [...common, suite, root, ...source], options);
  } else {
    // Unpacked again so that all files belong to this user: QEMU must be able to read them.
    const tar = `${directory}/root.tar`;
    await loggedCommand(
      'mmdebstrap',
      ['--mode=unshare', ...common, suite, tar, ...source],
      options,
    );
    await loggedCommand('tar', ['-C', root, '--no-same-owner', '--exclude=./dev/*', '-xf', tar], {
      log: 'rootfs',
      append: true,
    });
    await loggedCommand('rm', [tar], { log: 'rootfs', append: true });
  }
  // The mirror's name is this machine's business.
  await writeFile(`${root}/etc/apt/sources.list`, '');
  await writeFile(`${root}/etc/hostname`, 'rpal\n');
  await writeFile(`${root}/etc/hosts`, '127.0.0.1 localhost rpal\n::1 localhost\n');
}
