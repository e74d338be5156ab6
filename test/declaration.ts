/**
 * How services are kept apart: by protection keys, or, as the administrator wants it, not at all; and
 * the same two on a machine without protection keys, where the first leaves no services.
 */
export const isolations = ['mpk', 'none', 'keyless', 'none-keyless'] as const;
export type Isolation = (typeof isolations)[number];

/** Where a test runs, as its source declares it. */
export interface Declaration {
  /** Numbers of CPUs of the guests it runs in, each once. */
  cpus: readonly number[];
  /** Runs on one CPU whose clock counts instructions; then `cpus` is [1]. */
  icount: boolean;
  /** Runs on a machine whose page tables have 5 levels. */
  la57: boolean;
  /** Runs in guests with each of these, each once. */
  isolation: readonly Isolation[];
  /** Runs once more with each of these parameters of the kernel, on the normal one. */
  append: readonly string[];
  /** Runs once more on the debug kernel. */
  debug: boolean;
  /** Runs on a kernel without the patches, instead of the patched one. */
  stock: boolean;
  /** Seconds it may take on the normal kernel. */
  timeout: number;
}

/** Something is wrong with a declaration. */
export class DeclarationError extends Error {
  override readonly name = 'DeclarationError';
}

function isIsolation(word: string): word is Isolation {
  return isolations.some((known) => known === word);
}

const known = ['cpus', 'icount', 'la57', 'isolation', 'append', 'debug', 'stock', 'timeout'];

const pattern = /^\s*(?:\/\*|\/\/)\s*guest:(.*?)(?:\*\/)?\s*$/m;

/**
 * Reads the one line of a test's source that says where it runs, in C or TypeScript:
 *
 *     /* guest: cpus=1,2 icount debug timeout=60 *\/
 *
 * `cpus=` lists numbers of CPUs (default: 1 and 2). `icount` is for tests that count instructions.
 * `la57` wants page tables with 5 levels, instead of 4: on such a machine nobody is a service.
 * `isolation=` lists ways in which services are kept apart (mpk, none; keyless, none-keyless on a
 * machine that has no protection keys; default: mpk).
 * `append=` lists parameters of the kernel, such as pti=on: with each of them the test runs once more,
 * on the normal kernel with the most CPUs of `cpus=`, on a machine with protection keys.
 * `debug` and `debug=no` say whether it also runs on the debug kernel (default: yes, except for
 * icount tests). `stock` wants a kernel without RPAL. `timeout=` is in seconds (default 60).
 */
export function parseDeclaration(source: string): Declaration {
  const words = (pattern.exec(source)?.[1] ?? '').split(/\s+/).filter((word) => word !== '');
  const values = new Map(
    words.map((word) => {
      const [name = '', ...rest] = word.split('=');
      return [name, rest.join('=')] as const;
    }),
  );
  for (const name of values.keys()) {
    if (!known.includes(name)) {
      throw new DeclarationError(
        `"guest: ${words.join(' ')}": nothing is known about ${name}. There are cpus=N,…, icount, ` +
          `la57, isolation=${isolations.join()}, append=PARAMETER,…, debug, debug=no, stock and ` +
          'timeout=SECONDS.',
      );
    }
  }
  const icount = values.has('icount');
  const cpus = (values.get('cpus') ?? (icount ? '1' : '1,2')).split(',').map(Number);
  if (!cpus.every((count) => Number.isInteger(count) && count > 0)) {
    throw new DeclarationError(`"cpus=${values.get('cpus') ?? ''}" is not a list of numbers.`);
  }
  if (icount && cpus.some((count) => count !== 1)) {
    throw new DeclarationError('An icount test runs on one CPU: its clock counts for one.');
  }
  const isolation = (values.get('isolation') ?? 'mpk').split(',');
  if (!isolation.every(isIsolation)) {
    throw new DeclarationError(
      `"isolation=${isolation.join()}" is not a list of ${isolations.join(', ')}.`,
    );
  }
  const append = values.get('append')?.split(',') ?? [];
  if (append.includes('')) {
    throw new DeclarationError(
      `"append=${append.join()}" is not a list of parameters of the kernel.`,
    );
  }
  const timeout = Number(values.get('timeout') ?? 60);
  if (!(timeout > 0)) {
    throw new DeclarationError(`"timeout=${values.get('timeout') ?? ''}" is not in seconds.`);
  }
  const debug = values.get('debug');
  return {
    cpus: [...new Set(cpus)],
    icount,
    la57: values.has('la57'),
    isolation: [...new Set(isolation)],
    append: [...new Set(append)],
    debug: debug === undefined ? !icount : debug !== 'no',
    stock: values.has('stock'),
    timeout,
  };
}
