import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type HostRoot, readHostFacts } from './host-facts.ts';
import { TestHost } from './test-host.ts';

let host: TestHost;
let root: HostRoot;
beforeEach(() => {
  host = new TestHost();
  root = host.root;
});
afterEach(() => host[Symbol.dispose]());

it('sees virtualisation by the flags of the processor', async () => {
  host.setProcessor('fpu tsc svm_lock');
  expect((await readHostFacts(root)).extension).toBeUndefined();
  host.setProcessor('fpu tsc svm');
  expect((await readHostFacts(root)).extension).toBe('svm');
  host.setProcessor('fpu tsc vmx');
  expect((await readHostFacts(root)).extension).toBe('vmx');
});

it('takes the rate of the time stamp counter and not the clock of the moment', async () => {
  host.setProcessor('fpu tsc');
  expect((await readHostFacts(root)).tscKhz).toBe(2_596_135);
  host.setProcessor('fpu');
  expect((await readHostFacts(root)).tscKhz).toBeUndefined();
});

it('names a processor by model and features', async () => {
  host.setProcessor('fpu tsc avx');
  const { processor } = await readHostFacts(root);
  expect(processor).toMatch(/^AuthenticAMD\/25\/17\/1\/[0-9a-f]{8}$/);
  host.setProcessor('avx tsc fpu');
  expect((await readHostFacts(root)).processor).toBe(processor);
  host.setProcessor('fpu tsc');
  expect((await readHostFacts(root)).processor).not.toBe(processor);
});

it('sees PVM by its module or by the configuration of the kernel', async () => {
  host.setProcessor('fpu tsc');
  expect((await readHostFacts(root)).pvm).toBe(false);
  writeFileSync(join(root.procDir, 'config.gz'), gzipSync('CONFIG_KVM=y\nCONFIG_KVM_PVM=y\n'));
  expect((await readHostFacts(root)).pvm).toBe(true);
  writeFileSync(join(root.procDir, 'config.gz'), gzipSync('# CONFIG_KVM_PVM is not set\nCONFIG_PVM_GUEST=y\n'));
  expect((await readHostFacts(root)).pvm).toBe(false);
  host.addPvmModule();
  expect((await readHostFacts(root)).pvm).toBe(true);
});

it('tries to open the KVM device', async () => {
  host.setProcessor('fpu tsc');
  expect((await readHostFacts(root)).kvmDevice).toBe('missing');
  mkdirSync(root.kvmPath);
  expect((await readHostFacts(root)).kvmDevice).toBe('forbidden');
  rmSync(root.kvmPath, { recursive: true });
  writeFileSync(root.kvmPath, '');
  expect((await readHostFacts(root)).kvmDevice).toBe('usable');
});

it('reads the limit on reading other processes', async () => {
  host.setProcessor('fpu tsc');
  expect((await readHostFacts(root)).ptraceScope).toBe(0);
  host.setPtraceScope(3);
  expect((await readHostFacts(root)).ptraceScope).toBe(3);
});
