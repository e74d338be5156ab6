import { execa } from 'execa';
import { Failure } from './failure.js';

/** Names in the output of nm that belong to RPAL. */
export function rpalNames(nm: string): string[] {
  return nm
    .split('\n')
    .map((line) => line.split(' ').at(-1) ?? '')
    .filter((name) => /rpal/i.test(name));
}

/** Symbols of RPAL in a kernel; none, if that is built without it. */
export async function rpalSymbols(vmlinux: string): Promise<string[]> {
  const { stdout } = await execa('nm', [vmlinux]);
  // A file without any symbol would prove nothing.
  if (!/ start_kernel$/m.test(stdout)) throw new Failure(`${vmlinux} has no symbols.`);
  return rpalNames(stdout);
}
