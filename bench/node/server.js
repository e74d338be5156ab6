/**
 * The server of the Node.js benchmarks.
 * Arguments: what to serve (rpal, unix, net), the address, the file for arrival times.
 */
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { serve } from 'rpal';
import { answer, clockCost, now } from './record.js';

const [, , transport, address, file] = process.argv;
let arrivals = new Float64Array(0);
let count = 0;

clockCost();

/** Answers the next message of the pass. */
function echo(message) {
  if (arrivals.length > count) arrivals[count] = now();
  count += 1;
  return answer(message);
}

const text = (value) => Buffer.from(JSON.stringify(value));

/** Begins a pass, with arrival times if `timed` is their number; says how long the last one was. */
function begin(payload) {
  const { timed } = JSON.parse(Buffer.from(payload).toString());
  if (arrivals.length > 0) writeFileSync(file, arrivals);
  const last = text({ count });
  arrivals = new Float64Array(timed);
  count = 0;
  return last;
}

// Passes begin over a service of their own, so that it is the same for all transports.
await serve(`${address}.control`, { begin }, { transport: 'unix' });
if (transport === 'net') {
  createServer((socket) => {
    socket.on('data', (chunk) => socket.write(echo(chunk)));
  }).listen(address, () => console.log('ready'));
} else {
  await serve(address, { echo }, { transport });
  console.log('ready');
}
