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
    const tid = addon.openReceiver((payload) => Receiver.#open?.dispatch(payload));
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

  /** Called by the addon for every call; see exchange.ts for how its parts come and go. */
  dispatch(bulk: Uint8Array | undefined): Uint8Array | undefined {
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
    const answer = connection.invoke(method, id, sync, payload, 'rpal');
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
