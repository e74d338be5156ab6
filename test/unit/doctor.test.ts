import { expect, it } from 'vitest';
import { diagnose, type Finding, type Patient } from '../../lib/doctor.js';

const healthy: Patient = {
  cpuFlags: new Set(['pku', 'ospke', 'fsgsbase']),
  kernel: {
    abi: 1,
    caps: 7,
    id: 3,
    pkey: 4,
    key: 5n,
    slotStart: 0n,
    slotEnd: 0n,
    tickLimit: 10,
  },
  isolationNone: false,
  shim: '/shim',
  // PIE on Debian; the tests that need another kind are in elf.test.ts.
  program: '/bin/true',
  v8PointerSandbox: false,
};

function missing(patient: Partial<Patient>): Finding[] {
  return diagnose({ ...healthy, ...patient }).filter(({ verdict }) => verdict === 'missing');
}

it('finds nothing where nothing is missing', () => {
  expect(missing({})).toEqual([]);
});

it('misses no protection keys where the administrator has allowed services without', () => {
  expect(
    missing({
      cpuFlags: new Set(['fsgsbase']),
      kernel: { ...(healthy.kernel as object), caps: 0 } as never,
      isolationNone: true,
    }),
  ).toEqual([]);
});

it.each<[string, Partial<Patient>, RegExp, RegExp]>([
  ['an unpatched kernel', { kernel: -2 }, /no \/dev\/rpal/, /kernel-patches/],
  ['a closed device', { kernel: -13 }, /may not open/, /administrator/],
  ['another version', { kernel: -71 }, /another version/, /one release/],
  ['an addon that is not built', { kernel: 'it is not there' }, /not there/, /npm run build/],
  ['a shim that is not built', { shim: undefined }, /shim is not/, /npm run build/],
  ['no FSGSBASE', { cpuFlags: new Set(['pku', 'ospke']) }, /fsgsbase is not set/, /nofsgsbase/],
  ['a V8 with a sandbox', { v8PointerSandbox: true }, /1 TiB/, /without the V8 sandbox/],
  [
    'a CPU without MPK',
    {
      cpuFlags: new Set(['fsgsbase']),
      kernel: { ...(healthy.kernel as object), caps: 6 } as never,
    },
    /CPU has none/,
    /Skylake/,
  ],
])('names %s and what to do', (_, patient, found, advice) => {
  const findings = missing(patient);
  expect(findings).toHaveLength(1);
  expect(findings[0]?.found).toMatch(found);
  expect(findings[0]?.advice).toMatch(advice);
});
