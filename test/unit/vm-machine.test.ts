import { describe, expect, it } from 'vitest';
import { canUseKvm } from '../../vm/accelerator.js';
import { encodeBootPath, kernelParameters, qemuArguments, type Machine } from '../../vm/machine.js';

const machine: Machine = {
  accelerator: 'tcg',
  bzImage: '/k/bzImage',
  initramfs: '/i/initramfs.cpio',
  rootFileSystem: '/r',
  repository: '/home/me/my, repo',
  controlSocket: '/tmp/x/control',
  log: '/tmp/x/kernel.log',
  cpus: 2,
  memory: '2G',
  icount: false,
  la57: false,
  gdb: false,
  append: '',
};

/** Values of an option that may be given several times. */
function values(args: string[], option: string): string[] {
  return args.filter((_, index) => args[index - 1] === option);
}

describe('qemuArguments', () => {
  it('never lets a path become an option', () => {
    const shares = values(qemuArguments(machine), '-fsdev');
    expect(shares[1]).toContain('path=/home/me/my,, repo,');
    expect(shares[0]).toContain('readonly=on');
    expect(shares[1]).not.toContain('readonly');
  });

  it('counts instructions on one thread', () => {
    const args = qemuArguments({ ...machine, icount: true, cpus: 1 });
    expect(values(args, '-icount')).toEqual(['shift=0,sleep=off']);
    expect(values(args, '-accel')).toEqual([expect.stringMatching(/^tcg,thread=single,/)]);
    expect(values(qemuArguments(machine), '-icount')).toEqual([]);
    expect(values(qemuArguments(machine), '-accel')).toEqual([
      expect.stringMatching(/^tcg,thread=multi,tb-size=\d+$/),
    ]);
  });

  it('has page tables with 5 levels only where they are asked for', () => {
    expect(values(qemuArguments(machine), '-cpu')).toEqual(['max,-la57']);
    expect(values(qemuArguments({ ...machine, la57: true }), '-cpu')).toEqual(['max,+la57']);
  });

  it('ends when the kernel panics', () => {
    expect(qemuArguments(machine)).toContain('-no-reboot');
    expect(kernelParameters(machine).split(' ')).toEqual(
      expect.arrayContaining(['panic=-1', 'oops=panic']),
    );
  });

  it('keeps the clock on the TSC', () => {
    expect(kernelParameters(machine).split(' ')).toContain('tsc=reliable');
  });

  it('boots on a host that is busy when the kernel looks for interrupts of the timer', () => {
    expect(kernelParameters({ ...machine, icount: false })).toContain('no_timer_check');
    expect(kernelParameters({ ...machine, icount: true })).not.toContain('no_timer_check');
  });
});

describe('encodeBootPath', () => {
  it('leaves no character that the kernel command line would split at', () => {
    expect(encodeBootPath('/a b/é%/"c"\n')).toBe('/a%20b/%c3%a9%25/%22c%22%0a');
    expect(encodeBootPath('/srv/rpal-1_2.3+4')).toBe('/srv/rpal-1_2.3+4');
  });
});

describe('canUseKvm', () => {
  const cpuinfo = (flags: string): string =>
    `processor\t: 0\nflags\t\t: fpu ${flags} sse\nbugs\t: x\n`;

  it('wants virtualisation and protection keys', () => {
    expect(canUseKvm(cpuinfo('vmx pku'))).toBe(true);
    expect(canUseKvm(cpuinfo('svm pku ospke'))).toBe(true);
    expect(canUseKvm(cpuinfo('vmx'))).toBe(false);
    expect(canUseKvm(cpuinfo('pku'))).toBe(false);
    expect(canUseKvm(cpuinfo('vmx_other xpku pku'))).toBe(false);
    expect(canUseKvm('')).toBe(false);
  });
});
