import { describe, expect, it } from 'vitest';
import { seriesLines, tooMany } from '../../vm/kernel-lines.js';

const code = (lines: number) => ({ blank: 1, comment: 7, code: lines, nFiles: 0 });

describe('seriesLines', () => {
  it('tells files of RPAL from those of others, and counts C only', () => {
    const json = JSON.stringify({
      header: { cloc_version: '2.11' },
      added: {
        'arch/x86/rpal/park.c': code(300),
        'include/uapi/linux/rpal.h': code(100),
        'kernel/exit.c': code(2),
        'Documentation/arch/x86/rpal.rst': code(200),
        'arch/x86/rpal/Makefile': code(3),
      },
      modified: { 'kernel/exit.c': code(1), 'arch/x86/entry/entry_64.S': code(4) },
      removed: { 'kernel/exit.c': code(9) },
      SUM: { added: code(605) },
    });
    expect(seriesLines(json)).toEqual({ own: 400, hooks: 7 });
  });
});

describe('tooMany', () => {
  it('has nothing against a series within its limits', () => {
    expect(tooMany({ own: 2250, hooks: 250 })).toEqual([]);
  });

  it('names each limit that is exceeded', () => {
    expect(tooMany({ own: 2250, hooks: 251 })).toHaveLength(2);
    expect(tooMany({ own: 2400, hooks: 101 })).toEqual(['2501 lines of code are more than 2500']);
  });
});
