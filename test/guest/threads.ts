import { readdirSync, readFileSync } from 'node:fs';

/**
 * What the threads of a process are doing, one per line: name, state, where in the kernel it sleeps,
 * ticks of CPU time in user and kernel mode. For the report of a process that should have gone on:
 * a thread that was not woken sleeps, one that was given too little time does not.
 */
export function threadsOf(pid: number): string {
  const tasks = `/proc/${String(pid)}/task`;
  try {
    return readdirSync(tasks)
      .map((tid) => {
        const read = (name: string): string => readFileSync(`${tasks}/${tid}/${name}`, 'utf8');
        // The name is in parentheses and may have some itself.
        const fields = read('stat').replace(/^.*\)/, '').trim().split(' ');
        const [state = '?', user = '?', kernel = '?'] = [fields[0], fields[11], fields[12]];
        return `${tid} ${read('comm').trim()}: ${state} ${read('wchan') || '-'} ${user}+${kernel}`;
      })
      .join('\n');
  } catch (error) {
    return `It cannot be seen (${String(error)}).`;
  }
}
