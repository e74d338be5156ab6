import { describe, expect, it } from 'vitest';
import { collections, programsOf, unknownFiles } from '../selftests/collections.js';
import { compare, count } from '../selftests/differences.js';
import {
  describeEnd,
  normalise,
  readCases,
  verdictOfEnd,
  type End,
  type ProgramResult,
  type Verdict,
} from '../selftests/results.js';

const cases = (output: string): [string, Verdict][] => [...readCases(output)];

describe('readCases', () => {
  it('reads TAP as kselftest.h prints it', () => {
    expect(
      cases(
        [
          'TAP version 13',
          '1..6',
          'ok 1 mremap: 4KB',
          'not ok 2 mremap: 8KB',
          'ok 3 # SKIP no huge pages',
          'ok 4 # XFAIL known',
          'not ok 5 # error broken',
          'ok 6',
          '# Totals: pass:2 fail:1 xfail:1 xpass:0 skip:1 error:1',
        ].join('\n'),
      ),
    ).toEqual([
      ['mremap: 4KB', 'pass'],
      ['mremap: 8KB', 'fail'],
      ['no huge pages', 'skip'],
      ['known', 'xfail'],
      ['broken', 'fail'],
      ['test 6', 'pass'],
    ]);
  });

  it('reads TAP as the harness prints it', () => {
    expect(
      cases(
        [
          '#  RUN           global.kcmp ...',
          '#            OK  global.kcmp',
          'ok 1 global.kcmp',
          'ok 2 global.tsync # SKIP no tsync',
          '# global.bad: Test failed',
          'not ok 3 - global.bad',
        ].join('\n'),
      ),
    ).toEqual([
      ['global.kcmp', 'pass'],
      ['global.tsync', 'skip'],
      ['global.bad', 'fail'],
    ]);
  });

  it('reads older programs', () => {
    expect(
      cases(
        [
          '[RUN]\tset_thread_area',
          '[OK]\tLDT entry 0 is invalid',
          '[FAIL]\tLDT entry 1 is valid',
          '[RUN]\tfork',
          '\t[OK]\tLDT entry 0 is invalid',
          '[SKIP]\tno FSGSBASE',
          'Testing wp-fork on shmem... done',
          'Testing move on hugetlb... skipped [reason: feature missing]',
          'Check recovery.... \u001b[32mOK\u001b[0m',
          'test  3 PASSED (iteration 12)',
          'nothing of interest: passing by',
        ].join('\n'),
      ),
    ).toEqual([
      ['set_thread_area: LDT entry 0 is invalid', 'pass'],
      ['set_thread_area: LDT entry 1 is valid', 'fail'],
      ['fork: LDT entry 0 is invalid', 'pass'],
      ['fork: no FSGSBASE', 'skip'],
      ['fork: wp-fork on shmem', 'pass'],
      ['fork: move on hugetlb', 'skip'],
      ['fork: Check recovery', 'pass'],
      ['fork: test 3', 'pass'],
    ]);
  });

  it('counts names that come again, also when they only differ by chance', () => {
    expect(cases('ok 1 at 0x7f1234\nnot ok 2 at 0x7f5678\nok 3 other')).toEqual([
      ['at 0x#', 'pass'],
      ['at 0x# (2)', 'fail'],
      ['other', 'pass'],
    ]);
  });
});

describe('normalise', () => {
  it.each([
    ['mapped at 0x7fff12345678', 'mapped at 0x#'],
    ['gs base 00007f12a4563780', 'gs base #'],
    ['took 12.5 ms and 3s', 'took # ms and # s'],
    ['pid 123 and PID: 77', 'pid # and PID: #'],
    ['diff 1234567', 'diff #'],
    ['Extra pages 51 (1.5%), of 512 pages', 'Extra pages # (#%), of 512 pages'],
    [
      'facade at face value: 4KB of 512 pages, flag 0x10',
      'facade at face value: 4KB of 512 pages, flag 0x10',
    ],
  ])('%s', (text, wanted) => {
    expect(normalise(text)).toBe(wanted);
  });
});

const exited = (status: number): End => ({ kind: 'exited', status });
const result = (
  end: End,
  named: Record<string, Verdict> = {},
  reports: string[] = [],
): ProgramResult => ({ end, cases: new Map(Object.entries(named)), reports });
const program = (stock: ProgramResult[], other: ProgramResult[]) =>
  compare([{ name: 'mm/x', stock, other }]);

describe('compare', () => {
  const good = result(exited(0), { a: 'pass' });

  it('has nothing to say of what is equal', () => {
    const bad = result(exited(1), { a: 'fail', b: 'skip' });
    expect(program([good, good], [good])).toEqual({ differences: [], unsteady: [] });
    expect(program([bad, bad], [bad])).toEqual({ differences: [], unsteady: [] });
  });

  it('names a case that fails, one that is gone, another end', () => {
    const bad = result(exited(1), { a: 'fail' });
    expect(program([good, good], [bad]).differences.map(({ name }) => name)).toEqual([
      'mm/x',
      'mm/x: a',
    ]);
    expect(program([good, good], [result(exited(0))]).differences).toEqual([
      { name: 'mm/x: a', stock: ['pass', 'pass'], other: ['absent'] },
    ]);
    const killed = result({ kind: 'signal', signal: 11 }, { a: 'pass' });
    expect(program([good], [killed]).differences).toEqual([
      { name: 'mm/x', stock: ['exit status 0'], other: ['signal 11'] },
    ]);
  });

  it('names a case that is better than on stock: that is not equal', () => {
    const bad = result(exited(1), { a: 'fail' });
    expect(program([bad], [good]).differences.length).toBe(2);
  });

  it('tells apart what is not steady on stock itself', () => {
    const bad = result(exited(0), { a: 'fail' });
    expect(program([good, bad], [bad])).toEqual({
      differences: [],
      unsteady: [{ name: 'mm/x: a', stock: ['pass', 'fail'], other: ['fail'] }],
    });
    expect(program([good, bad], [result(exited(0), { a: 'skip' })]).differences.length).toBe(1);
    expect(program([good, good], [good, bad]).differences.length).toBe(1);
  });

  it('knows nothing of cases after a program was stopped', () => {
    const stopped = result({ kind: 'timed-out', seconds: 60 });
    expect(program([good], [stopped]).differences.map(({ name }) => name)).toEqual(['mm/x']);
    expect(program([stopped], [stopped])).toEqual({ differences: [], unsteady: [] });
    expect(program([stopped], [result({ kind: 'guest-died' })]).differences.length).toBe(1);
  });

  it('compares kernel reports, without what every kernel has of its own', () => {
    const warning = (text: string) => result(exited(0), {}, [`[    1.5] WARNING: ${text}`]);
    const one = warning('CPU: 0 PID: 77 at mm/mmap.c:12 unmap_region+0x12/0x340');
    const same = warning('CPU: 1 PID: 99 at mm/mmap.c:19 unmap_region+0x18/0x348');
    const another = warning('CPU: 1 PID: 99 at mm/gup.c:19 follow_page+0x18/0x348');
    expect(program([one], [same]).differences).toEqual([]);
    expect(program([one], [another]).differences.length).toBe(1);
    expect(program([result(exited(0))], [one]).differences.length).toBe(1);
  });
});

describe('count', () => {
  it.each<[ProgramResult, number[]]>([
    [result(exited(0), { a: 'pass', b: 'xfail', c: 'skip' }), [2, 0, 1]],
    [result(exited(0)), [1, 0, 0]],
    [result(exited(4)), [0, 0, 1]],
    [result(exited(1)), [0, 1, 0]],
    [result(exited(1), { a: 'fail' }), [0, 1, 0]],
    [result({ kind: 'signal', signal: 11 }, { a: 'pass' }), [1, 1, 0]],
    [result({ kind: 'timed-out', seconds: 60 }), [0, 1, 0]],
  ])('%j', (one, [pass, fail, skip]) => {
    expect(count(one)).toEqual({ pass, fail, skip });
  });
});

describe('ends', () => {
  it.each<[End, string, Verdict]>([
    [exited(0), 'exit status 0', 'pass'],
    [exited(4), 'exit status 4', 'skip'],
    [exited(2), 'exit status 2', 'fail'],
    [{ kind: 'signal', signal: 11 }, 'signal 11', 'fail'],
    [{ kind: 'guest-died' }, 'the guest died', 'fail'],
  ])('%j', (end, words, verdict) => {
    expect([describeEnd(end), verdictOfEnd(end)]).toEqual([words, verdict]);
  });
});

describe('programsOf', () => {
  const collection = {
    name: 'mm',
    about: '',
    before: 'reset',
    beforeOne: { two: 'more' },
    ways: { two: ['', '-a 1'] },
    seconds: { two: 240 },
    through: { one: ['nice'] },
    leftOut: { three: 'it takes a week' },
  };

  it('runs each in all its ways, but not what is left out', () => {
    expect(programsOf(collection, ['two', 'three', 'one'])).toEqual([
      {
        collection: 'mm',
        name: 'one',
        argv: ['nice', './one'],
        before: 'reset',
        seconds: 120,
      },
      { collection: 'mm', name: 'two', argv: ['./two'], before: 'reset; more', seconds: 240 },
      {
        collection: 'mm',
        name: 'two -a 1',
        argv: ['./two', '-a', '1'],
        before: 'reset; more',
        seconds: 240,
      },
    ]);
  });

  it('says which names mean nothing', () => {
    expect(unknownFiles(collection, ['two', 'four'])).toEqual(['one', 'three']);
  });

  it('has every collection once, and a reason for what is left out', () => {
    expect(new Set(collections.map(({ name }) => name)).size).toBe(collections.length);
    for (const { leftOut } of collections) {
      for (const reason of Object.values(leftOut ?? {})) expect(reason).not.toBe('');
    }
  });
});
