// guest: stock cpus=2
/** On a kernel without RPAL the same programs work, and the reason is readable. */
import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { Caller, freshAddress, startService } from './program.js';

it('falls back to the socket', async () => {
  const address = freshAddress();
  const { service, ready } = await startService(address, 'plain');
  expect(ready).toMatch(/^ready unix .*no \/dev\/rpal/);
  await using stopped = service;
  expect(stopped.pid).toBeGreaterThan(0);
  await using caller = new Caller(address, 'plain');
  const seen = await caller.call<{ wrong: number[]; longRight: boolean }>('basics');
  expect(seen.transport).toBe('unix');
  expect(seen.fallbackReason).toMatch(/this kernel has no \/dev\/rpal/);
  expect(seen.result).toMatchObject({ wrong: [], longRight: true });
});

it('rpal doctor and rpal run say what is missing', () => {
  const rpal = (...parameters: string[]): ReturnType<typeof spawnSync> =>
    spawnSync('bin/rpal', parameters);
  const doctor = rpal('doctor');
  expect(doctor.status).toBe(1);
  expect(doctor.stdout.toString()).toMatch(/✗ kernel .*no \/dev\/rpal\n.*kernel-patches/);
  const run = rpal('run', '--', 'node', '-e', '0');
  expect(run.status).toBe(1);
  expect(run.stderr.toString()).toMatch(/this kernel has no \/dev\/rpal/);
});
