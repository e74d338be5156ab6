import { existsSync } from 'node:fs';
import { execa } from 'execa';
import { delimiter, join } from 'node:path';
import { Failure } from './failure.js';
import { loggedCommand } from './logged-command.js';
import { step } from './progress.js';

/** Something a command needs on the host, and the Debian package that has it. */
export interface HostNeed {
  package: string;
  /** A program on PATH, or an absolute path of a file, that shows it is there. */
  evidence: string;
}

/** What builds a kernel. */
export const kernelNeeds: readonly HostNeed[] = [
  { package: 'gcc', evidence: 'gcc' },
  { package: 'libc6-dev', evidence: '/usr/include/stdlib.h' },
  { package: 'make', evidence: 'make' },
  { package: 'flex', evidence: 'flex' },
  { package: 'bison', evidence: 'bison' },
  { package: 'bc', evidence: 'bc' },
  { package: 'libelf-dev', evidence: '/usr/include/libelf.h' },
  { package: 'libssl-dev', evidence: '/usr/include/openssl/ssl.h' },
  { package: 'perl', evidence: 'perl' },
  { package: 'python3', evidence: 'python3' },
  { package: 'xz-utils', evidence: 'xz' },
  { package: 'patch', evidence: 'patch' },
  { package: 'git', evidence: 'git' },
  { package: 'ccache', evidence: 'ccache' },
];

/**
 * What boots a guest, and builds its kernel: all at once, so that who has to ask an administrator does
 * it once.
 */
export const guestNeeds: readonly HostNeed[] = [
  ...kernelNeeds,
  { package: 'qemu-system-x86', evidence: 'qemu-system-x86_64' },
  { package: 'mmdebstrap', evidence: 'mmdebstrap' },
  {
    package: 'debian-archive-keyring',
    evidence: '/usr/share/keyrings/debian-archive-trixie-stable.gpg',
  },
  { package: 'cpio', evidence: 'cpio' },
  // Others than root make the root file system in a user namespace.
  ...(process.getuid?.() === 0 ? [] : [{ package: 'uidmap', evidence: 'newuidmap' }]),
];

/** What looks for faults in RPAL's kernel code without running it. */
export const kernelCheckNeeds: readonly HostNeed[] = [
  ...kernelNeeds,
  { package: 'sparse', evidence: 'sparse' },
];

/** What searches the model of a call. */
export const modelNeeds: readonly HostNeed[] = [
  { package: 'spin', evidence: 'spin' },
  { package: 'gcc', evidence: 'gcc' },
  { package: 'libc6-dev', evidence: '/usr/include/stdlib.h' },
];

function isThere(need: HostNeed): boolean {
  if (need.evidence.startsWith('/')) return existsSync(need.evidence);
  const path = (process.env.PATH ?? '').split(delimiter);
  return path.some((directory) => existsSync(join(directory, need.evidence)));
}

/**
 * Makes sure that everything needed is installed: installs what is missing where this process may
 * (root on a Debian system), otherwise fails with the line to type.
 */
export async function ensureHostPackages(needs: readonly HostNeed[]): Promise<void> {
  const missing = needs.filter((need) => !isThere(need));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((need) => need.package))].sort();
  const line = `apt-get update && apt-get install --yes ${packages.join(' ')}`;
  if (!existsSync('/usr/bin/apt-get')) {
    throw new Failure(
      `Not found on this machine: ${missing.map((need) => need.evidence).join(', ')}.\n` +
        `On Debian and Ubuntu they are in ${packages.join(', ')}; install what your distribution ` +
        `calls them and run this command again.`,
    );
  }
  if (process.getuid?.() !== 0) {
    throw new Failure(
      `Some Debian packages are missing and only root can install them. Type\n\n` +
        `  sudo sh -c '${line}'\n\nand run this command again.`,
    );
  }
  await step(`Installing ${packages.join(', ')}`, () => installPackages(packages));
  const still = needs.filter((need) => !isThere(need));
  if (still.length > 0) {
    throw new Failure(
      `apt-get installed ${packages.join(', ')}, but these are still not there: ` +
        `${still.map((need) => need.evidence).join(', ')}. Install them by hand.`,
    );
  }
}

/** Installs Debian packages; the caller is root. */
export async function installPackages(packages: readonly string[]): Promise<void> {
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const advice = `To see it happen: apt-get update && apt-get install ${packages.join(' ')}`;
  // Another apt may be at work: wait for its lock instead of failing.
  const patience = ['-o', 'DPkg::Lock::Timeout=600'];
  await loggedCommand('apt-get', [...patience, 'update'], { log: 'apt', env, advice });
  await loggedCommand(
    'apt-get',
    [...patience, 'install', '--yes', '--no-install-recommends', ...packages],
    { log: 'apt', append: true, env, advice },
  );
}

/** Version that apt would install of a package, or undefined if apt does not know it. */
export async function candidateVersion(name: string): Promise<string | undefined> {
  const { stdout } = await execa('apt-cache', ['policy', name], { reject: false });
  const version = /^\s*Candidate: (\S+)/m.exec(stdout)?.[1];
  return version === undefined || version === '(none)' ? undefined : version;
}
