/** What a test program says of one of its cases; xfail: it failed, and was expected to. */
export type Verdict = 'pass' | 'fail' | 'skip' | 'xfail';

/** Exit status by which a selftest says that it cannot run here. */
const skipped = 4;

/** How a program ended. */
export type End =
  | { kind: 'exited'; status: number }
  | { kind: 'signal'; signal: number }
  | { kind: 'timed-out'; seconds: number }
  | { kind: 'not-started'; why: string }
  | { kind: 'guest-died' };

/** One run of one program. */
export interface ProgramResult {
  end: End;
  /** Cases by name, in the order in which they ended. */
  cases: ReadonlyMap<string, Verdict>;
  /** Faults that the kernel reported in itself. */
  reports: readonly string[];
}

/** The end in words. */
export function describeEnd(end: End): string {
  switch (end.kind) {
    case 'exited':
      return `exit status ${end.status}`;
    case 'signal':
      return `signal ${end.signal}`;
    case 'timed-out':
      return `timed out after ${end.seconds} s`;
    case 'not-started':
      return `not started: ${end.why}`;
    case 'guest-died':
      return 'the guest died';
  }
}

/** What the end alone says. */
export function verdictOfEnd(end: End): Verdict {
  if (end.kind !== 'exited') return 'fail';
  return end.status === 0 ? 'pass' : end.status === skipped ? 'skip' : 'fail';
}

/**
 * A text without what is different in every run: addresses, times, ids of processes. Small numbers
 * stay, they tell cases apart.
 */
export function normalise(text: string): string {
  return text
    .replaceAll(/\b0x[0-9a-f]{4,}\b/gi, '0x#')
    .replaceAll(/\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b/gi, '#')
    .replaceAll(/\b\d+(\.\d+)? ?(ns|nsecs?|us|usecs?|ms|msecs?|s|secs?|seconds?)\b/g, '# $2')
    .replaceAll(/\b(pid|tid|process|child)([ :=]+|s? \()\d+/gi, '$1$2#')
    .replaceAll(/\b(pages|faults) \d+\b/g, '$1 #')
    .replaceAll(/\b\d+\.\d+\b/g, '#')
    .replaceAll(/\b\d{5,}\b/g, '#')
    .replaceAll(/\s+/g, ' ')
    .trim();
}

const words: Readonly<Record<string, Verdict>> = {
  ok: 'pass',
  pass: 'pass',
  passed: 'pass',
  done: 'pass',
  fail: 'fail',
  failed: 'fail',
  error: 'fail',
  skip: 'skip',
  skipped: 'skip',
};

/** One line of output that is a case. */
interface Case {
  name: string;
  verdict: Verdict;
}

/** `ok 1 name`, `not ok 2 - name`, `ok 3 # SKIP name or reason`, `ok 4 name # XFAIL reason`. */
function tapCase(line: string): Case | undefined {
  const parts = /^(not )?ok\b ?(\d+)?\b\s*(?:- )?(.*)$/.exec(line);
  if (parts === null) return undefined;
  const [, not, number, rest = ''] = parts;
  const [, before = '', directive = '', after = ''] =
    /^(.*?)(?:#\s*(SKIP|XFAIL|XPASS|TODO|error)?\b(.*))?$/i.exec(rest) ?? [];
  const name = [before, after].map((text) => text.trim()).find((text) => text !== '');
  const word = directive.toLowerCase();
  return {
    name: name ?? `test ${number ?? ''}`.trim(),
    verdict:
      word === 'skip' ? 'skip' : word === 'xfail' ? 'xfail' : not === undefined ? 'pass' : 'fail',
  };
}

/** Older programs: `[OK]  name`, `Testing name... done`, `name... OK`, `test 3 PASSED (…)`. */
function otherCase(line: string): Case | undefined {
  const bracket = /^\[(OK|PASS|FAIL|ERROR|SKIP)\]\s*(.*)$/.exec(line);
  const text =
    bracket === null
      ? /^(?:Testing )?(.*?)\s*(?:\.{3,}|:)\s*(done|skipped|failed|OK|PASS|FAIL|SKIP)(?:[.!]?$| \[|: )/i.exec(
          line,
        )
      : null;
  const numbered = /^(test\s+\d+) (PASSED)\b/.exec(line);
  const [word, name] =
    bracket !== null
      ? [bracket[1], bracket[2]]
      : text !== null
        ? [text[2], text[1]]
        : numbered !== null
          ? [numbered[2], numbered[1]]
          : [];
  const verdict = words[word?.toLowerCase() ?? ''];
  return verdict === undefined ? undefined : { name: name ?? '', verdict };
}

/**
 * The cases in the output of a program. `[RUN] name` before a case belongs to its name: many cases
 * are called the same otherwise. Where names come again they are counted.
 */
export function readCases(output: string): Map<string, Verdict> {
  const cases = new Map<string, Verdict>();
  let running = '';
  for (const raw of output.split('\n')) {
    // eslint-disable-next-line no-control-regex -- colours
    const line = raw.replaceAll(/\u001b\[[\d;]*m/g, '').trim();
    const run = /^(?:# )?\[RUN\]\s*(.*)$/.exec(line);
    if (run !== null) {
      running = run[1] ?? '';
      continue;
    }
    const found = line.startsWith('#') ? undefined : (tapCase(line) ?? otherCase(line));
    if (found === undefined) continue;
    const full = [running, found.name].filter((text) => text !== '').join(': ');
    const name = normalise(full);
    let unique = name;
    for (let count = 2; cases.has(unique); count++) unique = `${name} (${count})`;
    cases.set(unique, found.verdict);
  }
  return cases;
}
