/**
 * A client with the scenarios of the tests. Argument: the address. Reads the names of scenarios
 * from standard input, each with another address if it is not for that one, and prints one line of
 * JSON for each: what it saw. Every scenario has a connection of its own.
 */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { connect } from 'rpal';

const [address, workersScenario] = isMainThread ? process.argv.slice(2) : workerData;
const say = (line) => (isMainThread ? console.log(line) : parentPort.postMessage(line));
const transport = process.env.TRANSPORT ?? 'auto';
let leaving = false;
const bytes = (...values) => Uint8Array.from(values);
const parse = (payload) => JSON.parse(Buffer.from(payload).toString());

function pattern(length, seed) {
  const payload = new Uint8Array(length);
  for (let i = 0; i < length; i += 1) payload[i] = seed + i * 7 + (i >> 8);
  return payload;
}

const caught = (run) => {
  try {
    return { answer: run() };
  } catch (error) {
    return {
      code: error.code,
      name: error.name,
      message: error.message,
      remote: error.remoteStack,
    };
  }
};
const rejected = (promise) =>
  promise.then(
    () => ({}),
    (error) => ({ code: error.code, message: error.message }),
  );

const scenarios = {
  async basics(client) {
    const wrong = [];
    const sizes = [...Array(70).keys(), 1000, 4096, 65_535, 65_536, 1_000_000];
    for (const size of sizes) {
      const payload = pattern(size, size);
      const wanted = payload.map((byte) => ~byte);
      if (Buffer.compare(client.callSync('inverted', payload), wanted)) wrong.push(size);
      if (Buffer.compare(await client.call('inverted', payload), wanted)) wrong.push(-size);
    }
    const request = Buffer.from([0, 0, 0, 0, 42]);
    request.writeUInt32LE(300_000);
    const long = client.callSync('long', request);
    return {
      wrong,
      sizes: sizes.length,
      longRight: long.length === 300_000 && long.every((byte) => byte === 42),
      identity: parse(client.callSync('identity', bytes())),
      methods: client.methods.length,
      counters: client.counters,
    };
  },
  /** Writes to a payload as soon as call() has returned. */
  async reused(client) {
    let wrong = 0;
    for (let i = 0; i < 5; i += 1) {
      const payload = pattern(1_000_000, i);
      const wanted = payload.map((byte) => ~byte);
      const answer = client.call('inverted', payload);
      payload.fill(0);
      if (Buffer.compare(await answer, wanted)) wrong += 1;
    }
    return wrong;
  },
  /** Calls every method of the service once, one after the other. */
  everyMethod(client) {
    const answers = client.methods.map((name) => [name, parse(client.callSync(name, bytes()))]);
    return Object.fromEntries(answers);
  },
  many(client) {
    let wrong = 0;
    const payload = new Uint8Array(32);
    for (let i = 0; i < 3_000; i += 1) {
      payload[i % 32] = i * 31;
      const answer = client.callSync('echo', payload);
      if (answer.length !== 32 || answer.some((byte, at) => byte !== payload[at])) wrong += 1;
    }
    return { wrong, counters: client.counters };
  },
  async errors(client) {
    return {
      thrown: caught(() => client.callSync('fail', bytes())),
      rejected: await rejected(client.call('fail', bytes())),
      later: caught(() => client.callSync('failLater', bytes())),
      unknown: caught(() => client.callSync('unknown', bytes())),
      afterwards: caught(() => client.callSync('echo', bytes(1))).answer?.[0],
    };
  },
  async asynchronous(client) {
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, i) => client.call(i % 2 ? 'later' : 'soon', bytes(i))),
    );
    return {
      sync: client.callSync('later', bytes(7))[0],
      soon: client.callSync('soon', bytes(8))[0],
      answers: answers.map((answer) => answer[0]),
      stores: (await Promise.all([1, 2, 3].map((n) => client.call('store', bytes(n))))).map(
        (answer) => answer[0],
      ),
    };
  },
  async deadlines(client) {
    const begun = performance.now();
    const sync = caught(() => client.callSync('never', bytes(), { timeout: 60 }));
    const waited = performance.now() - begun;
    const controller = new AbortController();
    const call = rejected(client.call('never', bytes(), { signal: controller.signal }));
    controller.abort();
    return {
      sync,
      waited,
      call: await rejected(client.call('never', bytes(), { timeout: 30 })),
      aborted: await call,
      spin: caught(() => client.callSync('spin', bytes(150), { timeout: 40 })).code,
      spinCall: (await client.call('spin', bytes(50)))[0],
      busy: (
        await Promise.all([client.call('spin', bytes(60)), client.call('echo', bytes(5))])
      ).map((answer) => answer[0]),
      afterwards: client.callSync('echo', bytes(1))[0],
    };
  },
  eventLoop(client) {
    /** Calls without a pause until something has happened in the other process. */
    const callUntil = (happened) => {
      while (!happened()) client.callSync('echo', bytes(1));
    };
    const timer = () => parse(client.callSync('timer', bytes()));
    const order = () => parse(client.callSync('order', bytes()));
    const { ticks } = timer();
    client.callSync('setTimer', bytes());
    callUntil(() => timer().fired && timer().ticks >= ticks + 10);
    client.callSync('queue', bytes());
    callUntil(() => order().length === 4);
    const before = order();
    client.callSync('reject', bytes());
    callUntil(() => order().length === 5);
    return { order: before, rejection: order().at(-1) };
  },
  /** Calls as fast as it can, in both ways, and counts meanwhile how often the service's interval fires. */
  async interval(client) {
    const ticks = () => parse(client.callSync('timer', bytes())).ticks;
    const underLoad = async (call) => {
      const before = ticks();
      let calls = 0;
      let elapsed = 0;
      let last = performance.now();
      while (elapsed < 1_000) {
        await call();
        calls += 1;
        const now = performance.now();
        // Nobody's timers fire while the whole machine pauses, so a pause counts as a short call.
        elapsed += Math.min(now - last, 5);
        last = now;
      }
      return { elapsed, calls, ticks: ticks() - before };
    };
    return {
      callSync: await underLoad(() => client.callSync('echo', bytes(1))),
      call: await underLoad(() => client.call('echo', bytes(1))),
    };
  },
  busy(client) {
    const options = { timeout: 60_000 };
    const turns = () => parse(client.callSync('turns', bytes(), options));
    client.callSync('busy', bytes(1), options);
    const before = turns();
    let calls = 0;
    // Both get their turn: else one of these never ends.
    while (calls < 50 || turns() < before + 50) {
      client.callSync('echo', bytes(1), options);
      calls += 1;
    }
    client.callSync('busy', bytes(0), options);
    return { calls, turns: turns() - before };
  },
  load(client) {
    const served = () => parse(client.callSync('served', bytes()));
    const enough = served() + 20;
    say('loading');
    while (served() < enough) client.callSync('echo', bytes(1));
    return { calls: client.counters.calls };
  },
  /** Calls without a pause until that fails. */
  untilError(client) {
    say('loading');
    return caught(() => {
      while (true) client.callSync('echo', bytes(1));
    });
  },
  /** Leaves the connection open, and the process nothing else to do. */
  async leave(client) {
    const sync = client.callSync('echo', bytes(1))[0];
    const answer = await client.call('later', bytes(2));
    process.stdin.destroy();
    leaving = true;
    return [sync, answer[0]];
  },
  forever(client) {
    say('loading');
    while (true) client.callSync('echo', bytes(1));
  },
  print(client) {
    const pid = parse(client.callSync('print', Buffer.from('from the handler')));
    return { pid, serverPid: client.serverPid, counters: client.counters };
  },
  async kill(client) {
    const pending = rejected(client.call('never', bytes()));
    const killed = caught(() => client.callSync('kill', bytes(), { timeout: 20_000 }));
    return {
      killed,
      pending: await pending,
      after: caught(() => client.callSync('echo', bytes())),
      alive: 1 + 1,
    };
  },
  exit(client) {
    return caught(() => client.callSync('exit', bytes(), { timeout: 20_000 }));
  },
  async worker() {
    const run = async () => {
      const [seen] = await once(startWorker('many'), 'message');
      return seen;
    };
    return Promise.all([run(), run()]);
  },
  /** For worker threads: says so, and waits for an answer that never comes. */
  wait(client) {
    say('loading');
    client.callSync('never', bytes());
  },
  /** Worker threads are terminated, one that calls and one that waits. */
  async terminate(client) {
    const ended = [];
    for (const scenario of ['forever', 'wait']) {
      const worker = startWorker(scenario);
      await once(worker, 'message');
      ended.push(await worker.terminate());
    }
    return { ended, afterwards: client.callSync('echo', bytes(1))[0] };
  },
  /** The process ends while a worker thread waits. */
  async exitWhileWaiting() {
    await once(startWorker('wait'), 'message');
    process.exit(5);
  },
};

function startWorker(scenario) {
  return new Worker(new URL(import.meta.url), { workerData: [address, scenario] });
}

async function play(scenario, other = address) {
  const client = await connect(other, { transport });
  const result = await scenarios[scenario](client);
  const { transport: used, fallbackReason } = client;
  if (!leaving) await client.close();
  return { transport: used, fallbackReason, result };
}

if (isMainThread) {
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await play(...line.split(' '))));
    if (leaving) break;
  }
} else {
  parentPort.postMessage(await play(workersScenario));
}
