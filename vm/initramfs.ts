import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { cached } from './cache.js';
import { contentKey, hashFile } from './content-hash.js';
import { ensureHostPackages, guestNeeds } from './host-packages.js';
import { loggedCommand } from './logged-command.js';
import { waitingFor } from './progress.js';
import { inRepository } from './repository.js';

/** The archive that holds the guest's first process (vm/init.c), and nothing else. */
export async function initramfs(): Promise<string> {
  await ensureHostPackages(guestNeeds);
  const source = inRepository('vm', 'init.c');
  const flags = ['-std=gnu11', '-Wall', '-Wextra', '-O2', '-static'];
  const compiler = await execa('gcc', ['--version']);
  const key = contentKey({ source: await hashFile(source), flags, compiler: compiler.stdout });
  const entry = await cached('initramfs', key, waitingFor('the initramfs'), async (directory) => {
    await copyFile(source, join(directory, 'init.c'));
    await loggedCommand('gcc', [...flags, '-o', 'init', 'init.c'], {
      log: 'initramfs',
      cwd: directory,
    });
    await loggedCommand(
      'cpio',
      ['--create', '--format=newc', '--owner=0:0', '--file=initramfs.cpio'],
      { log: 'initramfs', append: true, cwd: directory, input: 'init\n' },
    );
  });
  return join(entry, 'initramfs.cpio');
}
