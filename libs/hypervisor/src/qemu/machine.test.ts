import { describe, expect, it } from 'vitest';
import type { VmSpec } from '../hypervisor.ts';
import { isAtLeast, type QemuProgram, qemuArguments } from './machine.ts';

const spec: VmSpec = {
  id: 'cl-1',
  shape: { vcpus: 2, memoryMb: 512 },
  kernelPath: '/k/vmlinux',
  initramfsPath: '/k/initramfs',
  disk: { path: '/d/disk,1.qcow2', format: 'qcow2' },
  network: { namespacePath: '/run/netns/n', tap: 'tap0', mac: '02:FC:00:00:00:05' },
  uid: 200_001,
  gid: 200_002,
  cgroupProcs: [],
  runDir: '/r,1',
};
const files = { controlFd: 3, controlSocket: '/r,1/qmp.sock', consolePath: '/r,1/console.log', jailDir: '/r,1/jail' };

function program(
  version: string,
  accelerator: 'kvm' | 'tcg' = 'tcg',
  arch: 'x86_64' | 'aarch64' = 'x86_64',
): QemuProgram {
  return {
    path: '/usr/bin/qemu',
    tscKhz: 2_500_000,
    identity: { kind: 'qemu', version, accelerator, arch, cpu: 'max' },
  };
}

const boot = { kind: 'boot' } as const;
const restore = { kind: 'restore', memoryPath: '/s/memory', devicesFd: 4 } as const;

function after(args: readonly string[], option: string): string | undefined {
  return args[args.indexOf(option) + 1];
}

/** The values of an option that are JSON. */
function objects(args: readonly string[], option: string): Record<string, unknown>[] {
  return args.flatMap((arg, i) => (args[i - 1] === option && arg.startsWith('{') ? [JSON.parse(arg)] : []));
}

describe('the command line', () => {
  it('emulates several vCPUs on one thread before QEMU 10', () => {
    expect(after(qemuArguments(program('7.2.22'), spec, boot, files), '-accel')).toContain('thread=single');
    expect(after(qemuArguments(program('10.0.2'), spec, boot, files), '-accel')).not.toContain('thread=');
    const single = { ...spec, shape: { vcpus: 1, memoryMb: 512 } };
    expect(after(qemuArguments(program('7.2.22'), single, boot, files), '-accel')).not.toContain('thread=');
  });

  it('never turns the mitigations of a guest on real hardware off', () => {
    const emulated = after(qemuArguments(program('7.2.22'), spec, boot, files), '-append');
    expect(emulated).toContain('mitigations=off');
    expect(emulated).toContain('tsc_early_khz=2500000');
    const args = qemuArguments(program('7.2.22', 'kvm'), spec, boot, files);
    expect(after(args, '-append')).not.toMatch(/mitigations|nokaslr|tsc/);
    expect(after(args, '-cpu')).toBe('host');
  });

  it('differs between a boot and a restore in memory and start only', () => {
    const booted = qemuArguments(program('7.2.22'), spec, boot, files);
    const restored = qemuArguments(program('7.2.22'), spec, restore, files);
    const start = ['-kernel', '-initrd', '-append'].flatMap((option) => [option, after(booted, option)]);
    const common = (args: string[]) => args.filter((arg) => !arg.includes('memory-backend') || arg.includes('machine'));
    expect(common(booted).filter((arg) => !start.includes(arg))).toEqual(
      common(restored).filter((arg) => arg !== '-incoming' && arg !== 'fd:4'),
    );
  });

  it('opens the memory of a snapshot read-only where QEMU can map it so', () => {
    const backend = (version: string) => objects(qemuArguments(program(version), spec, restore, files), '-object')[0];
    expect(backend('7.2.22')).not.toHaveProperty('readonly');
    expect(backend('8.2.0')).toMatchObject({ share: false, readonly: true, rom: 'off' });
  });

  it('drops its rights in the way of its version', () => {
    const args = (version: string) => qemuArguments(program(version), spec, boot, files).join(' ');
    expect(args('7.2.22')).toContain('-chroot /r,1/jail -runas 200001:200002');
    expect(args('8.1.0')).toContain('-run-with chroot=/r,,1/jail -runas 200001:200002');
    expect(args('9.1.0')).toContain('-run-with chroot=/r,,1/jail,user=200001:200002');
  });

  it('believes given layers of a disk and not the names in its files', () => {
    const disk = {
      ...spec.disk,
      backing: [
        { path: '/d/middle.qcow2', format: 'qcow2' },
        { path: '/d/base.ext4', format: 'raw' },
      ],
    } as const;
    const node = objects(qemuArguments(program('7.2.22'), { ...spec, disk }, boot, files), '-blockdev')[0];
    expect(node).toMatchObject({
      driver: 'qcow2',
      file: { filename: '/d/disk,1.qcow2' },
      backing: {
        driver: 'qcow2',
        'node-name': 'layer-1',
        'read-only': true,
        file: { filename: '/d/middle.qcow2', 'read-only': true },
        backing: { driver: 'raw', 'node-name': 'layer-0', 'read-only': true, file: { filename: '/d/base.ext4' } },
      },
    });
    const unnamed = objects(qemuArguments(program('7.2.22'), spec, boot, files), '-blockdev')[0];
    expect(unnamed).not.toHaveProperty('backing');
  });

  it('has the serial port of ARM on ARM', () => {
    const args = qemuArguments(program('9.1.0', 'tcg', 'aarch64'), spec, boot, files);
    expect(after(args, '-append')).toContain('console=ttyAMA0');
    expect(after(args, '-append')).not.toContain('tsc');
  });
});

it('compares versions by number', () => {
  expect(isAtLeast('10.0.2', 8, 2)).toBe(true);
  expect(isAtLeast('8.2', 8, 2)).toBe(true);
  expect(isAtLeast('8.1.9', 8, 2)).toBe(false);
  expect(isAtLeast('7.2.22', 8, 0)).toBe(false);
});
