import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type ChoiceOptions, chooseHypervisor, NoHypervisorError } from './choose-hypervisor.ts';
import { TestHost } from './test-host.ts';

let host: TestHost;
beforeEach(() => {
  host = new TestHost();
});
afterEach(() => host[Symbol.dispose]());

function choose(env: Record<string, string> = {}, more: Partial<ChoiceOptions> = {}) {
  return chooseHypervisor({ env: { PATH: process.env.PATH, ...env }, root: host.root, arch: 'x64', ...more });
}

async function refusal(choice: Promise<unknown>): Promise<NoHypervisorError> {
  const error = await choice.catch((e: unknown) => e);
  if (!(error instanceof NoHypervisorError)) throw new Error(`Not refused: ${JSON.stringify(error)}`);
  return error;
}

it('emulates where there is no KVM', async () => {
  const { hypervisor, explanation } = await choose();
  expect(hypervisor.identity).toMatchObject({ kind: 'qemu', accelerator: 'tcg', arch: 'x86_64' });
  expect(hypervisor.identity.version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(explanation.find(({ what }) => what === '/dev/kvm')?.detail).toBe('is not there');
  expect(explanation.at(-1)).toMatchObject({ what: 'hypervisor', ok: true });
});

it('emulates where KVM is PVM, though its device opens', async () => {
  writeFileSync(host.root.kvmPath, '');
  host.addPvmModule();
  const { hypervisor, explanation } = await choose();
  expect(hypervisor.identity.accelerator).toBe('tcg');
  expect(explanation.find(({ what }) => what === 'processor virtualisation')?.detail).toMatch(/PVM/);
});

it('does as WRENN_ACCEL says, with a warning', async () => {
  writeFileSync(host.root.kvmPath, '');
  const { hypervisor, explanation } = await choose({ WRENN_ACCEL: 'kvm' });
  expect(hypervisor.identity.accelerator).toBe('kvm');
  expect(hypervisor.identity.cpu).toMatch(/^host:AuthenticAMD\//);
  expect(explanation.find(({ what }) => what === 'acceleration')?.detail).toMatch(/will probably hang/);
});

it('refuses KVM that is asked for and cannot be opened', async () => {
  expect((await refusal(choose({ WRENN_ACCEL: 'kvm' }))).message).toMatch(/WRENN_ACCEL=kvm.*Unset WRENN_ACCEL/);
});

it('refuses Firecracker, which has no driver yet', async () => {
  const error = await refusal(choose({ WRENN_HYPERVISOR: 'firecracker' }));
  expect(error.message).toMatch(/no driver for Firecracker.*set it to qemu/);
  expect(error.explanation.filter(({ ok }) => !ok)).toHaveLength(1);
});

it('names unknown values', async () => {
  await expect(choose({ WRENN_ACCEL: 'fast', WRENN_HYPERVISOR: 'xen' })).rejects.toThrow(
    /WRENN_HYPERVISOR.*\n.*WRENN_ACCEL/,
  );
});

it('names everything that is missing at once', async () => {
  host.setPtraceScope(3);
  const { message } = await refusal(choose({ PATH: '/no/such/folder' }));
  expect(message).toMatch(/apt-get install qemu-system-x86/);
  expect(message).toMatch(/ptrace_scope/);
});

it('refuses an old QEMU', async () => {
  const old = join(host.dir, 'qemu-system-x86_64');
  writeFileSync(old, '#!/bin/sh\necho QEMU emulator version 6.2.0\n', { mode: 0o755 });
  expect((await refusal(choose({ PATH: `${host.dir}:${process.env.PATH}` }))).message).toMatch(
    /version 6\.2\.0.*7\.2 or later/,
  );
});

it('refuses other processors', async () => {
  expect((await refusal(choose({}, { arch: 'riscv64' }))).message).toMatch(/not on riscv64/);
});

it('gives one identity to hosts whose counters run at nearly the same rate', async () => {
  const cpu = async (bogomips: string) => {
    host.setProcessor('fpu tsc', bogomips);
    return (await choose()).hypervisor.identity.cpu;
  };
  expect(await cpu('4900.00')).toBe(await cpu('4899.81'));
  expect(await cpu('4900.00')).not.toBe(await cpu('5200.00'));
});
