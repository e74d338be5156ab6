import { describe, expect, it } from 'vitest';
import { faultReports, hasPanicked, messageOf } from '../../vm/kernel-log.js';

describe('faultReports', () => {
  it.each([
    '[    1.234567] BUG: kernel NULL pointer dereference, address: 0000000000000008',
    '[    1.234567] BUG: KASAN: slab-use-after-free in rpal_release+0x1c/0x40',
    '[    1.234567][  T123] WARNING: CPU: 1 PID: 123 at rpal/loan.c:42 rpal_hand_back+0x10/0x20',
    '[    1.234567] WARNING: possible circular locking dependency detected',
    '[    1.234567] WARNING: suspicious RCU usage',
    '[   12.000000] INFO: task node:77 blocked for more than 60 seconds.',
    '[   12.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:',
    '[   12.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [node:12]',
    '[    3.000000] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]',
    '[    3.000000] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] PREEMPT SMP',
    '[    3.000000] kernel BUG at rpal/slot.c:10!',
    '[    3.000000] Kernel panic - not syncing: Fatal exception',
    '[    3.000000] refcount_t: underflow; use-after-free.',
    '[    3.000000] list_add corruption. next->prev should be prev',
    '[    3.000000] UBSAN: array-index-out-of-bounds in rpal/key.c:3:4',
    '[    3.000000] Call Trace:\r',
    'BUG: Bad page state in process node  pfn:12345',
  ])('notices %s', (line) => {
    expect(faultReports(`[    0.1] Linux version\n${line}\nmore\n`)).toEqual([line]);
  });

  it.each([
    '[    4.000000] traps: node[123] general protection fault ip:7f00 sp:7fff error:0 in libc.so',
    '[    4.000000] node[123]: segfault at 8 ip 00000 sp 00000 error 25 in node[0+1]',
    '[    4.000000] traps: crash[9] trap invalid opcode ip:401000 sp:7ffd error:0',
    '[    4.000000] Code: 0f 0b 48 89',
    '[    0.000000] Command line: console=ttyS0 oops=panic panic=-1',
    '[    0.000000] clocksource: tsc: mask: 0xffffffffffffffff max_cycles: 0x212735223b2',
    '[    5.000000] rpal-vm: begin #3 sh -c grep WARNING: log',
    '[    0.050000] rcu: Hierarchical RCU implementation.',
    '[    0.050000] debug: DEBUG_LOCKS_WARN_ON is a macro',
    'NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.',
    'NMI watchdog: Perf NMI watchdog permanently disabled',
  ])('does not mind %s', (line) => {
    expect(faultReports(`${line}\n`)).toEqual([]);
  });
});

describe('faultReports of a kernel out of memory', () => {
  const trace = [
    '[    2.7] exe invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0',
    '[    2.7] CPU: 0 UID: 0 PID: 46 Comm: exe Not tainted 6.12.117 #1',
    '[    2.7] Call Trace:',
    '[    2.7]  dump_header+0x3e/0x1c0',
  ];
  const group = '[    2.8] Memory cgroup stats for /owner:';
  const nobody = '[    2.9] Out of memory and no killable processes...';

  it('does not mind the limit of a cgroup', () => {
    expect(faultReports([...trace, group].join('\n'))).toEqual([]);
    expect(faultReports([...trace, group, nobody].join('\n'))).toEqual([]);
  });

  it('notices that the guest has no memory', () => {
    expect(faultReports([...trace, nobody].join('\n'))).toEqual([trace[2], nobody]);
    expect(faultReports([...trace, group, ...trace, nobody].join('\n'))).toEqual([
      trace[2],
      nobody,
    ]);
  });

  it('notices faults beside it', () => {
    const warning = '[    2.8] WARNING: CPU: 1 PID: 123 at rpal/loan.c:42';
    const log = [...trace, warning, '[    2.8] Call Trace:', group, '[    3.0] Call Trace:'];
    expect(faultReports(log.join('\n'))).toEqual([warning, log[5], log[7]]);
  });
});

describe('messageOf', () => {
  it('takes off the time and the thread', () => {
    expect(messageOf('[   12.345678][    T1] hello [x]\r')).toBe('hello [x]');
    expect(messageOf('[    0.000000] hello')).toBe('hello');
    expect(messageOf('hello')).toBe('hello');
  });
});

describe('hasPanicked', () => {
  it('tells a panic from talk about panics', () => {
    expect(hasPanicked('[    1.0] Kernel panic - not syncing: sysrq triggered crash\r\n')).toBe(
      true,
    );
    expect(hasPanicked('[    1.0] Command line: panic=-1\r\n')).toBe(false);
  });
});
