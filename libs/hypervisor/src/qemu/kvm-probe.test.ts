import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { probeKvm } from './kvm-probe.ts';

it('has a guest that reaches its goal', async () => {
  expect(await probeKvm('qemu-system-x86_64', 'tcg')).toBeUndefined();
});

it('says why QEMU ran no guest', async () => {
  expect(await probeKvm('/no/such/qemu')).toMatch(/could not run a guest.*ENOENT/);
});

it('asks a second time, and no more, where the first guest is not done in time', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-probe-'));
  try {
    const qemu = join(dir, 'qemu');
    await writeFile(qemu, '#!/bin/sh\nsleep 1\nexit 85\n', { mode: 0o755 });
    expect(await probeKvm(qemu, 'kvm', [50, 60_000])).toBeUndefined();
    await writeFile(qemu, '#!/bin/sh\nexec sleep 60\n');
    expect(await probeKvm(qemu, 'kvm', [50, 100])).toMatch(/did not end within 50 ms, nor within 100 ms/);
  } finally {
    await rm(dir, { recursive: true });
  }
});
