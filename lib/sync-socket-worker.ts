/** The thread of a {@link SyncSocket}: waits for the socket while the caller's thread sleeps. */
import { workerData } from 'node:worker_threads';
import { ClientChannel } from './client-channel.js';
import { codeOf, messageOf } from './errors.js';
import { FrameType, jsonFrame, requestFrame, RequestFlag } from './frames.js';
import type { SyncCancel, SyncRequest, SyncResult, SyncWorkerData } from './sync-socket.js';

const { path, address, hello, port, arrivals } = workerData as SyncWorkerData;

function deliver(result: SyncResult): void {
  port.postMessage(result);
  Atomics.add(arrivals, 0, 1);
  Atomics.notify(arrivals, 0);
}

function fail(id: number, error: unknown): void {
  deliver({ id, code: codeOf(error) ?? 'ERR_RPAL_CONNECT', message: messageOf(error) });
}

async function openChannel(): Promise<ClientChannel> {
  const opened = await ClientChannel.open(path, address, () => undefined);
  await opened.greet(hello);
  opened.send(jsonFrame(FrameType.ready, { rpal: false }));
  return opened;
}

const opening = openChannel();
// A failure is reported to the call that needs the channel.
opening.catch(() => undefined);

port.on('message', (message: SyncRequest | SyncCancel) => {
  if ('cancel' in message) {
    // Where there is no channel, there is no call.
    opening.then(
      (channel) => {
        channel.cancel(message.cancel);
      },
      () => undefined,
    );
    return;
  }
  const { id, method, payload } = message;
  opening.then(
    (channel) => {
      channel.expect(id, {
        answered: (kind, answer) => {
          deliver({ id, kind, payload: answer });
        },
        lost: (reason) => {
          fail(id, reason);
        },
      });
      channel.send(requestFrame(id, method, RequestFlag.sync, payload));
    },
    (error: unknown) => {
      fail(id, error);
    },
  );
});
