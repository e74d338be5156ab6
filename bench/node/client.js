/**
 * The client of the Node.js benchmarks.
 * Arguments: what to call (rpal, unix, net), the address, the file for samples, how many messages.
 * Prints one line of JSON. For a count of system calls it prints `count` and reads the answer.
 */
import { writeFileSync } from 'node:fs';
import { connect as netConnect } from 'node:net';
import { createInterface } from 'node:readline';
import { connect } from 'rpal';
import { clockCost, fill, newMessage, now, verify } from './record.js';

const [, , transport, address, file, number] = process.argv;
const messages = Number(number);
const warmUp = 30_000;
const batch = 1_000;
const sent = Array.from({ length: batch }, newMessage);
const payloads = sent.map(({ message }) => message);
const answers = Array.from(payloads);

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function countSyscalls() {
  console.log('count');
  return Number((await input.next()).value);
}

const control = await connect(`${address}.control`, { transport: 'unix' });
/** Begins a pass; the server must have seen `last` messages in the one before. */
async function begin(last, timed = 0) {
  const { count } = JSON.parse(
    Buffer.from(await control.call('begin', Buffer.from(JSON.stringify({ timed })))),
  );
  if (count !== last) throw new Error(`The server has seen ${count} messages instead of ${last}.`);
}

/**
 * Sends the first `count` payloads one after the other and keeps the answers. With arrays, it
 * notes in them, from place `at` on, when each left and was back.
 */
let exchange;
let counters = () => ({ handBacks: 0 });
if (transport === 'rpal') {
  const client = await connect(address, { transport: 'rpal' });
  counters = () => client.counters;
  exchange = (count, at, left, back) => {
    for (let i = 0; i < count; i += 1) {
      if (left) left[at + i] = now();
      answers[i] = client.callSync('echo', payloads[i]);
      if (back) back[at + i] = now();
    }
  };
} else if (transport === 'unix') {
  const client = await connect(address, { transport: 'unix' });
  exchange = async (count, at, left, back) => {
    for (let i = 0; i < count; i += 1) {
      if (left) left[at + i] = now();
      answers[i] = await client.call('echo', payloads[i]);
      if (back) back[at + i] = now();
    }
  };
} else {
  const socket = netConnect(address);
  await new Promise((done) => socket.once('connect', done));
  exchange = (count, at, left, back) =>
    new Promise((done) => {
      let i = 0;
      const send = () => {
        if (left) left[at + i] = now();
        socket.write(payloads[i]);
      };
      const receive = (chunk) => {
        if (back) back[at + i] = now();
        answers[i] = chunk;
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
/** Sends `count` messages and returns the time between them, without making and verifying them. */
async function pass(count, left, back) {
  let time = 0;
  for (let at = 0; at < count; at += batch) {
    const size = Math.min(batch, count - at);
    for (let i = 0; i < size; i += 1) fill(sent[i].words, at + i);
    const start = now();
    await exchange(size, at, left, back);
    time += now() - start - cost;
    for (let i = 0; i < size; i += 1) verify(answers[i], payloads[i], at + i);
  }
  return time;
}

const left = new Float64Array(messages);
const back = new Float64Array(messages);
await begin(0);
// All that is measured below is run before, so that the compiler learns nothing new there.
for (let done = 0; done < warmUp; done += 3 * batch) {
  await pass(2 * batch);
  await begin(2 * batch, batch);
  await pass(batch, left, back);
  await begin(batch);
}

const before = counters().handBacks;
const total = await pass(messages);
const handBacks = counters().handBacks - before;

await begin(messages, messages);
await pass(messages, left, back);
await begin(messages);
writeFileSync(`${file}-left`, left);
writeFileSync(`${file}-back`, back);

const counted = Math.ceil(messages / 10);
const calls = await countSyscalls();
await pass(counted);
const callsAfter = await countSyscalls();
await begin(counted);

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
