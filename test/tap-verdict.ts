import { Parser, type Plan, type Result } from 'tap-parser';
import type { GuestResult } from '../vm/guest.js';
import { failureOf } from '../vm/guest.js';
import type { Score } from './tally.js';

/** Exit status of a test program that cannot run where it is, as Automake has it. */
const skippedStatus = 77;

/** What a program that prints TAP has shown. */
export interface Verdict {
  score: Score;
  /** Why it failed, one reason a line; empty if it did not. */
  reasons: string[];
}

/**
 * Judges a test program by its output, its exit status and the kernel log together: each of them
 * alone can look good while something is wrong. What the program printed after a crash of the
 * kernel or in place of a plan counts as one more failure.
 */
export function judgeTap(output: string, result: GuestResult): Verdict {
  const { outcome } = result;
  if (
    outcome.kind === 'exited' &&
    outcome.status === skippedStatus &&
    result.reports.length === 0
  ) {
    return { score: { passed: 0, failed: 0, skipped: 1 }, reasons: [] };
  }
  const reasons: string[] = [];
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  let planned: number | undefined;
  const parser = new Parser();
  parser.on('assert', (test: Result) => {
    if (test.skip !== false) skipped++;
    else if (test.ok || test.todo !== false) passed++;
    else {
      failed++;
      reasons.push(`not ok ${String(test.id)} ${test.name}`.trim());
    }
  });
  parser.on('plan', (plan: Plan) => (planned = plan.end - plan.start + 1));
  parser.on('bailout', (reason: string) => reasons.push(`Bail out! ${reason}`.trim()));
  parser.end(output);

  const unexpected: string[] = [];
  const failure = failureOf(result);
  if (failure !== undefined) unexpected.push(failure.message);
  const ran = passed + failed + skipped;
  if (ran === 0) unexpected.push('It printed no test result.');
  else if (planned === undefined)
    unexpected.push('It printed no plan (1..N), so it may have stopped early.');
  else if (planned !== ran) {
    unexpected.push(`It planned ${String(planned)} tests and ran ${String(ran)}.`);
  }
  if (outcome.kind === 'exited' && outcome.status !== 0 && failed === 0) {
    unexpected.push(`Its exit status was ${String(outcome.status)}.`);
  }
  if (failed === 0 && reasons.length > 0 && unexpected.length === 0) unexpected.push('It gave up.');
  if (unexpected.length > 0) failed++;
  return { score: { passed, failed, skipped }, reasons: [...reasons, ...unexpected] };
}
