import { expect, it } from 'vitest';
import { probeKvm } from './kvm-probe.ts';

it('has a guest that reaches its goal', async () => {
  expect(await probeKvm('qemu-system-x86_64', 'tcg')).toBeUndefined();
});

it('says why QEMU ran no guest', async () => {
  expect(await probeKvm('/no/such/qemu')).toMatch(/could not run a guest.*ENOENT/);
});
