/** Messages of 32 bytes of which none can be lost, doubled or mixed up unnoticed. */
export const bytes = 32;

/** Fills a message with its number: each group of four bytes holds another function of it. */
export function fill(message, number) {
  for (let i = 0; i < bytes; i += 4) {
    const word = Math.imul(number + i, 0x9e3779b1);
    message[i] = word;
    message[i + 1] = word >>> 8;
    message[i + 2] = word >>> 16;
    message[i + 3] = word >>> 24;
  }
}

/** Ends the process if these are not the bytes of that number: a run with a wrong one is void. */
export function verify(message, number) {
  let wrong = message.length ^ bytes;
  for (let i = 0; i < bytes; i += 4) {
    const word = Math.imul(number + i, 0x9e3779b1);
    wrong |=
      word ^ (message[i] | (message[i + 1] << 8) | (message[i + 2] << 16) | (message[i + 3] << 24));
  }
  if (wrong === 0) return;
  throw new Error(`Message ${number} is wrong: this run is no result.`);
}

/** What the server answers to it. */
export function answerTo(number) {
  return ~number;
}

/** The clock of both processes, in ns; under icount these are instructions. */
export function now() {
  return Number(process.hrtime.bigint());
}

/** What two readings of the clock differ by when nothing is between them. */
export function clockCost() {
  let least = Infinity;
  for (let i = 0; i < 20000; i += 1) {
    const start = now();
    least = Math.min(least, now() - start);
  }
  return least;
}
