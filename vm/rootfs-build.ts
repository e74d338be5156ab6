import { join } from 'node:path';
import { execa } from 'execa';
import { defaultGuest, failureOf, Guest } from './guest.js';
import { guestEnvironment } from './guest-environment.js';
import { Failure } from './failure.js';
import { loggedCommand } from './logged-command.js';
import { repository } from './repository.js';
import { rootFileSystem } from './rootfs.js';

/**
 * Enters the root file system with a directory mounted at its own path, as the guest has the
 * repository, and runs "$@" there. $1 is the root, $2 the directory. All mounts are private and vanish with it;
 * an overlay keeps the cached root file system as it is.
 */
const enter = `
set -eu
root=$1 directory=$2
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
mkdir -p "$stage/root$directory"
mount -c --bind /proc/self/fd/8 "$stage/root$directory"
exec chroot "$stage/root" /bin/sh -c 'cd "$0" && exec "$@"' "$directory" "$@"
`;

/** Where a build runs that is not one of the repository. */
export interface BuildPlace {
  root: string;
  /** All that the build sees of the host, and its working directory. */
  directory: string;
}

/**
 * Runs a build command with the guest's own compiler, headers and libraries, in the repository or
 * another place. It runs on the host's CPU where the host lets this process make namespaces, and in
 * a guest, slower, where it does not.
 */
export async function buildInRootFileSystem(
  argv: readonly string[],
  log: string,
  place?: BuildPlace,
): Promise<void> {
  const { root, directory } = place ?? { root: await rootFileSystem(), directory: repository };
  if (await canUnshare()) {
    const [command = '', ...args] = inRootFileSystem(root, argv, directory);
    await loggedCommand(command, args, {
      log,
      env: guestEnvironment(process.env),
      extendEnv: false,
    });
  } else {
    await buildInGuest(argv, { root, directory });
  }
}

/** The command that runs a command in a root file system, where `canUnshare`. */
export function inRootFileSystem(
  root: string,
  argv: readonly string[],
  directory = repository,
): string[] {
  const words = ['sh', '-c', entering, 'sh', join(root, 'root'), directory, ...argv];
  return ['unshare', ...unshareFlags(), ...words];
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

async function buildInGuest(
  argv: readonly string[],
  { root, directory }: BuildPlace,
): Promise<void> {
  const guest = await Guest.boot({ ...defaultGuest, kernel: 'stock', root, shared: directory });
  const output: Buffer[] = [];
  const collect = (bytes: Buffer) => output.push(bytes);
  try {
    const result = await guest.run(
      { argv, cwd: directory, env: guestEnvironment(process.env) },
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
