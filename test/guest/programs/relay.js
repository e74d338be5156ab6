/**
 * A service that calls others, or lets them call it back. Argument: the address. Prints 'ready' and its
 * transport, then reads calls to make from standard input, one JSON object per line:
 *   hops     whom to call, and how: [{ to: address, how: 'call' or 'callSync' }, …]; each service
 *            calls the next
 *   method   of the first service: 'relay' waits for the next hop, 'begin' does not
 *   timeout  of the first call, in ms
 * and prints for each what came of it.
 */
import { createInterface } from 'node:readline';
import { connect, serve } from 'rpal';

const [, , ownAddress] = process.argv;
const json = (value) => Buffer.from(JSON.stringify(value));
const parse = (payload) => JSON.parse(Buffer.from(payload).toString());
const seconds = 1000;
const clients = new Map();
/** Answers of the calls that 'begin' began, for 'begun'. */
let begun = [];

/** Everybody connects before anything is called: a thread that waits cannot greet. */
async function introduce(addresses) {
  for (const address of addresses) {
    if (address === ownAddress || clients.has(address)) continue;
    clients.set(address, await connect(address, { transport: process.env.TRANSPORT ?? 'rpal' }));
  }
  return [...clients.values()].map(({ transport }) => transport);
}

/** Makes the first of these calls, whose handler makes the others; callSync() returns no promise. */
function next([hop, ...rest], { method = 'relay', timeout = 300 * seconds } = {}) {
  return clients.get(hop.to)[hop.how](method, json(rest), { timeout });
}

/** Who has answered, last one first; each with how its call came. */
function relay(payload, { transport }) {
  const hops = parse(payload);
  const own = [process.pid, transport];
  if (hops.length === 0) return json([own]);
  const answer = next(hops);
  return answer instanceof Promise
    ? answer.then((others) => json([...parse(others), own]))
    : json([...parse(answer), own]);
}

function begin(payload) {
  begun.push(next(parse(payload)));
  return json([]);
}

async function attempt(run) {
  const before = performance.now();
  try {
    return { answer: parse(await run()) };
  } catch (error) {
    const { code, name, message } = error;
    return { code, name, message, elapsed: performance.now() - before };
  }
}

const server = await serve(ownAddress, { relay, begin });
console.log(`ready ${server.transport}`);

const commands = {
  introduce: ({ to }) => introduce(to),
  call: ({ hops, ...options }) => attempt(() => next(hops, options)),
  async begun() {
    const answers = (await Promise.all(begun)).map(parse);
    begun = [];
    return answers;
  },
};
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line);
  console.log(JSON.stringify(await commands[command](parameters)));
}
