import { describe, expect, it } from 'vitest';
import { planStress, suites, type Suite } from '../stress/suites.js';

const two: readonly Suite[] = [
  { name: 'one', program: 'one', about: '', weight: 1, cpus: [1, 2] },
  { name: 'two', program: 'two', about: '', weight: 3, cpus: [4], kernel: 'debug' },
];

const complete: Suite = {
  name: 'all',
  programs: ['three', 'four'],
  about: '',
  argv: ['--step', '1'],
  isolation: ['mpk', 'none'],
};

describe('planStress', () => {
  it('divides the time by weights, then among guests', () => {
    const runs = planStress(two, { minutes: 4, kernel: 'debug' });
    expect(runs.map(({ suite, cpus, seconds }) => [suite.name, cpus, seconds])).toEqual([
      ['one', 1, 30],
      ['one', 2, 30],
      ['two', 4, 180],
    ]);
  });

  it('gives all of the time to what is left', () => {
    const runs = planStress(two, { minutes: 1, kernel: 'normal', cpus: 3 });
    expect(runs.map(({ suite, cpus, seconds }) => [suite.name, cpus, seconds])).toEqual([
      ['one', 3, 60],
    ]);
  });

  it('has nothing for a name that is not there on this kernel', () => {
    expect(planStress(two, { minutes: 1, kernel: 'normal', only: 'two' })).toEqual([]);
  });

  it('runs what has an end only if it is asked for, and then to its end', () => {
    const all = [...two, complete];
    const wanted = { minutes: 4, kernel: 'debug' };
    expect(planStress(all, wanted)).toEqual(planStress(two, wanted));
    const runs = planStress(all, { ...wanted, only: 'all' });
    expect(runs.map(({ program, isolation }) => [program, isolation])).toEqual([
      ['three', 'mpk'],
      ['three', 'none'],
      ['four', 'mpk'],
      ['four', 'none'],
    ]);
    for (const run of runs) {
      expect(run).toMatchObject({ suite: complete, cpus: 1, icount: true });
      expect(run.seconds).toBeUndefined();
    }
  });

  it('counts instructions on one CPU only', () => {
    expect(planStress([complete], { minutes: 1, kernel: 'normal', only: 'all', cpus: 2 })).toEqual(
      [],
    );
  });

  it('plans every suite once for each of its guests', () => {
    const runs = planStress(suites, { minutes: 60, kernel: 'debug' });
    const timed = suites.filter((suite) => 'cpus' in suite);
    expect(runs.length).toBe(timed.reduce((sum, { cpus }) => sum + cpus.length, 0));
    expect(new Set(suites.map(({ name }) => name)).size).toBe(suites.length);
  });
});
