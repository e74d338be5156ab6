/**
 * A service that does what real programs do, each in a handler: an HTTP server, a worker thread,
 * WebAssembly, a child process. All stay alive, so that their memory is there when the test looks at
 * /proc/PID/maps. Argument: the address. Prints 'ready' and its transport.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import { text } from 'node:stream/consumers';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { capabilities, serve } from 'rpal';

const pageBytes = 65_536;
const alive = [];
const json = (value) => Buffer.from(JSON.stringify(value));
const caught = (run) => {
  try {
    return run();
  } catch (error) {
    return error.name;
  }
};

/**
 * (module
 *   (memory (export "memory") 1 1024)
 *   (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
 *   (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
 *   (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1))))
 */
const memoryModule = Buffer.from(
  [
    '0061736d 01000000',
    '01 0b 02 60017f017f 60027f7f00',
    '03 04 03 00 00 01',
    '05 05 01 01018008',
    '07 20 04 066d656d6f72790200 0467726f770000 046c6f61640001 0573746f72650002',
    '0a 1a 03 06002000 40000b 070020002802000b 0900200020013602000b',
  ]
    .join('')
    .replaceAll(' ', ''),
  'hex',
);

/** Grows a memory by 1 and by 300 pages, and writes and reads its last word each time. */
function webAssembly() {
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(memoryModule));
  const { memory, grow, load, store } = exports;
  const lastWord = () => memory.buffer.byteLength - 4;
  const seen = [];
  const use = (value) => {
    store(lastWord(), value);
    seen.push([memory.buffer.byteLength / pageBytes, load(lastWord())]);
  };
  use(1);
  grow(1);
  use(2);
  memory.grow(300);
  use(3);
  alive.push(memory);
  return {
    seen,
    first: load(pageBytes - 4),
    tooMany: grow(1024),
    // V8 finds this by SIGSEGV, as its code does not check addresses.
    outside: caught(() => load(lastWord() + 4)),
  };
}

async function http() {
  const server = createServer(async (request, response) => {
    response.setHeader('x-path', request.url);
    response.end((await text(request)).toUpperCase());
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  alive.push(server);
  const answers = [];
  for (const path of ['/first', '/second']) {
    const request = httpRequest({ port: server.address().port, method: 'POST', path });
    request.end(`posted to ${path} `.repeat(10_000));
    const [response] = await once(request, 'response');
    const body = await text(response);
    answers.push([response.statusCode, response.headers['x-path'], body.length, body.slice(0, 16)]);
  }
  return answers;
}

async function workerThread() {
  const worker = new Worker(new URL(import.meta.url));
  alive.push(worker);
  worker.postMessage(new SharedArrayBuffer(8));
  const [counts] = await once(worker, 'message');
  return { count: Atomics.load(counts, 0), webAssembly: (await once(worker, 'message'))[0] };
}

/** The worker: shows that it shares memory, compiles WebAssembly itself, and stays. */
function work() {
  parentPort.once('message', (shared) => {
    const counts = new BigInt64Array(shared);
    for (let i = 0; i < 100_000; i += 1) Atomics.add(counts, 0, 1n);
    parentPort.postMessage(new Int32Array(shared));
    parentPort.postMessage(webAssembly());
    parentPort.once('message', () => undefined);
  });
}

/** A child that is another Node.js, and one that ends with an error. */
async function childProcess() {
  const script = `process.stdin.pipe(process.stdout); console.error(process.ppid)`;
  const child = spawn(process.execPath, ['-e', script]);
  const said = Promise.all([text(child.stdout), text(child.stderr)]);
  child.stdin.end('to the child and back');
  const [output, parent] = await said;
  const failing = spawn('sh', ['-c', 'exit 3']);
  return {
    output,
    isChild: Number(parent) === process.pid,
    failed: (await once(failing, 'exit'))[0],
  };
}

if (isMainThread) {
  const [, , address] = process.argv;
  const server = await serve(address, {
    webAssembly: () => json(webAssembly()),
    http: async () => json(await http()),
    workerThread: async () => json(await workerThread()),
    childProcess: async () => json(await childProcess()),
    capabilities: () => json(capabilities()),
  });
  console.log(`ready ${server.transport}`);
} else {
  work();
}
