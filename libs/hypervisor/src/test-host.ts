import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostRoot } from './host-facts.ts';

/** A host for tests whose /proc, /sys and devices are files of the test's own. */
export class TestHost {
  readonly dir = mkdtempSync(join(tmpdir(), 'wrenn-host-'));
  readonly root: HostRoot = {
    procDir: join(this.dir, 'proc'),
    sysDir: join(this.dir, 'sys'),
    bootDir: join(this.dir, 'boot'),
    kvmPath: join(this.dir, 'kvm'),
  };

  constructor() {
    mkdirSync(join(this.root.procDir, 'sys/kernel/yama'), { recursive: true });
    mkdirSync(this.root.sysDir);
    this.setProcessor('fpu tsc');
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true });
  }

  /** Two processors of the same kind. */
  setProcessor(flags: string, bogomips = '5192.27'): void {
    const fields = `vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\ncpu MHz\t\t: 3100.0\nflags\t\t: ${flags}\nbogomips\t: ${bogomips}\n`;
    writeFileSync(join(this.root.procDir, 'cpuinfo'), `processor\t: 0\n${fields}\nprocessor\t: 1\n${fields}\n`);
  }

  setPtraceScope(scope: number): void {
    writeFileSync(join(this.root.procDir, 'sys/kernel/yama/ptrace_scope'), `${scope}\n`);
  }

  addPvmModule(): void {
    mkdirSync(join(this.root.sysDir, 'module/kvm_pvm'), { recursive: true });
  }
}
