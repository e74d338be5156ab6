/**
 * Lines by which the kernel reports a fault in itself. Each is anchored to the form the kernel
 * uses, because processes may fault as much as tests like: "traps: node[7] general protection
 * fault" and "node[7]: segfault" are about user space and no reports.
 */
const reports: readonly RegExp[] = [
  /^BUG[: ]/,
  /^WARNING[: ]/,
  /^INFO: (possible|suspicious|lockdep|task .* blocked|rcu|trying to register)/,
  /^INFO: Slab|^Slab corruption|^Padding overwritten|^Object .* overwritten/,
  /^(\[ BUG: |=+\[ BUG )/,
  /^kernel BUG at/,
  /^Oops[: ]/,
  /^Kernel panic/,
  /^general protection fault\b.*\[#/,
  /^(double fault|invalid opcode|divide error|stack segment|int3|trap)\b.*\[#/,
  /^KASAN: /,
  /^UBSAN: /,
  /^KCSAN: /,
  /^kmemleak: [1-9]/,
  /^(rcu: )?INFO: rcu_\w+ .*stall/,
  /^rcu: .*(stall|starved)/,
  /^watchdog: BUG/,
  /^NMI watchdog: /,
  /^(possible (circular|recursive|irq)|inconsistent lock state|bad unlock balance)/,
  /^DEBUG_LOCKS_WARN_ON/,
  /^(list_add|list_del) corruption/,
  /^refcount_t: /,
  /^ODEBUG: /,
  /^page_table_check|^page:.*dumped because/,
  /^Bad (page state|rss-counter)/,
  /^unregister_netdevice: waiting/,
  /^Call Trace:/,
  /^Unhandled fault/,
  /^x86\/mm: Checked W\+X mappings: FAILED/,
  /^x86\/fpu: .*(Bad|bad)/,
  /^Out of memory and no killable processes/,
  /^tainted /i,
];

/** The text of a console line without its time stamp and thread id. */
export function messageOf(line: string): string {
  return line.replace(/\r$/, '').replace(/^\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?/, '');
}

/** Lines of a console log in which the kernel reports a fault in itself. */
export function faultReports(log: string): string[] {
  return log.split('\n').filter((line) => {
    const message = messageOf(line);
    return reports.some((report) => report.test(message));
  });
}

/** Whether the log ends in a panic. */
export function hasPanicked(log: string): boolean {
  return log.split('\n').some((line) => messageOf(line).startsWith('Kernel panic'));
}
