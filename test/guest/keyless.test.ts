// guest: cpus=1 isolation=keyless,none-keyless timeout=120
/**
 * A machine without protection keys: there are no services, calls travel over the socket, and it is
 * said why; unless the administrator has allowed services without isolation.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { Finding } from '../../lib/doctor.js';
import { Caller, freshAddress, startService } from './program.js';

const allowed = readFileSync('/proc/cmdline', 'utf8').includes('rpal.isolation=none');

interface Basics {
  wrong: number[];
  longRight: boolean;
}

function rpal(...parameters: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync('bin/rpal', parameters, { encoding: 'utf8' });
}

/** What the doctor says is missing, and its exit status. */
function missing(...command: string[]): { status: number | null; names: string[]; text: string } {
  const { status, stdout } = rpal(...command);
  const findings = (JSON.parse(stdout) as Finding[]).filter(({ verdict }) => verdict === 'missing');
  return { status, names: findings.map(({ name }) => name), text: JSON.stringify(findings) };
}

it('is this machine', () => {
  expect(readFileSync('/proc/cpuinfo', 'utf8')).not.toMatch(/\bospke\b/);
});

if (allowed) {
  describe('where the administrator has allowed services without protection keys', () => {
    it('they call each other by RPAL', async () => {
      const address = freshAddress();
      const { service, ready } = await startService(address);
      await using stopped = service;
      expect(ready).toBe('ready rpal ');
      await using caller = new Caller(address);
      const { transport, fallbackReason, result } = await caller.call<Basics>('basics');
      expect({ transport, fallbackReason }).toEqual({ transport: 'rpal' });
      expect(result).toMatchObject({
        wrong: [],
        longRight: true,
        identity: { pid: stopped.pid },
      });
    });

    it('they are told that nothing keeps them apart', () => {
      const script = `import { capabilities } from 'rpal'; console.log(JSON.stringify(capabilities()));`;
      const { stdout } = rpal('run', '--', 'node', '--input-type=module', '-e', script);
      expect(JSON.parse(stdout)).toMatchObject({
        available: true,
        mpk: false,
        service: true,
        receive: true,
      });
    });

    it.each([
      ['of a service', ['run', '--', 'node', 'dist/lib/cli/rpal.js', 'doctor', '--json']],
      ['of any process', ['doctor', '--json']],
    ])('rpal doctor %s does not say that something is missing, as RPAL works', (_, command) => {
      const { status, names } = missing(...command);
      expect([status, names]).toEqual([0, []]);
    });
  });
} else {
  describe('where the administrator has not allowed services without protection keys', () => {
    it('rpal run says that there are none, and why', () => {
      const { status, stdout, stderr } = rpal('run', '--', 'node', '-p', '1');
      expect([status, stdout]).toEqual([1, '']);
      expect(stderr).toMatch(/EOPNOTSUPP.*machine lacks what RPAL needs \(see rpal doctor\)/);
    });

    it('calls travel over the socket', async () => {
      const address = freshAddress();
      const { service, ready } = await startService(address, 'plain');
      await using stopped = service;
      expect(stopped.pid).toBeGreaterThan(0);
      expect(ready).toMatch(/^ready unix .*no RPAL service/);
      await using caller = new Caller(address, 'plain');
      const { transport, fallbackReason, result } = await caller.call<Basics>('basics');
      expect(transport).toBe('unix');
      expect(fallbackReason).toMatch(/no RPAL service/);
      expect(result).toMatchObject({ wrong: [], longRight: true });
    });

    it('rpal doctor says that they are missing, and what to do', () => {
      const { status, names, text } = missing('doctor', '--json');
      expect([status, names]).toEqual([1, ['protection keys (MPK)']]);
      expect(text).toMatch(/kernel does not use them.*boot without nopku/);
    });
  });
}
