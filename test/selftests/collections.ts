/** One directory of tools/testing/selftests, and how its programs run here. */
export interface Collection {
  name: string;
  /** What of RPAL's patches it is about. */
  about: string;
  /** Shell commands before each program: what earlier ones left must not matter. */
  before?: string;
  /** Programs that run with these arguments, one run each; others run once without any. */
  ways?: Readonly<Record<string, readonly string[]>>;
  /** Programs that may take longer than others. */
  seconds?: Readonly<Record<string, number>>;
  /** More shell commands before one program. */
  beforeOne?: Readonly<Record<string, string>>;
  /** Commands that run a program. */
  through?: Readonly<Record<string, readonly string[]>>;
  /** Executable files that do not run, and why. */
  leftOut?: Readonly<Record<string, string>>;
}

/** The same reason for several files. */
function because(reason: string, ...files: readonly string[]): Record<string, string> {
  return Object.fromEntries(files.map((file) => [file, reason]));
}

const benchmark = 'a benchmark: its results are times';

/** As run_param_test.sh has them, but a tenth of the repetitions. */
const rseqWays = ['s', 'l', 'b', 'b -M', 'm', 'm -M', 'i', 'r'].map(
  (test) => `-T ${test} -r 100 -t 12`,
);
const rseqInterrupted = ['l', 'b', 'm', 'i'].flatMap((test) =>
  ['-7 -1 -m 2 -y', '-8 -1 -m 2 -k', '-9 -1 -m 4 -s 1'].map(
    (injected) => `-T ${test} -r 20 -t 12 ${injected}`,
  ),
);

/** The collections, in the order in which they run. Linux 6.12 has none called signal. */
export const collections: readonly Collection[] = [
  {
    name: 'mm',
    about: 'mmap, mremap, protection keys, page faults, user faults, pinned pages',
    // Half of them want huge pages: 256 MiB, as run_vmtests.sh reserves them.
    before:
      'echo 0 >/proc/sys/vm/overcommit_memory; echo 3 >/proc/sys/vm/drop_caches; ' +
      'echo 1 >/proc/sys/vm/compact_memory; echo 128 >/proc/sys/vm/nr_hugepages',
    beforeOne: {
      compaction_test: 'echo 0 >/proc/sys/vm/nr_hugepages',
      hugetlb_madv_vs_map: 'echo 1 >/proc/sys/vm/nr_hugepages',
      virtual_address_range: 'echo 1 >/proc/sys/vm/overcommit_memory',
    },
    through: {
      'on-fault-limit': ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'],
      // What its memset() filled on one CPU stays in that CPU's batch of new pages for as long as nothing
      // there drains it, and its madvise() drains only that of its own CPU: moved in between, it fails.
      droppable: ['taskset', '--cpu-list', '0'],
    },
    ways: {
      gup_test: ['-u', '-a', '-ct -F 0x1 0 19 0x1000'],
      khugepaged: ['', '-s 2'],
      ksm_tests: [
        // Not -H and -P: they measure times.
        '-M -p 10',
        '-U',
        '-Z -p 10 -z 0',
        '-Z -p 10 -z 1',
        '-N -m 1',
        '-N -m 0',
      ],
      'transhuge-stress': ['-d 20'],
      'uffd-stress': [
        'anon 20 16',
        'hugetlb 128 32',
        'hugetlb-private 128 32',
        'shmem 20 16',
        'shmem-private 20 16',
      ],
    },
    seconds: {
      compaction_test: 300,
      khugepaged: 300,
      ksm_functional_tests: 300,
      protection_keys_32: 400,
      protection_keys_64: 400,
      'uffd-unit-tests': 400,
    },
    leftOut: {
      ...because(
        'it makes pages of the machine unusable, and needs MEMORY_FAILURE',
        'hugetlb-read-hwpoison',
        'hugetlb-soft-offline',
      ),
      ...because(
        'it needs a module of the kernel for tests, and this kernel has none',
        'hmm-tests',
        'test_hmm.sh',
        'test_vmalloc.sh',
      ),
      hugetlb_fault_after_madv: 'minutes with an emulated CPU',
      ...because(
        'it needs the control group of huge pages',
        'charge_reserved_hugetlb.sh',
        'hugetlb_reparenting_test.sh',
      ),
      ...because(
        'a part of charge_reserved_hugetlb.sh',
        'write_hugetlb_memory.sh',
        'write_to_hugetlbfs',
      ),
      'run_vmtests.sh': 'it runs the programs beside it',
      'va_high_addr_switch.sh': 'it runs the program beside it',
    },
  },
  {
    name: 'x86',
    about: 'entry, signal frames, FS and GS bases, vDSO, 32-bit programs',
    leftOut: {
      amx_64: 'it needs AMX',
      ...because(
        'an emulated far return reads the stack as the kernel: SMAP, and the guest dies',
        'sysret_ss_attrs_64',
        'test_syscall_vdso_32',
      ),
    },
  },
  {
    name: 'rseq',
    about: 'restartable sequences, which a borrowed context must not have',
    ways: {
      param_test: [...rseqWays, ...rseqInterrupted],
      param_test_compare_twice: rseqWays,
      param_test_mm_cid: [...rseqWays, ...rseqInterrupted],
      param_test_mm_cid_compare_twice: rseqWays,
    },
    leftOut: {
      ...because(benchmark, 'param_test_benchmark', 'param_test_mm_cid_benchmark'),
      'librseq.so': 'a library',
      'run_param_test.sh': 'hours with an emulated CPU; param_test runs in its ways, but shorter',
    },
  },
  {
    name: 'futex/functional',
    about: 'sleeping and waking; a parked receiver is neither',
    ways: {
      // As run.sh has them.
      futex_requeue_pi: [
        ...['', '-b', '-b -l', '-b -o', '-l', '-o'],
        ...['-b -l', '-l', '-b', '', '-b -o'].flatMap((way) =>
          [5000, 500000].map((ns) => `${way} -t ${ns}`.trim()),
        ),
        ...['-b -l -t 2000000000', '-l -t 2000000000'],
      ],
    },
    leftOut: { 'run.sh': 'it runs the programs beside it' },
  },
  { name: 'sigaltstack', about: 'signals on a stack of their own' },
  { name: 'ptrace', about: 'tracers, and what they see of a system call' },
  {
    name: 'filesystems/epoll',
    about: 'epoll, which a receiver waits in',
    seconds: { epoll_wakeup_test: 300 },
  },
  { name: 'membarrier', about: 'barriers on all CPUs that run an address space' },
  {
    name: 'seccomp',
    about: 'filters of system calls',
    seconds: { seccomp_bpf: 240 },
    leftOut: because(benchmark, 'seccomp_benchmark'),
  },
  // Not in the list of the issue, but of code that the patches change as well.
  {
    name: 'exec',
    about: 'exec, which makes a service',
    leftOut: because('a part of execveat', 'script'),
  },
  { name: 'clone3', about: 'fork' },
  {
    name: 'breakpoints',
    about: 'hardware breakpoints and single steps',
    leftOut: { step_after_suspend_test: 'it suspends the machine' },
  },
  {
    name: 'syscall_user_dispatch',
    about: 'the other user of work at the entry of system calls',
    leftOut: because(benchmark, 'sud_benchmark'),
  },
  { name: 'perf_events', about: 'perf events of tasks, and their signals' },
  {
    name: 'vDSO',
    about: 'the vDSO, which is elsewhere in a service',
    seconds: { vdso_test_chacha: 300 },
  },
  {
    name: 'timens',
    about: 'time namespaces, which change the vDSO',
    leftOut: because(benchmark, 'gettime_perf'),
  },
  { name: 'proc', about: 'what /proc tells of an address space' },
  {
    name: 'pidfd',
    about: 'processes by descriptor',
    seconds: { pidfd_poll_test: 300, pidfd_test: 300 },
  },
  { name: 'core', about: 'close_range and unshare' },
  {
    name: 'timers',
    about: 'CPU time of tasks',
    leftOut: {
      ...because(
        'minutes of measurements of the clock or of latencies',
        'inconsistency-check',
        'mqueue-lat',
        'nanosleep',
        'nsleep-lat',
        'raw_skew',
        'rtcpie',
        'set-timer-lat',
        'threadtest',
      ),
      ...because(
        'it changes the time of the machine, or suspends it',
        'adjtick',
        'alarmtimer-suspend',
        'change_skew',
        'clocksource-switch',
        'freq-step',
        'leap-a-day',
        'leapcrash',
        'set-2038',
        'set-tai',
        'set-tz',
        'skew_consistency',
        'valid-adjtimex',
      ),
    },
  },
];

/** How long a program may take if nothing else is said: much, on a machine that is busy. */
const usualSeconds = 120;

/** One run of one program. */
export interface SelftestProgram {
  collection: string;
  /** The program and its arguments. */
  name: string;
  argv: readonly string[];
  before: string;
  seconds: number;
}

/** The name of a run among those of all collections. */
export function nameOf({ collection, name }: SelftestProgram): string {
  return `${collection}/${name}`;
}

/** The runs of the executable files of a collection, in the order of their names. */
export function programsOf(collection: Collection, files: readonly string[]): SelftestProgram[] {
  const programs: SelftestProgram[] = [];
  for (const file of [...files].sort()) {
    if (collection.leftOut?.[file] !== undefined) continue;
    for (const way of collection.ways?.[file] ?? ['']) {
      const words = [`./${file}`, ...way.split(' ').filter((word) => word !== '')];
      programs.push({
        collection: collection.name,
        name: way === '' ? file : `${file} ${way}`,
        argv: [...(collection.through?.[file] ?? []), ...words],
        before: [collection.before, collection.beforeOne?.[file]]
          .filter((commands) => commands !== undefined)
          .join('; '),
        seconds: collection.seconds?.[file] ?? usualSeconds,
      });
    }
  }
  return programs;
}

/** Files that a collection speaks of and does not have: its lists are of another version. */
export function unknownFiles(collection: Collection, files: readonly string[]): string[] {
  const { ways, seconds, beforeOne, through, leftOut } = collection;
  const named = [ways, seconds, beforeOne, through, leftOut].flatMap((list) =>
    Object.keys(list ?? {}),
  );
  return [...new Set(named)].filter((file) => !files.includes(file)).sort();
}
