import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type HostRoot, readHostFacts } from './host-facts.ts';

let dir: string;
let root: HostRoot;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-host-'));
  root = {
    procDir: join(dir, 'proc'),
    sysDir: join(dir, 'sys'),
    bootDir: join(dir, 'boot'),
    kvmPath: join(dir, 'kvm'),
  };
  mkdirSync(join(root.procDir, 'sys/kernel/yama'), { recursive: true });
});
afterEach(() => rmSync(dir, { recursive: true }));

function cpuinfo(flags: string, model = '17'): void {
  const processor = `vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: ${model}\nstepping\t: 1\ncpu MHz\t\t: 3100.0\nflags\t\t: ${flags}\nbogomips\t: 5192.27\n`;
  writeFileSync(join(root.procDir, 'cpuinfo'), `processor\t: 0\n${processor}\nprocessor\t: 1\n${processor}\n`);
}

it('sees virtualisation by the flags of the processor', async () => {
  cpuinfo('fpu tsc svm_lock');
  expect((await readHostFacts(root)).extension).toBeUndefined();
  cpuinfo('fpu tsc svm');
  expect((await readHostFacts(root)).extension).toBe('svm');
  cpuinfo('fpu tsc vmx');
  expect((await readHostFacts(root)).extension).toBe('vmx');
});

it('takes the rate of the time stamp counter and not the clock of the moment', async () => {
  cpuinfo('fpu tsc');
  expect((await readHostFacts(root)).tscKhz).toBe(2_596_135);
  cpuinfo('fpu');
  expect((await readHostFacts(root)).tscKhz).toBeUndefined();
});

it('names a processor by model and features', async () => {
  cpuinfo('fpu tsc avx');
  const { processor } = await readHostFacts(root);
  expect(processor).toMatch(/^AuthenticAMD\/25\/17\/1\/[0-9a-f]{8}$/);
  cpuinfo('avx tsc fpu');
  expect((await readHostFacts(root)).processor).toBe(processor);
  cpuinfo('fpu tsc');
  expect((await readHostFacts(root)).processor).not.toBe(processor);
});

it('sees PVM by its module or by the configuration of the kernel', async () => {
  cpuinfo('fpu tsc');
  expect((await readHostFacts(root)).pvm).toBe(false);
  writeFileSync(join(root.procDir, 'config.gz'), gzipSync('CONFIG_KVM=y\nCONFIG_KVM_PVM=y\n'));
  expect((await readHostFacts(root)).pvm).toBe(true);
  writeFileSync(join(root.procDir, 'config.gz'), gzipSync('# CONFIG_KVM_PVM is not set\nCONFIG_PVM_GUEST=y\n'));
  expect((await readHostFacts(root)).pvm).toBe(false);
  mkdirSync(join(root.sysDir, 'module/kvm_pvm'), { recursive: true });
  expect((await readHostFacts(root)).pvm).toBe(true);
});

it('tries to open the KVM device', async () => {
  cpuinfo('fpu tsc');
  expect((await readHostFacts(root)).kvmDevice).toBe('missing');
  mkdirSync(root.kvmPath);
  expect((await readHostFacts(root)).kvmDevice).toBe('forbidden');
  rmSync(root.kvmPath, { recursive: true });
  writeFileSync(root.kvmPath, '');
  expect((await readHostFacts(root)).kvmDevice).toBe('usable');
});

it('reads the limit on reading other processes', async () => {
  cpuinfo('fpu tsc');
  expect((await readHostFacts(root)).ptraceScope).toBe(0);
  writeFileSync(join(root.procDir, 'sys/kernel/yama/ptrace_scope'), '3\n');
  expect((await readHostFacts(root)).ptraceScope).toBe(3);
});
