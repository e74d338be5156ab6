/**
 * The server of the Node.js benchmarks.
 * Arguments: what to serve (rpal, unix, net), the address, the file for arrival times.
 */
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { serve } from 'rpal';
import { answerTo, bytes, clockCost, fill, now, verify } from './record.js';

const [, , transport, address, file] = process.argv;
const answer = new Uint8Array(bytes);
let arrivals = new Float64Array(0);
let next = 0;

clockCost();

/** Answers the next message of the pass. */
function echo(payload) {
  if (arrivals.length > next) arrivals[next] = now();
  verify(payload, next);
  fill(answer, answerTo(next));
  next += 1;
  return answer;
}

/** Begins a pass; with times if its length is given, else it ends the last one. */
function begin(payload) {
  const { count } = JSON.parse(Buffer.from(payload).toString());
  if (arrivals.length > 0) writeFileSync(file, arrivals);
  arrivals = new Float64Array(count);
  next = 0;
  return payload;
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
