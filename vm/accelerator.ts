import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';

/** How QEMU runs the guest's instructions. */
export type Accelerator = 'kvm' | 'tcg';

/**
 * Whether KVM can run RPAL guests on a host with this /proc/cpuinfo. The device alone proves
 * nothing: in some sandboxes it opens, and guests then hang in their first instructions. And
 * without protection keys on the host the guest has none either; QEMU's own emulation has them.
 */
export function canUseKvm(cpuinfo: string): boolean {
  const line = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1] ?? '';
  const flags = new Set(line.trim().split(/\s+/));
  return (flags.has('vmx') || flags.has('svm')) && flags.has('pku');
}

/** The accelerator for this machine; RPAL_ACCELERATOR=tcg or kvm overrides the choice. */
export async function chooseAccelerator(): Promise<Accelerator> {
  const wish = process.env.RPAL_ACCELERATOR;
  if (wish === 'kvm' || wish === 'tcg') return wish;
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
    return canUseKvm(await readFile('/proc/cpuinfo', 'utf8')) ? 'kvm' : 'tcg';
  } catch {
    return 'tcg';
  }
}
