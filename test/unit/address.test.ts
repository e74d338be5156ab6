import { resolve } from 'node:path';
import { expect, it } from 'vitest';
import { socketPath } from '../../lib/address.js';

it('takes paths, unix: and abstract names', () => {
  expect(socketPath('/run/a.sock')).toBe('/run/a.sock');
  expect(socketPath('unix:/run/a.sock')).toBe('/run/a.sock');
  expect(socketPath('a.sock')).toBe(resolve('a.sock'));
  expect(socketPath('@a')).toBe('\0a');
});

it.each(['', 'unix:', '@', 'a\0b', `/${'x'.repeat(107)}`])('refuses %j', (address) => {
  expect(() => socketPath(address)).toThrow(expect.objectContaining({ code: 'ERR_RPAL_ADDRESS' }));
});
