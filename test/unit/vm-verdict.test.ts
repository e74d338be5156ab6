import { describe, expect, it } from 'vitest';
import { failureOf, exitStatus, type GuestResult } from '../../vm/guest.js';
import { guestEnvironment } from '../../vm/guest-environment.js';
import { parseDeclaration } from '../declaration.js';
import { machineOfRun, nameOfRun, planGuestRuns } from '../guest-runs.js';
import { Tally } from '../tally.js';
import { judgeTap } from '../tap-verdict.js';
import { readVitestReport } from '../vitest-report.js';

const exited = (status: number, reports: string[] = []): GuestResult => ({
  outcome: { kind: 'exited', status },
  kernelLog: reports.join('\n'),
  reports,
});

describe('failureOf', () => {
  it('leaves the status to a command that ended well', () => {
    expect(failureOf(exited(0))).toBeUndefined();
    expect(failureOf(exited(3))).toBeUndefined();
  });

  it.each<[GuestResult, number]>([
    [exited(0, ['BUG: x']), exitStatus.kernelReport],
    [{ outcome: { kind: 'guest-died' }, kernelLog: '', reports: [] }, exitStatus.guestDied],
    [
      { outcome: { kind: 'timed-out', seconds: 3 }, kernelLog: '', reports: [] },
      exitStatus.timedOut,
    ],
    [{ outcome: { kind: 'not-started', why: 'x' }, kernelLog: '', reports: [] }, 127],
  ])('never calls %j a success', (result, status) => {
    expect(failureOf(result)?.status).toBe(status);
  });
});

describe('judgeTap', () => {
  const score = (output: string, result: GuestResult = exited(0)) => judgeTap(output, result).score;

  it('counts tests', () => {
    expect(score('1..3\nok 1 - a\nok 2 - b # SKIP no huge pages\nok 3\n')).toEqual({
      passed: 2,
      failed: 0,
      skipped: 1,
    });
    expect(score('ok 1\nnot ok 2 - b\n1..2\n', exited(1))).toEqual({
      passed: 1,
      failed: 1,
      skipped: 0,
    });
  });

  it.each<[string, string, GuestResult]>([
    ['no output', '', exited(0)],
    ['no plan', 'ok 1\n', exited(0)],
    ['too few tests', '1..2\nok 1\n', exited(0)],
    ['a bad exit status', '1..1\nok 1\n', exited(1)],
    ['a crash', '1..1\nok 1\n', exited(139)],
    ['a kernel report', '1..1\nok 1\n', exited(0, ['BUG: x'])],
    ['a bail-out', '1..1\nok 1\nBail out! no memory\n', exited(0)],
    ['a timeout', '1..1\nok 1\n', { ...exited(0), outcome: { kind: 'timed-out', seconds: 1 } }],
    ['a kernel report of a skipped program', '', exited(77, ['WARNING: x'])],
  ])('does not pass with %s', (_, output, result) => {
    const verdict = judgeTap(output, result);
    expect(verdict.score.failed).toBe(1);
    expect(verdict.reasons).not.toEqual([]);
  });

  it('knows a program that cannot run here', () => {
    expect(score('', exited(77))).toEqual({ passed: 0, failed: 0, skipped: 1 });
  });
});

describe('parseDeclaration', () => {
  it('has defaults', () => {
    expect(parseDeclaration('int main;')).toEqual({
      cpus: [1, 2],
      icount: false,
      la57: false,
      isolation: ['mpk'],
      append: [],
      debug: true,
      stock: false,
      timeout: 60,
    });
  });

  it('reads C and TypeScript', () => {
    expect(parseDeclaration('// x\n/* guest: cpus=2,4 debug=no timeout=5 */\n')).toEqual({
      cpus: [2, 4],
      icount: false,
      la57: false,
      isolation: ['mpk'],
      append: [],
      debug: false,
      stock: false,
      timeout: 5,
    });
    expect(parseDeclaration('// guest: icount\n')).toMatchObject({
      cpus: [1],
      icount: true,
      debug: false,
    });
    expect(parseDeclaration('// guest: isolation=mpk,none\n').isolation).toEqual(['mpk', 'none']);
    expect(parseDeclaration('// guest: append=pti=on,nofsgsbase\n').append).toEqual([
      'pti=on',
      'nofsgsbase',
    ]);
    expect(parseDeclaration('// guest: icount debug\n').debug).toBe(true);
    expect(parseDeclaration('// guest: stock\n').stock).toBe(true);
    expect(parseDeclaration('// guest: la57\n').la57).toBe(true);
  });

  it.each([
    'cpu=2',
    'cpus=two',
    'cpus=0',
    'icount cpus=2',
    'isolation=some',
    'append',
    'append=pti=on,',
    'timeout=never',
    'fast',
  ])('refuses %s', (words) => {
    expect(() => parseDeclaration(`/* guest: ${words} */`)).toThrow();
  });
});

describe('planGuestRuns', () => {
  const test = (name: string, words: string) => ({
    name,
    declaration: parseDeclaration(`/* guest: ${words} */`),
  });
  const plan = (tests: ReturnType<typeof test>[], narrowing = {}) =>
    planGuestRuns(tests, narrowing).map((run) => [
      run.kernel,
      run.cpus,
      run.icount,
      run.tests.map(({ name }) => name).join(),
    ]);

  it('boots each kind of guest once', () => {
    expect(
      plan([
        test('a', ''),
        test('b', 'icount'),
        test('c', 'cpus=2 debug=no'),
        test('d', 'stock cpus=2'),
      ]),
    ).toEqual([
      ['normal', 1, false, 'a'],
      ['normal', 1, true, 'b'],
      ['normal', 2, false, 'a,c'],
      ['stock', 2, false, 'd'],
      ['debug', 2, false, 'a'],
    ]);
  });

  it('boots one more guest for each way to keep services apart', () => {
    const ways = 'keyless,none-keyless,none,mpk';
    const runs = planGuestRuns([test('a', `cpus=1 debug=no isolation=${ways}`)]);
    expect(runs.map(nameOfRun)).toEqual([
      'normal kernel, 1 CPU',
      'normal kernel, 1 CPU, isolation=none',
      'normal kernel, 1 CPU, isolation=keyless',
      'normal kernel, 1 CPU, isolation=none-keyless',
    ]);
    expect(runs.map((run) => machineOfRun(run).append)).toEqual([
      '',
      'rpal.isolation=none',
      'nopku',
      'nopku rpal.isolation=none',
    ]);
  });

  it('boots other guests for tests that want 5 levels of page tables', () => {
    const runs = planGuestRuns([test('a', 'cpus=1 la57'), test('b', 'cpus=1')]);
    expect(runs.map((run) => [nameOfRun(run), machineOfRun(run).la57])).toEqual([
      ['normal kernel, 1 CPU', false],
      ['normal kernel, 1 CPU, 5 levels', true],
      ['debug kernel, 1 CPU', false],
      ['debug kernel, 1 CPU, 5 levels', true],
    ]);
  });

  it('boots one more guest for each parameter of the kernel', () => {
    const runs = planGuestRuns([
      test('a', 'cpus=1,2 isolation=none append=pti=on,nofsgsbase'),
      test('b', 'cpus=2 debug=no append=pti=on'),
    ]);
    expect(runs.map((run) => [nameOfRun(run), machineOfRun(run).append])).toEqual([
      ['normal kernel, 1 CPU, isolation=none', 'rpal.isolation=none'],
      ['normal kernel, 2 CPUs', ''],
      ['normal kernel, 2 CPUs, pti=on', 'pti=on'],
      ['normal kernel, 2 CPUs, nofsgsbase', 'nofsgsbase'],
      ['normal kernel, 2 CPUs, isolation=none', 'rpal.isolation=none'],
      ['debug kernel, 2 CPUs, isolation=none', 'rpal.isolation=none'],
    ]);
    expect(runs[2]?.tests.map(({ name }) => name)).toEqual(['a', 'b']);
  });

  it('can be narrowed', () => {
    expect(plan([test('a', '')], { cpus: 1 })).toEqual([['normal', 1, false, 'a']]);
    expect(plan([test('a', '')], { kernel: 'debug' })).toEqual([['debug', 2, false, 'a']]);
  });
});

describe('Tally', () => {
  it('ends with one line and is only content if something passed', () => {
    const tally = new Tally();
    expect(tally.ok).toBe(false);
    tally.add({ passed: 2, failed: 0, skipped: 0 });
    expect([tally.line, tally.ok]).toEqual(['2 passed, 0 failed', true]);
    tally.add({ passed: 0, failed: 1, skipped: 3 });
    expect([tally.line, tally.ok]).toEqual(['2 passed, 1 failed, 3 skipped', false]);
  });
});

describe('readVitestReport', () => {
  const report = (more: object): string =>
    JSON.stringify({
      numPassedTests: 1,
      numFailedTests: 0,
      numPendingTests: 1,
      numTodoTests: 0,
      success: true,
      testResults: [],
      ...more,
    });

  it('counts', () => {
    expect(readVitestReport(report({}), 'here').score).toEqual({
      passed: 1,
      failed: 0,
      skipped: 1,
    });
  });

  it('counts a file that cannot be loaded as a failure', () => {
    const file = { name: 'x.test.ts', status: 'failed', message: 'syntax', assertionResults: [] };
    const { score, failures } = readVitestReport(
      report({ success: false, testResults: [file] }),
      'here',
    );
    expect(score.failed).toBe(1);
    expect(failures[0]).toMatchObject({ what: 'x.test.ts', details: 'syntax' });
  });

  it('counts an error outside of the tests as a failure', () => {
    expect(readVitestReport(report({ success: false }), 'here').score.failed).toBe(1);
  });
});

describe('guestEnvironment', () => {
  it('passes on what means the same in the guest, and nothing else', () => {
    expect(guestEnvironment({ CI: 'true', PATH: '/host/bin', SECRET: 'x' }, { A: 'b' })).toEqual({
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      USER: 'root',
      SHELL: '/bin/bash',
      LANG: 'C.UTF-8',
      TERM: 'dumb',
      CI: 'true',
      A: 'b',
    });
  });
});
