import { describe, expect, it } from 'vitest';
import { describeCgroups } from './cgroups.ts';
import { fail, ok, runCheck, warn } from './finding.ts';
import { describeDisk, describeMemory } from './machine.ts';
import { exitCodeFor, formatFindings } from './report.ts';
import { describeKeyFile, describeRoot } from './wrenn-dir.ts';

const GIB = 1024 ** 3;

describe('memory and disk', () => {
  it.each([
    [8 * GIB, 'ok'],
    [0.7 * GIB, 'warn'],
    [0.1 * GIB, 'fail'],
  ])('%d bytes of memory: %s', (bytes, status) => {
    expect(describeMemory(bytes, 16 * GIB).status).toBe(status);
  });

  it.each([
    [50 * GIB, 'ok'],
    [3 * GIB, 'warn'],
    [1 * GIB, 'fail'],
  ])('%d bytes of disk: %s', (bytes, status) => {
    expect(describeDisk('/var/lib/wrenn', bytes).status).toBe(status);
  });
});

describe('WRENN_DIR', () => {
  it.each([
    ['root passes, others pass through', 0o40711, 0, 'ok', undefined],
    ['others may list', 0o40755, 0, 'ok', undefined],
    ['others may write', 0o41777, 0, 'fail', 'chmod go-w /w'],
    ['microVMs cannot pass', 0o40700, 0, 'fail', 'chmod o+x /w'],
    ['not root', 0o40711, 1000, 'fail', 'chown root /w'],
  ])('%s', (_, mode, uid, status, remedy) => {
    expect(describeRoot('/w', { mode, uid })).toMatchObject({ status, ...(remedy === undefined ? {} : { remedy }) });
  });

  it('wants the key for its owner only', () => {
    expect(describeKeyFile('/w/api-key', { mode: 0o100600, uid: 0 }).status).toBe('ok');
    expect(describeKeyFile('/w/api-key', { mode: 0o100644, uid: 0 }).remedy).toBe('chmod 600 /w/api-key');
  });
});

describe('describeCgroups', () => {
  it.each([
    ['version 2', { version: 2 as const, controllers: ['cpu', 'memory', 'pids', 'io'] }, 'ok'],
    ['version 1', { version: 1 as const, controllers: ['cpu', 'memory', 'pids', 'blkio'] }, 'ok'],
    ['no limit for memory', { version: 2 as const, controllers: ['cpu', 'pids'] }, 'warn'],
    ['none', undefined, 'warn'],
  ])('%s', (_, found, status) => {
    expect(describeCgroups(found).status).toBe(status);
  });
});

describe('runCheck', () => {
  it('turns a check that breaks into a failure, so that the others are still shown', async () => {
    const run = async () => {
      throw new Error('no such device');
    };
    const findings = await runCheck({ title: 'network', run }, new AbortController().signal);
    expect(findings).toMatchObject([
      { name: 'network', status: 'fail', detail: expect.stringContaining('no such device') },
    ]);
  });
});

describe('formatFindings', () => {
  const findings = [
    ok('memory', 'enough'),
    warn('API', 'does not run', 'Start it.'),
    fail('nftables', 'is missing', 'Install it.'),
  ];

  it('is one line a finding, with the remedy below what needs one', () => {
    expect(formatFindings([{ title: 'Machine', findings }], (_, text) => text)).toBe(
      'Machine\n  ✓ memory    enough\n  ! API       does not run\n              → Start it.\n  ✗ nftables  is missing\n              → Install it.',
    );
  });

  it('fails only for what is needed', () => {
    expect(exitCodeFor(findings)).toBe(1);
    expect(exitCodeFor(findings.slice(0, 2))).toBe(0);
  });
});
