import { AsyncResource } from 'node:async_hooks';
import { constants } from 'node:os';
import { type Addon, loadAddon } from './addon.js';
import { RpalError, systemError } from './errors.js';
import {
  CallFlag,
  Exchange,
  InlineBytes,
  inlineBytes,
  Place,
  ReplyForm,
  Word,
} from './exchange.js';
import type { RpalOffer } from './handshake.js';
import type { LinkedReceiver, ServerConnection } from './server-connection.js';

/**
 * Runs what handlers have put off, microtasks and process.nextTick(), as Node.js itself does
 * between two timers that are due at the same time. The name is old, the function is what Node.js
 * offers for "emulating a tick" since its beginning.
 */
const { _tickCallback: runTicks } = process as unknown as { _tickCallback?: () => void };

/** The contexts of calls end by themselves. */
const contextOptions = { requireManualDestroy: true };

function invoke(
  connection: ServerConnection,
  method: number,
  id: number,
  sync: boolean,
  payload: Uint8Array,
): Uint8Array | undefined {
  return connection.invoke(method, id, sync, payload, 'rpal');
}

/** This thread as a receiver of RPAL calls, shared by all its servers. */
export class Receiver {
  static #open: Receiver | undefined;

  readonly #request: InlineBytes;
  readonly #connections: (ServerConnection | undefined)[] = [];

  private constructor(
    private readonly addon: Addon,
    private readonly exchange: Exchange,
    private readonly abi: number,
    private readonly service: number,
    private readonly key: string,
    private readonly tid: number,
  ) {
    this.#request = new InlineBytes(exchange, Place.served);
  }

  /** Makes this thread a receiver; the reason why not otherwise. */
  static open(): Receiver | string {
    if (Receiver.#open) return Receiver.#open;
    const addon = loadAddon();
    if (typeof addon === 'string') return addon;
    if (runTicks === undefined) return 'this version of Node.js cannot run a single tick';
    const tid = addon.openReceiver((payload) => {
      Receiver.#open?.dispatch(payload);
    });
    if (tid === -constants.errno.ENOEXEC) {
      return 'the event loop of this process cannot be called: start it with rpal run -- node …';
    }
    if (tid < 0) return systemError('Becoming an RPAL receiver', tid).message;
    const own = addon.service();
    if (own === undefined) return 'this process is no RPAL service';
    Receiver.#open = new Receiver(
      addon,
      new Exchange(addon.exchange),
      own.abi,
      own.id,
      own.key.toString(16),
      tid,
    );
    return Receiver.#open;
  }

  /** Links with a client's service; the reason why not otherwise. */
  link(
    connection: ServerConnection,
    offer: RpalOffer,
    maxPayload: number,
  ): LinkedReceiver | string {
    if (offer.abi !== this.abi) return 'the client uses another version of RPAL';
    if (offer.service === this.service) return 'the client is in the same process';
    const key = BigInt(`0x${offer.key}`);
    const cookie = this.addon.linkClient(key, Math.min(maxPayload, 0xffffffff));
    if (typeof cookie === 'number') return systemError('Linking with the client', cookie).message;
    const index = Number(cookie & 0xffffffffn);
    this.#connections[index] = connection;
    return {
      offer: {
        abi: this.abi,
        service: this.service,
        key: this.key,
        receiver: this.tid,
        cookie: cookie.toString(16),
      },
      confirm: () => {
        if (this.addon.clientLinked(index, key)) return;
        throw new RpalError(
          'ERR_RPAL_LINK',
          'The client says that it has linked with this process, and the kernel says that it has not.',
        );
      },
      close: () => {
        if (this.#connections[index] !== connection) return;
        this.#connections[index] = undefined;
        this.addon.unlinkClient(index);
      },
    };
  }

  /**
   * Called by the addon when a call has arrived; see exchange.ts for how its parts come and go.
   * Takes the calls that follow, too, until the event loop has something else to do.
   */
  private dispatch(bulk: Uint8Array | undefined): void {
    const { addon, exchange } = this;
    let payload = bulk;
    if (runTicks === undefined) return;
    do {
      const answer = this.#answer(payload);
      try {
        runTicks();
      } catch (error) {
        addon.reportUncaught(error);
      }
      payload = addon.next(answer);
    } while (exchange.word(Word.servedPresent) !== 0);
  }

  /** Answers the call in the exchange block. Returns the bytes of an answer that is too long. */
  #answer(bulk: Uint8Array | undefined): Uint8Array | undefined {
    const { exchange } = this;
    const { words } = exchange;
    const connection = this.#connections[exchange.word(Word.servedConnection)];
    if (connection === undefined) {
      words[Word.answerForm] = ReplyForm.deferred;
      return undefined;
    }
    const method = exchange.word(Word.servedMethod);
    const id = exchange.word(Word.servedId) >>> 0;
    const sync = (exchange.word(Word.servedFlags) & CallFlag.sync) !== 0;
    // The handler may keep its payload, the block is reused.
    const payload = bulk ?? this.#request.copy(exchange.word(Word.servedLength));
    // Every call has an asynchronous context of its own.
    const answer = new AsyncResource('RPAL', contextOptions).runInAsyncScope(
      invoke,
      undefined,
      connection,
      method,
      id,
      sync,
      payload,
    );
    if (!sync) connection.remember(id, answer);
    if (answer === undefined) {
      words[Word.answerForm] = ReplyForm.deferred;
      return undefined;
    }
    words[Word.answerKind] = connection.answerKind;
    if (answer.length > inlineBytes) {
      words[Word.answerForm] = ReplyForm.bulk;
      return answer;
    }
    words[Word.answerForm] = ReplyForm.inline;
    words[Word.answerLength] = answer.length;
    exchange.put(Place.answer, answer);
    return undefined;
  }
}
