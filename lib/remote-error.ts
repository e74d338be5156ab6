import { codeOf, messageOf, RpalError } from './errors.js';
import { longestError } from './frames.js';

/** The parts of an error that travel to the caller. */
interface TravellingError {
  name: string;
  code?: string;
  message: string;
  stack?: string;
}

/**
 * Characters that are left of each part of an error that would be too long: so few that four
 * parts always fit, with 6 bytes for a character that JSON escapes.
 */
const charactersLeft = 2500;

/** What a handler threw, as the payload of an answer of kind error: at most longestError bytes. */
export function encodeError(thrown: unknown): Uint8Array {
  const whole = asBytes(partsOf(thrown, longestError));
  return whole.length <= longestError ? whole : asBytes(partsOf(thrown, charactersLeft));
}

function asBytes(error: TravellingError): Buffer {
  return Buffer.from(JSON.stringify(error));
}

function partsOf(thrown: unknown, characters: number): TravellingError {
  const cut = (text: unknown): string => {
    const whole = String(text);
    return whole.length <= characters ? whole : `${whole.slice(0, characters - 1)}…`;
  };
  try {
    const code = codeOf(thrown);
    return {
      name: thrown instanceof Error ? cut(thrown.name) : 'Error',
      message: cut(messageOf(thrown)),
      ...(code === undefined ? {} : { code: cut(code) }),
      ...(thrown instanceof Error && thrown.stack !== undefined
        ? { stack: cut(thrown.stack) }
        : {}),
    };
  } catch {
    // A getter or toString() of it has thrown.
    return { name: 'Error', message: 'the handler threw something that cannot be read' };
  }
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
