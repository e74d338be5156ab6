/** An error with a message for the person at the terminal: what happened, why, what to do. */
export class Failure extends Error {
  override readonly name = 'Failure';

  constructor(
    message: string,
    /** Exit status of the command that ends because of it. */
    readonly exitStatus = 1,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/**
 * Runs a command's main function and ends the process with the status it returns. Expected
 * failures print their message, unexpected ones their stack as well.
 */
export async function runMain(main: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await main();
  } catch (error) {
    if (error instanceof Failure) {
      process.stderr.write(`${error.message}\n`);
      process.exitCode = error.exitStatus;
    } else {
      process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
      process.exitCode = 1;
    }
  }
}
