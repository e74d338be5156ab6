/** What came of one test, or of one program with several. */
export interface Score {
  passed: number;
  failed: number;
  skipped: number;
}

/** A failure with all that a person needs to begin with. */
export interface TestFailure {
  where: string;
  what: string;
  details: string;
}

/** Sums up everything that ran. */
export class Tally {
  readonly failures: TestFailure[] = [];
  #score: Score = { passed: 0, failed: 0, skipped: 0 };

  /** Adds counts; failures among them are to be described with `describe`, which counts nothing. */
  add(score: Score): void {
    this.#score = {
      passed: this.#score.passed + score.passed,
      failed: this.#score.failed + score.failed,
      skipped: this.#score.skipped + score.skipped,
    };
  }

  /** Describes a failure for the list at the end. */
  describe(failure: TestFailure): void {
    this.failures.push(failure);
  }

  /** Nothing failed, and something ran: a run that tested nothing is no success. */
  get ok(): boolean {
    return this.#score.failed === 0 && this.#score.passed > 0;
  }

  /** The last line of a run: `N passed, N failed`, and `, N skipped` if there are any. */
  get line(): string {
    const { passed, failed, skipped } = this.#score;
    const line = `${String(passed)} passed, ${String(failed)} failed`;
    return skipped === 0 ? line : `${line}, ${String(skipped)} skipped`;
  }
}
