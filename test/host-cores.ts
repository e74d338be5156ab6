import { availableParallelism } from 'node:os';
import { Semaphore } from 'async-mutex';

const cores = availableParallelism();
const free = new Semaphore(cores);

/**
 * Runs a job that keeps `count` cores of the host busy, such as a guest with as many CPUs, as soon
 * as they are free. Jobs that fit run beside each other; none overtakes another that came before.
 */
export function onHostCores<T>(count: number, job: () => Promise<T>): Promise<T> {
  return free.runExclusive(job, Math.min(count, cores));
}
