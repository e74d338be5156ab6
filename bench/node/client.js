/**
 * The client of the Node.js benchmarks.
 * Arguments: what to call (rpal, unix, net), the address, the file for samples, how many messages.
 * Prints one line of JSON. For a count of system calls it prints `count` and reads the answer.
 */
import { writeFileSync } from 'node:fs';
import { connect as netConnect } from 'node:net';
import { createInterface } from 'node:readline';
import { connect } from 'rpal';
import { answerTo, bytes, clockCost, fill, now, verify } from './record.js';

const [, , transport, address, file, number] = process.argv;
const messages = Number(number);
const warmUp = 30_000;
const payload = new Uint8Array(bytes);

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function countSyscalls() {
  console.log('count');
  return Number((await input.next()).value);
}

const control = await connect(`${address}.control`, { transport: 'unix' });
async function begin(count) {
  await control.call('begin', Buffer.from(JSON.stringify({ count })));
}

/** Sends `count` messages one after the other; with arrays, when each left and was back. */
let run;
let counters = () => ({ handBacks: 0 });
if (transport === 'rpal') {
  const client = await connect(address, { transport: 'rpal' });
  counters = () => client.counters;
  run = (count, left, back) => {
    for (let i = 0; i < count; i += 1) {
      fill(payload, i);
      if (left) left[i] = now();
      const answer = client.callSync('echo', payload);
      if (back) back[i] = now();
      verify(answer, answerTo(i));
    }
  };
} else if (transport === 'unix') {
  const client = await connect(address, { transport: 'unix' });
  run = async (count, left, back) => {
    for (let i = 0; i < count; i += 1) {
      fill(payload, i);
      if (left) left[i] = now();
      const answer = await client.call('echo', payload);
      if (back) back[i] = now();
      verify(answer, answerTo(i));
    }
  };
} else {
  const socket = netConnect(address);
  await new Promise((done) => socket.once('connect', done));
  run = (count, left, back) =>
    new Promise((done) => {
      let i = 0;
      const send = () => {
        fill(payload, i);
        if (left) left[i] = now();
        socket.write(payload);
      };
      const receive = (chunk) => {
        if (back) back[i] = now();
        verify(chunk, answerTo(i));
        i += 1;
        if (i < count) {
          send();
        } else {
          socket.off('data', receive);
          done();
        }
      };
      socket.on('data', receive);
      send();
    });
}

const cost = clockCost();
await begin(0);
await run(warmUp);

await begin(0);
const before = counters().handBacks;
const start = now();
await run(messages);
const total = now() - start - cost;
const handBacks = counters().handBacks - before;

const left = new Float64Array(messages);
const back = new Float64Array(messages);
await begin(messages);
await run(messages, left, back);
await begin(0);
writeFileSync(`${file}-left`, left);
writeFileSync(`${file}-back`, back);

const counted = Math.ceil(messages / 10);
await begin(0);
const calls = await countSyscalls();
await run(counted);
const callsAfter = await countSyscalls();

console.log(
  JSON.stringify({
    mean: total / messages,
    cost,
    messages,
    handBacksPerCall: handBacks / messages,
    syscallsPerCall: calls < 0 ? -1 : (callsAfter - calls) / counted,
  }),
);
process.exit(0);
