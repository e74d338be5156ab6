import type { Score, TestFailure } from './tally.js';

/** The parts of vitest's JSON report that are used here. */
interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  success: boolean;
  testResults: {
    name: string;
    status: string;
    message: string;
    assertionResults: { status: string; fullName: string; failureMessages: string[] | null }[];
  }[];
}

/** What vitest found, by its JSON report; `where` says in which guest it ran. */
export function readVitestReport(
  text: string,
  where: string,
): { score: Score; failures: TestFailure[] } {
  const report = JSON.parse(text) as VitestReport;
  const failures: TestFailure[] = [];
  let failed = report.numFailedTests;
  for (const file of report.testResults) {
    for (const test of file.assertionResults) {
      if (test.status !== 'failed') continue;
      failures.push({
        where: `${where}: ${file.name}`,
        what: test.fullName,
        details: (test.failureMessages ?? []).join('\n'),
      });
    }
    // A file that cannot be loaded has no tests that could fail.
    const broken =
      file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed');
    if (broken) {
      failed++;
      failures.push({ where, what: file.name, details: file.message });
    }
  }
  if (!report.success && failed === 0) {
    failed = 1;
    failures.push({ where, what: 'vitest', details: 'It reports a failure outside of the tests.' });
  }
  return {
    score: {
      passed: report.numPassedTests,
      failed,
      skipped: report.numPendingTests + report.numTodoTests,
    },
    failures,
  };
}
