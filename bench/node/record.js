/**
 * Messages of 32 bytes of which none can be lost, doubled or mixed up unnoticed: each of the eight
 * words is another function of the message's number, and of each the server inverts a byte.
 *
 * The client makes the messages of a batch before the clock runs and verifies all bytes of all
 * answers after it, so that neither is taken for a cost of the transport.
 */
export const bytes = 32;

/** A message, and its words. */
export function newMessage() {
  const message = new Uint8Array(bytes);
  return { message, words: new Int32Array(message.buffer) };
}

/** Makes it the message with this number. */
export function fill(words, number) {
  for (let i = 0; i < words.length; i += 1) words[i] = Math.imul(number + i, 0x9e3779b1);
}

/** What the server answers. */
export function answer(message) {
  for (let i = 0; i < bytes; i += 4) message[i] = ~message[i];
  return message;
}

/** Ends the process if this is not the answer to that message: a run with a wrong one is void. */
export function verify(answered, message, number) {
  let wrong = answered.length ^ bytes;
  for (let i = 0; i < bytes; i += 1) {
    wrong |= answered[i] ^ message[i] ^ (i % 4 === 0 ? 0xff : 0);
  }
  if (wrong === 0) return;
  throw new Error(`The answer to message ${number} is wrong: this run is no result.`);
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
