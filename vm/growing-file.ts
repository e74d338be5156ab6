import { closeSync, openSync, readSync, watch, type FSWatcher } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';

/** Follows a file that another process appends to, as `tail -f` does. */
export class GrowingFile {
  readonly #fd: number;
  readonly #watcher: FSWatcher;
  readonly #decoder = new StringDecoder('utf8');
  readonly #buffer = Buffer.alloc(65536);
  readonly #onText: (text: string) => void;

  /** The file must exist. */
  constructor(path: string, onText: (text: string) => void) {
    this.#onText = onText;
    this.#fd = openSync(path, 'r');
    this.#watcher = watch(path, { persistent: false }, () => {
      this.#read();
    });
  }

  #read(): void {
    let length: number;
    while ((length = readSync(this.#fd, this.#buffer)) > 0) {
      this.#onText(this.#decoder.write(this.#buffer.subarray(0, length)));
    }
  }

  /** Takes what is left; call it when nobody writes any more. */
  close(): void {
    this.#watcher.close();
    this.#read();
    closeSync(this.#fd);
  }
}
