/**
 * Lines by which the kernel reports a fault in itself. Each is anchored to the form the kernel
 * uses, because processes may fault as much as tests like: "traps: node[7] general protection
 * fault" and "node[7]: segfault" are about user space and no reports.
 */
const reports: readonly RegExp[] = [
  /^BUG[: ]/,
  /^WARNING[: ]/,
  /^INFO: (possible|suspicious|lockdep|trying to register|rcu_\w+ .*stall)/,
  /^INFO: task .* blocked for more than/,
  /^kernel BUG at/,
  /^Oops[: ]/,
  /^Kernel panic/,
  /^(general protection fault|double fault|invalid opcode|divide error|stack segment)\b.*\[#/,
  /^(KASAN|KCSAN|UBSAN): /,
  /^=+\[ BUG/,
  /^Padding overwritten|^(Object|Redzone) .*overwritten/,
  /^rcu: .*(stall|starved)/,
  /^(NMI )?watchdog: (BUG|Watchdog detected)/,
  /^(possible (circular|recursive|irq)|inconsistent lock state|bad unlock balance)/,
  /^DEBUG_LOCKS_WARN_ON\(/,
  /^(list_add|list_del) corruption/,
  /^refcount_t: /,
  /^ODEBUG: /,
  /^page:.*dumped because/,
  /^Bad (page state|rss-counter)/,
  /^x86\/mm: Checked W\+X mappings: FAILED/,
  /^Out of memory and no killable processes/,
  /^Call Trace:/,
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
