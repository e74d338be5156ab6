import { describe, expect, it } from 'vitest';
import { rpalNames } from '../../vm/kernel-symbols.js';

describe('rpalNames', () => {
  it('finds what belongs to RPAL, whatever kind of symbol it is', () => {
    const nm = [
      'ffffffff81000000 T start_kernel',
      'ffffffff81001000 t __rpal_exit_to_user',
      '                 U rpal_used',
      'ffffffff81002000 d RPAL_table.0',
      'ffffffff81003000 T do_exit',
    ].join('\n');
    expect(rpalNames(nm)).toEqual(['__rpal_exit_to_user', 'rpal_used', 'RPAL_table.0']);
  });

  it('finds nothing where there is nothing', () => {
    expect(rpalNames('ffffffff81000000 T start_kernel\n')).toEqual([]);
  });
});
