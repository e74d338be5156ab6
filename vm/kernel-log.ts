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

/**
 * Of these messages, those that belong to a report that a memory cgroup has no more memory, and look
 * like a fault of the kernel: it is the fault of who set the limit.
 */
function cgroupReports(messages: readonly string[]): ReadonlySet<number> {
  const found = new Set<number>();
  let trace: number | undefined;
  let cgroup = false;
  messages.forEach((message, index) => {
    if (/^.+ invoked oom-killer: /.test(message)) {
      trace = undefined;
      cgroup = false;
    } else if (message.startsWith('Call Trace:')) {
      trace ??= index;
    } else if (message.startsWith('Memory cgroup stats for ')) {
      cgroup = true;
      if (trace !== undefined) found.add(trace);
    } else if (cgroup && message.startsWith('Out of memory and no killable processes')) {
      found.add(index);
    }
  });
  return found;
}

/** Lines of a console log in which the kernel reports a fault in itself. */
export function faultReports(log: string): string[] {
  const lines = log.split('\n');
  const messages = lines.map(messageOf);
  const excused = cgroupReports(messages);
  return lines.filter(
    (_, index) =>
      !excused.has(index) && reports.some((report) => report.test(messages[index] ?? '')),
  );
}

/** Whether the log ends in a panic. */
export function hasPanicked(log: string): boolean {
  return log.split('\n').some((line) => messageOf(line).startsWith('Kernel panic'));
}
