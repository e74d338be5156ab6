import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { buildCommand, type KernelInfo, loadAddon, shimPath } from './addon.js';
import { programKind } from './elf.js';
import { errnoName, messageOf } from './errors.js';

/** One thing that RPAL needs, and what was found. */
export interface Finding {
  /** What was looked at. */
  name: string;
  /** 'missing': RPAL cannot work. 'note': it works, and there is something to know. */
  verdict: 'ok' | 'missing' | 'note';
  /** What was found. */
  found: string;
  /** What to do about it. */
  advice?: string;
}

/** What the doctor looks at; other than the defaults only in tests. */
export interface Patient {
  cpuFlags: ReadonlySet<string>;
  /** The addon's answer about the kernel; a text: the addon cannot be loaded. */
  kernel: KernelInfo | number | string;
  /** The administrator allows services without protection keys. */
  isolationNone: boolean;
  shim: string | undefined;
  program: string;
  v8PointerSandbox: boolean;
}

/** One sentence for people whose Node.js cannot serve. */
const fixedAddressSentence =
  'it is linked to a fixed address (ET_EXEC, as the official Node.js binaries are), so its data lies outside of the memory that RPAL shares, and it can call but not serve; use a position-independent build, for example the nodejs package of Debian';

/** Capability bits of the kernel (linux/rpal.h). */
const Cap = { mpk: 1, service: 2, receive: 4 } as const;

/** Looks at this machine and process. */
export function examine(): Patient {
  const addon = loadAddon();
  const variables = process.config.variables as unknown as Record<string, unknown>;
  return {
    cpuFlags: readCpuFlags(),
    kernel: typeof addon === 'string' ? addon : addon.probe(),
    isolationNone: /(^|\s)rpal\.isolation=none(\s|$)/.test(textOf('/proc/cmdline')),
    shim: typeof addon === 'string' ? undefined : shimPath(),
    program: process.execPath,
    v8PointerSandbox: variables.v8_enable_sandbox === 1,
  };
}

/** Says what is missing for RPAL, and what to do. */
export function diagnose(patient: Patient): Finding[] {
  return [
    addonFinding(patient),
    kernelFinding(patient.kernel),
    mpkFinding(patient),
    flagFinding(patient.cpuFlags, 'fsgsbase', 'FSGSBASE', 'user programs may change FS base'),
    programFinding(patient.program),
    serviceFinding(patient.kernel),
    webAssemblyFinding(patient.v8PointerSandbox),
  ];
}

function readCpuFlags(): ReadonlySet<string> {
  const line = /^flags\s*:(.*)$/m.exec(textOf('/proc/cpuinfo'));
  return new Set(line?.[1]?.trim().split(/\s+/));
}

/** The text of a file that need not be there. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function addonFinding({ kernel, shim }: Patient): Finding {
  const name = 'native addon';
  if (typeof kernel === 'string') {
    return { name, verdict: 'missing', found: kernel, advice: `build it: ${buildCommand()}` };
  }
  if (shim === undefined) {
    return {
      name,
      verdict: 'missing',
      found: 'the addon is there, its epoll shim is not',
      advice: `build both: ${buildCommand()}`,
    };
  }
  return { name, verdict: 'ok', found: 'addon and epoll shim are built' };
}

function kernelFinding(kernel: Patient['kernel']): Finding {
  const name = 'kernel';
  if (typeof kernel === 'object') {
    return { name, verdict: 'ok', found: `${release()}, RPAL ABI ${kernel.abi}` };
  }
  const version = release();
  if (typeof kernel === 'string') {
    return { name, verdict: 'note', found: `${version}; without the addon nothing else is known` };
  }
  switch (errnoName(kernel)) {
    case 'ENOENT':
      return {
        name,
        verdict: 'missing',
        found: `${version} has no /dev/rpal`,
        advice:
          'boot a kernel with the patches of kernel-patches/ (Linux 6.12): npm run kernel -- deb makes packages; until then calls travel over Unix sockets',
      };
    case 'EACCES':
      return {
        name,
        verdict: 'missing',
        found: `${version} has RPAL, but this user may not open /dev/rpal`,
        advice: 'let the administrator allow it: chmod or a udev rule for /dev/rpal',
      };
    case 'EPROTO':
      return {
        name,
        verdict: 'missing',
        found: `${version} has another version of RPAL than this package`,
        advice: 'install the kernel and the package of one release',
      };
    default:
      return { name, verdict: 'missing', found: `/dev/rpal does not work: ${errnoName(kernel)}` };
  }
}

function mpkFinding({ cpuFlags, kernel, isolationNone }: Patient): Finding {
  const name = 'protection keys (MPK)';
  if (typeof kernel === 'object' && kernel.caps & Cap.mpk) {
    return { name, verdict: 'ok', found: 'used by the kernel' };
  }
  if (typeof kernel === 'object' && (isolationNone || cpuFlags.has('ospke'))) {
    return {
      name,
      verdict: 'note',
      found: 'RPAL runs without (rpal.isolation=none)',
      advice: 'remove the kernel parameter if peers shall not see each other by accident',
    };
  }
  if (cpuFlags.has('ospke')) {
    return { name, verdict: 'ok', found: 'the CPU has them and the kernel uses them' };
  }
  if (cpuFlags.has('pku')) {
    return {
      name,
      verdict: 'missing',
      found: 'the CPU has them, the kernel does not use them',
      advice: 'build it with CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS=y, boot without nopku',
    };
  }
  return {
    name,
    verdict: 'missing',
    found: 'this CPU has none (no pku flag)',
    advice:
      'use an Intel server since Skylake-SP or AMD since Zen 3; in a virtual machine pass the flag through (QEMU: -cpu host or max)',
  };
}

function flagFinding(
  flags: ReadonlySet<string>,
  flag: string,
  name: string,
  meaning: string,
): Finding {
  return flags.has(flag)
    ? { name, verdict: 'ok', found: meaning }
    : {
        name,
        verdict: 'missing',
        found: `the flag ${flag} is not set`,
        advice: 'use a CPU since Ivy Bridge or Zen 2 and boot without nofsgsbase',
      };
}

function programFinding(program: string): Finding {
  const name = 'Node.js binary';
  let kind;
  try {
    kind = programKind(program);
  } catch (error) {
    return { name, verdict: 'note', found: messageOf(error) };
  }
  return kind === 'pie'
    ? { name, verdict: 'ok', found: `${program} is position independent: it can call and serve` }
    : { name, verdict: 'missing', found: `${program}: ${fixedAddressSentence}` };
}

function serviceFinding(kernel: Patient['kernel']): Finding {
  const name = 'this process';
  if (typeof kernel === 'object' && kernel.caps & Cap.service) {
    return { name, verdict: 'ok', found: `service ${kernel.id}, protection key ${kernel.pkey}` };
  }
  return {
    name,
    verdict: 'note',
    found: 'no service, so it uses Unix sockets',
    advice: 'start programs that shall use RPAL with: rpal run -- node app.js',
  };
}

function webAssemblyFinding(sandbox: boolean): Finding {
  const name = 'WebAssembly';
  return sandbox
    ? {
        name,
        verdict: 'missing',
        found: 'this V8 reserves 1 TiB for its sandbox, and a service has 512 GiB',
        advice: 'use a Node.js built without the V8 sandbox',
      }
    : {
        name,
        verdict: 'note',
        found:
          'V8 reserves about 10 GiB of addresses for each memory, so a service (512 GiB) can have 48 at a time',
      };
}
