import ora from 'ora';

/** Tells how far a step is, for example "1200 of about 2400 files". */
export type Report = (detail: string) => void;

const interactive = process.stderr.isTTY && !process.env.CI;

/** Seconds as people read them. */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  const minutes = Math.floor(seconds / 60);
  return minutes === 0
    ? `${String(seconds)} s`
    : `${String(minutes)} min ${String(seconds % 60)} s`;
}

/**
 * Does a long step and shows what it is, how far it is and how long it has taken: a live line on a
 * terminal, one line at its end elsewhere. All of it on stderr, stdout belongs to the result.
 */
export async function step<T>(title: string, work: (report: Report) => Promise<T>): Promise<T> {
  const started = Date.now();
  const elapsed = (): string => duration(Date.now() - started);
  if (!interactive) {
    try {
      const result = await work(() => undefined);
      process.stderr.write(`${title}: ${elapsed()}\n`);
      return result;
    } catch (error) {
      process.stderr.write(`${title}: failed after ${elapsed()}\n`);
      throw error;
    }
  }
  const spinner = ora({ text: title, stream: process.stderr, discardStdin: false }).start();
  let detail = '';
  const show = (): void => {
    spinner.text = `${title} ${detail === '' ? '' : `· ${detail} `}· ${elapsed()}`;
  };
  const timer = setInterval(show, 1000);
  try {
    const result = await work((text) => {
      detail = text;
      show();
    });
    spinner.succeed(`${title} · ${elapsed()}`);
    return result;
  } catch (error) {
    spinner.fail(`${title} · failed after ${elapsed()}`);
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/** Says that another command is doing the same and this one waits for it. */
export function waitingFor(what: string): () => void {
  return () => {
    process.stderr.write(`Another command is preparing ${what}; waiting for it.\n`);
  };
}
