/**
 * Runs the Node.js benchmarks, in the guest. Arguments: directory for samples, messages, mode
 * (icount or wall). Prints one line of JSON for every result; run.ts on the host makes the report.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [, , directory, messages, mode] = process.argv;
const repository = fileURLToPath(new URL('../..', import.meta.url));
const built = (name) => join(repository, 'build', 'bench', name);
const rpal = join(repository, 'bin', 'rpal');

/** Starts a program whose lines of output are read one by one. */
function start(argv) {
  const child = spawn(argv[0], argv.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    say: (line) => child.stdin.write(`${line}\n`),
    async line() {
      const { value, done } = await lines.next();
      if (done) throw new Error(`${argv.join(' ')} ended (${child.exitCode ?? child.signalCode}).`);
      return value;
    },
    async end() {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
    },
  };
}

const differences = (name, later, earlier, cost) => {
  const read = (path) => new Float64Array(readFileSync(path).buffer);
  const [to, from] = [read(later), read(earlier)];
  writeFileSync(
    join(directory, name),
    Uint32Array.from(to, (t, i) => t - from[i] - cost),
  );
  return name;
};

async function runNode(transport, api) {
  const address = join(tmpdir(), `bench-${transport}.sock`);
  const times = join(tmpdir(), `bench-${transport}`);
  rmSync(address, { force: true });
  rmSync(`${address}.control`, { force: true });
  const node = transport === 'rpal' ? [rpal, 'run', '--', 'node'] : ['node'];
  const script = (name) => join(repository, 'bench', 'node', name);
  const server = start([...node, script('server.js'), transport, address, `${times}-arrived`]);
  const counter = start([built('count_syscalls')]);
  let client;
  try {
    await server.line();
    client = start([...node, script('client.js'), transport, address, times, messages]);
    let line;
    while ((line = await client.line()) === 'count') {
      counter.say('');
      client.say(await counter.line());
    }
    const { cost, mean, ...rest } = JSON.parse(line);
    const result = { suite: 'node', transport: transport === 'net' ? 'unix' : transport, api };
    const label = `node-${transport}`;
    const [left, back, arrived] = ['left', 'back', 'arrived'].map((name) => `${times}-${name}`);
    for (const [measure, samples, value] of [
      ['one-way', differences(`${label}-one-way`, arrived, left, cost), -1],
      ['round-trip', differences(`${label}-round-trip`, back, left, cost), mean],
    ]) {
      console.log(JSON.stringify({ ...result, measure, bytes: 32, ...rest, mean: value, samples }));
    }
  } finally {
    await Promise.all([server.end(), counter.end(), client?.end()]);
  }
}

await runNode('rpal', 'callSync');
await runNode('net', 'node:net');
// Our own fallback is slower than plain node:net; counting its instructions takes minutes.
if (mode === 'wall') await runNode('unix', 'call');
