import { join } from 'node:path';
import { execa } from 'execa';
import { defaultGuest, failureOf, Guest } from './guest.js';
import { guestEnvironment } from './guest-environment.js';
import { Failure } from './failure.js';
import { loggedCommand } from './logged-command.js';
import { repository } from './repository.js';
import { rootFileSystem } from './rootfs.js';

/**
 * Enters the root file system with the repository mounted at its own path, as the guest does, and
 * runs "$@" there. $1 is the root, $2 the repository. All mounts are private and vanish with it;
 * an overlay keeps the cached root file system as it is.
 */
const enter = `
set -eu
root=$1 repository=$2
shift 2
stage=/tmp
mount -t tmpfs -o mode=0755 tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -c -t overlay overlay "$stage/root" \\
  -o "lowerdir=/proc/self/fd/9,upperdir=$stage/upper,workdir=$stage/work"
mount --rbind /dev "$stage/root/dev"
mount -t proc proc "$stage/root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$stage/root/tmp"
# Last: it may be in one of those.
mkdir -p "$stage/root$repository"
mount -c --bind /proc/self/fd/8 "$stage/root$repository"
exec chroot "$stage/root" /bin/sh -c 'cd "$0" && exec "$@"' "$repository" "$@"
`;

/**
 * Runs a build command with the guest's own compiler, headers and libraries, in the repository. It
 * runs on the host's CPU where the host lets this process make namespaces, and in a guest, slower,
 * where it does not.
 */
export async function buildInRootFileSystem(argv: readonly string[], log: string): Promise<void> {
  const root = await rootFileSystem();
  if (await canUnshare()) {
    const [command = '', ...args] = inRootFileSystem(root, argv);
    await loggedCommand(command, args, {
      log,
      env: guestEnvironment(process.env),
      extendEnv: false,
    });
  } else {
    await buildInGuest(argv);
  }
}

/** The command that runs a command in a root file system, where `canUnshare`. */
export function inRootFileSystem(root: string, argv: readonly string[]): string[] {
  const directory = join(root, 'root');
  return ['unshare', ...unshareFlags(), 'sh', '-c', entering, 'sh', directory, repository, ...argv];
}

/** Paths that hide behind the new /tmp must still be reachable: they are opened before. */
const entering = `exec 9<"$1" 8<"$2"\n${enter}`;

function unshareFlags(): string[] {
  const namespaces = ['--mount', '--pid', '--fork', '--kill-child'];
  return process.getuid?.() === 0 ? namespaces : ['--map-root-user', ...namespaces];
}

/** Whether this process may make namespaces. Containers often have root but may not mount. */
export async function canUnshare(): Promise<boolean> {
  const probe = await execa(
    'unshare',
    [...unshareFlags(), 'mount', '-t', 'tmpfs', 'tmpfs', '/tmp'],
    {
      reject: false,
    },
  );
  return !probe.failed;
}

async function buildInGuest(argv: readonly string[]): Promise<void> {
  const guest = await Guest.boot({ ...defaultGuest, kernel: 'stock' });
  const output: Buffer[] = [];
  const collect = (bytes: Buffer) => output.push(bytes);
  try {
    const result = await guest.run(
      { argv, cwd: repository, env: guestEnvironment(process.env) },
      { onStdout: collect, onStderr: collect },
    );
    const failure = failureOf(result);
    if (failure === undefined && result.outcome.kind === 'exited' && result.outcome.status === 0) {
      return;
    }
    throw new Failure(
      `${Buffer.concat(output).toString()}\n${argv.join(' ')} failed in the guest` +
        (failure === undefined ? '.' : `: ${failure.message}`),
    );
  } finally {
    await guest.close();
  }
}
