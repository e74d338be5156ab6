import { describe, expect, it } from 'vitest';
import { droppedOptions, parseKernelOptions } from '../../vm/kernel-config.js';
import { patchName, seriesText } from '../../vm/kernel-tree.js';
import { versionFromMakefile } from '../../vm/linux-source.js';
import { doesNotApply, parseSeries } from '../../vm/patch-series.js';
import { mirrorFromIndexTargets } from '../../vm/rootfs.js';

describe('kernel options', () => {
  it('lets later lines win and knows two ways to say no', () => {
    const options = parseKernelOptions(
      '# comment\nCONFIG_A=y\nCONFIG_B=16\n# CONFIG_A is not set\nCONFIG_S="x=y"\n',
    );
    expect([...options]).toEqual([
      ['CONFIG_A', 'n'],
      ['CONFIG_B', '16'],
      ['CONFIG_S', '"x=y"'],
    ]);
  });

  it('reports what a configuration does not have', () => {
    const wanted = parseKernelOptions(
      'CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=4\n',
    );
    const got = parseKernelOptions('CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=8\n');
    expect(droppedOptions(wanted, got).map(({ name, got: value }) => [name, value])).toEqual([
      ['CONFIG_B', 'n'],
      ['CONFIG_C', 'y'],
      ['CONFIG_D', '8'],
    ]);
    expect(droppedOptions(parseKernelOptions('# CONFIG_X is not set'), new Map())).toEqual([]);
  });
});

describe('series', () => {
  it('reads what it writes', () => {
    const names = ['0001-rpal-slots.patch', '0002-rpal-share.patch'];
    expect(parseSeries(seriesText('6.12.117', names))).toEqual({
      madeFor: '6.12.117',
      patches: names,
    });
    expect(parseSeries('')).toEqual({ madeFor: undefined, patches: [] });
  });

  it('names patches by topic', () => {
    expect(patchName('0001-rpal-slots-by-exec.patch')).toBe('0001-rpal-slots-by-exec.patch');
    expect(patchName('0002-mm-Flush-peers.patch')).toBe('0002-rpal-mm-flush-peers.patch');
  });

  it('says what to do on another version, and that something was changed on the same', () => {
    const series = parseSeries('# made-for: 6.12.117\na.patch\n');
    expect(doesNotApply('a.patch', series, '6.12.200')).toMatch(/6\.12\.117[^]*npm run kernel/);
    expect(doesNotApply('a.patch', series, '6.12.117')).toMatch(/has been changed/);
  });
});

describe('versionFromMakefile', () => {
  it('puts the parts together', () => {
    const makefile =
      'VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION = -rc1\nNAME = x\n';
    expect(versionFromMakefile(makefile, '/x')).toBe('6.12.117-rc1');
    expect(versionFromMakefile(makefile.replace('-rc1', ''), '/x')).toBe('6.12.117');
    expect(() => versionFromMakefile('all:\n', '/x')).toThrow('/x is not a Linux source tree');
  });
});

describe('mirrorFromIndexTargets', () => {
  it('takes the main archive, not updates of another kind', () => {
    expect(
      mirrorFromIndexTargets(
        'Debian|Debian-Security|main|http://mirror.example/security/\n' +
          'Debian|Debian|contrib|http://mirror.example/contrib/\n' +
          'Debian|Debian|main|http://mirror.example/debian/\n',
      ),
    ).toBe('http://mirror.example/debian/');
  });

  it('does not take another distribution for Debian', () => {
    expect(mirrorFromIndexTargets('Ubuntu|Ubuntu|main|http://mirror.example/ubuntu/')).toBe(
      undefined,
    );
    expect(mirrorFromIndexTargets('')).toBe(undefined);
  });
});
