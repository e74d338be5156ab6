/** Two services that use librpal directly. Argument: server or client. They talk by lines. */
import { createInterface } from 'node:readline';
import {
  attachThread,
  capabilities,
  createEpoll,
  registerService,
  releaseService,
  requestService,
  rpalCall,
  rpalEpollWait,
  rpalReply,
  threadCounters,
} from 'rpal';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const hear = async () => JSON.parse((await lines.next()).value);
const say = (value) => console.log(JSON.stringify(value));

const service = registerService(5n);
say({ key: service.key.toString(), capabilities: capabilities() });
const key = BigInt((await hear()).key);
requestService(key);
say('requested');
await hear();
const peer = requestService(key);

if (process.argv[2] === 'server') {
  const tid = attachThread('receiver');
  const epoll = createEpoll();
  // Before the client knows whom to call.
  const nothing = rpalEpollWait(epoll, 10);
  say({ tid });
  let served = 0;
  while (served < 1000) {
    const { call } = rpalEpollWait(epoll);
    if (!call) continue;
    served += 1;
    rpalReply(
      7,
      call.words.map((word) => word + 1n),
    );
  }
  // The answer of the last call goes out with the next wait.
  rpalEpollWait(epoll, 50);
  say({ served, nothing: nothing.call === undefined && nothing.events.length === 0 });
} else {
  const { tid } = await hear();
  attachThread('sender');
  let right = 0;
  for (let i = 0; i < 1000; i += 1) {
    const words = BigUint64Array.of(BigInt(i), 2n, 3n, 4n, 5n, 6n);
    const answer = rpalCall({ tid, pkey: peer.pkey }, words, 5000);
    if (answer.status === 7 && answer.words.every((word, at) => word === words[at] + 1n))
      right += 1;
  }
  const counters = threadCounters();
  releaseService(peer.id);
  say({ right, linked: peer.linked, meta: peer.meta.toString(), calls: counters.calls });
}
process.exit(0);
