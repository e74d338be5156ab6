/** Options by name; `n` and "is not set" are the same. */
export type KernelOptions = ReadonlyMap<string, string>;

/** Reads a configuration fragment or a .config. Later lines win. */
export function parseKernelOptions(text: string): KernelOptions {
  const options = new Map<string, string>();
  for (const line of text.split('\n')) {
    const set = /^(CONFIG_\w+)=(.*)$/.exec(line);
    const unset = /^# (CONFIG_\w+) is not set$/.exec(line);
    if (set?.[1] !== undefined) options.set(set[1], set[2] ?? '');
    else if (unset?.[1] !== undefined) options.set(unset[1], 'n');
  }
  return options;
}

/** An option that the build did not honour. */
export interface DroppedOption {
  name: string;
  wanted: string;
  got: string;
}

/**
 * Options of the fragments that the final configuration does not have: their dependencies are not
 * met, or this kernel does not know them. Silence about them is how tests stop testing.
 */
export function droppedOptions(wanted: KernelOptions, got: KernelOptions): DroppedOption[] {
  return [...wanted]
    .map(([name, value]) => ({ name, wanted: value, got: got.get(name) ?? 'n' }))
    .filter((option) => option.wanted !== option.got);
}
