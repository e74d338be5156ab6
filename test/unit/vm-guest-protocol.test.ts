import { describe, expect, it } from 'vitest';
import { encodeCommand, encodeFrame, FrameReader } from '../../vm/guest-protocol.js';

describe('frames', () => {
  it('arrive whole, however the bytes are cut', () => {
    const bytes = Buffer.concat([
      encodeFrame('O', 'hello'),
      encodeFrame('H'),
      encodeFrame('E', Buffer.from([0, 255, 10])),
    ]);
    for (let size = 1; size <= bytes.length; size++) {
      const reader = new FrameReader();
      const frames = [];
      for (let at = 0; at < bytes.length; at += size) {
        frames.push(...reader.push(bytes.subarray(at, at + size)));
      }
      expect(frames.map(({ type, payload }) => [type, payload.toString('latin1')])).toEqual([
        ['O', 'hello'],
        ['H', ''],
        ['E', '\0\u00ff\n'],
      ]);
    }
  });

  it('refuses what the guest would not take', () => {
    expect(() => encodeFrame('I', Buffer.alloc((4 << 20) + 1))).toThrow(RangeError);
  });
});

describe('encodeCommand', () => {
  it('keeps every word as it is', () => {
    const command = {
      argv: ['sh', '-c', 'echo "$1"', '', 'a b', "'"],
      cwd: '/with space',
      env: { A: '1=2', B: '' },
      marker: '#1',
      terminal: { rows: 3, columns: 4 },
    };
    expect(encodeCommand(command).toString().split('\0')).toEqual([
      'w/with space',
      'ash',
      'a-c',
      'aecho "$1"',
      'a',
      'aa b',
      "a'",
      'eA=1=2',
      'eB=',
      'm#1',
      't3x4',
      '',
    ]);
  });

  it('does not let a NUL split a word', () => {
    expect(() => encodeCommand({ argv: ['a\0b'], cwd: '/', env: {} })).toThrow(/NUL/);
  });
});
