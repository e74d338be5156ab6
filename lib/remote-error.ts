import { codeOf, messageOf, RpalError } from './errors.js';

/** The parts of an error that travel to the caller. */
interface TravellingError {
  name: string;
  code?: string;
  message: string;
  stack?: string;
}

/** What a handler threw, as the payload of an answer of kind error. */
export function encodeError(thrown: unknown): Uint8Array {
  const code = codeOf(thrown);
  const error: TravellingError = {
    name: thrown instanceof Error ? thrown.name : 'Error',
    message: messageOf(thrown),
    ...(code === undefined ? {} : { code }),
    ...(thrown instanceof Error && thrown.stack !== undefined ? { stack: thrown.stack } : {}),
  };
  return Buffer.from(JSON.stringify(error));
}

/** The error that the caller gets for it. */
export function decodeError(method: string, payload: Uint8Array): RpalError {
  let error: Partial<TravellingError>;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(payload).toString());
    error = typeof parsed === 'object' && parsed !== null ? parsed : {};
  } catch {
    error = {};
  }
  const message = typeof error.message === 'string' ? error.message : 'the handler failed';
  return new RpalError(
    typeof error.code === 'string' ? error.code : 'ERR_RPAL_HANDLER',
    `${message} (thrown by the handler of '${method}' in the other process)`,
    typeof error.stack === 'string' ? { remoteStack: error.stack } : {},
  );
}
