import { describe, expect, it } from 'vitest';
import { planStress, suites, type Suite } from '../stress/suites.js';

const two: readonly Suite[] = [
  { name: 'one', program: 'one', about: '', weight: 1, cpus: [1, 2] },
  { name: 'two', program: 'two', about: '', weight: 3, cpus: [4], kernel: 'debug' },
];

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

  it('plans every suite once for each of its guests', () => {
    const runs = planStress(suites, { minutes: 60, kernel: 'debug' });
    expect(runs.length).toBe(suites.reduce((sum, { cpus }) => sum + cpus.length, 0));
    expect(new Set(suites.map(({ name }) => name)).size).toBe(suites.length);
  });
});
