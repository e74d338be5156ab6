// guest: cpus=1,2 timeout=180
/** Timers of a service on whose thread others call without a pause. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Caller, freshAddress, Program, type Seen, startService } from './program.js';

interface Load {
  /** Time in ms that the calls took, without pauses of the machine. */
  elapsed: number;
  calls: number;
  ticks: number;
}

/** Of programs/service.js, in ms. */
const interval = 10;
let service: Program;
let seen: Seen<Record<'callSync' | 'call', Load>>;
beforeAll(async () => {
  const address = freshAddress();
  ({ service } = await startService(address));
  await using caller = new Caller(address);
  seen = await caller.call('interval');
});
afterAll(() => service[Symbol.asyncDispose]());

for (const how of ['callSync', 'call'] as const) {
  it(`fire while another process calls as fast as it can, by ${how}()`, () => {
    const { elapsed, calls, ticks } = seen.result[how];
    console.log(
      `${how}(): ${String(ticks)} ticks in ${elapsed.toFixed()} ms and ${String(calls)} calls`,
    );
    expect(seen.transport).toBe('rpal');
    // How late each is, on_time.c says. Here it is enough that not every second one is left out.
    expect(ticks).toBeGreaterThan(elapsed / interval / 2);
  });
}
