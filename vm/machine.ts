import type { Accelerator } from './accelerator.js';

/** The machine that QEMU emulates. */
export interface Machine {
  accelerator: Accelerator;
  bzImage: string;
  initramfs: string;
  rootFileSystem: string;
  /** The repository, or another directory that the guest sees in its place. */
  repository: string;
  /** Unix socket on which the host waits for the guest's control port. */
  controlSocket: string;
  /** File for the kernel log. */
  log: string;
  cpus: number;
  /** As QEMU takes it, for example 2G. */
  memory: string;
  /**
   * The clock counts guest instructions, of all CPUs together, which take turns: exact and
   * repeatable. A CPU's own instructions are only counted where it is the only one.
   */
  icount: boolean;
  /** Its page tables have 5 levels. */
  la57: boolean;
  /** Wait for a debugger on QEMU's default port. */
  gdb: boolean;
  /** More kernel parameters. */
  append: string;
}

/** In QEMU's options a comma ends a value; two are one. */
function value(text: string): string {
  return text.replaceAll(',', ',,');
}

/** Kernel parameters end at white space: other characters than these are written %XX. */
export function encodeBootPath(path: string): string {
  return [...Buffer.from(path)]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9/._+-]/.test(character)
        ? character
        : `%${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}

/** The kernel command line. */
export function kernelParameters(machine: Machine): string {
  return [
    'console=ttyS0',
    'ignore_loglevel',
    // The marks around commands must not be rationed.
    'printk.devkmsg=on',
    'panic=-1',
    'oops=panic',
    // Without it the kernel may distrust the emulated TSC, and reading the time becomes a system
    // call: then no event loop can be free of them.
    'tsc=reliable',
    // It waits 10 ticks of its own clock for interrupts, and panics without: on a busy host QEMU has
    // not had a turn until then. A clock that counts instructions waits for QEMU.
    ...(machine.icount ? [] : ['no_timer_check']),
    'random.trust_cpu=on',
    ...(machine.gdb ? ['nokaslr'] : []),
    `rpal.repository=${encodeBootPath(machine.repository)}`,
    ...(machine.append === '' ? [] : [machine.append]),
  ].join(' ');
}

/**
 * How much translated code QEMU keeps; then it forgets all of it. A page that many services have run at
 * addresses of their own has a translation for each. Once the page is used for data, QEMU goes through
 * all of them at every store into it: with the 1 GiB that QEMU takes by itself, guests stood still for
 * minutes after hundreds of services had come and gone, and their kernels reported RCU stalls.
 */
const translatedMiB = 128;

/**
 * Arguments for qemu-system-x86_64. The kernel log goes to a file: QEMU writes it byte by byte, and
 * drops bytes when a pipe or socket is full (a Unix socket is after 278 of them).
 */
export function qemuArguments(machine: Machine): string[] {
  const kvm = machine.accelerator === 'kvm';
  const p9 = (tag: string, path: string, more: string): string[] => [
    '-fsdev',
    `local,id=${tag},path=${value(path)},security_model=none,multidevs=remap${more}`,
    '-device',
    `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`,
  ];
  return [
    '-nodefaults',
    '-no-user-config',
    '-display',
    'none',
    '-machine',
    'q35',
    '-accel',
    kvm ? 'kvm' : `tcg,thread=${machine.icount ? 'single' : 'multi'},tb-size=${translatedMiB}`,
    '-cpu',
    `${kvm ? 'host' : 'max'},${machine.la57 ? '+' : '-'}la57`,
    '-smp',
    String(machine.cpus),
    '-m',
    machine.memory,
    // A kernel that panics reboots (panic=-1), and a reboot ends QEMU.
    '-no-reboot',
    '-chardev',
    `file,id=log,path=${value(machine.log)}`,
    '-serial',
    'chardev:log',
    '-chardev',
    `socket,id=control,path=${value(machine.controlSocket)}`,
    '-device',
    'virtio-serial-pci',
    '-device',
    'virtserialport,chardev=control,name=rpal.control',
    '-device',
    'virtio-rng-pci',
    ...p9('root', machine.rootFileSystem, ',readonly=on'),
    ...p9('repository', machine.repository, ''),
    ...(machine.icount ? ['-icount', 'shift=0,sleep=off'] : []),
    ...(machine.gdb ? ['-s', '-S'] : []),
    '-kernel',
    machine.bzImage,
    '-initrd',
    machine.initramfs,
    '-append',
    kernelParameters(machine),
  ];
}
