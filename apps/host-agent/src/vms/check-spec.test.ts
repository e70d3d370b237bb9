import { describe, expect, it } from 'vitest';
import { checkShape, effectiveDiskMb, hostCapacity } from './check-spec.ts';

const HOST = { cpus: 4, memoryMb: 8192, availableMemoryMb: 4096 };

describe('checkShape', () => {
  it.each([
    [1, 128],
    [16, 4096],
  ])('takes %i vCPUs and %i MiB', (vcpus, memoryMb) => {
    expect(() => checkShape({ vcpus, memoryMb }, HOST)).not.toThrow();
  });

  it.each([
    [0, 512, /at least one/],
    [17, 512, /16 vCPUs are the most/],
    [1, 127, /at least 128/],
    [1, 8000, /7936 MiB are the most/],
    [1, 4097, /4096 MiB are free/],
  ])('refuses %i vCPUs and %i MiB and says why', (vcpus, memoryMb, message) => {
    expect(() => checkShape({ vcpus, memoryMb }, HOST)).toThrow(message);
  });

  it('knows this machine', () => {
    const host = hostCapacity();
    expect(host.cpus).toBeGreaterThan(0);
    expect(host.memoryMb).toBeGreaterThanOrEqual(host.availableMemoryMb);
    expect(host.availableMemoryMb).toBeGreaterThan(0);
  });
});

describe('effectiveDiskMb', () => {
  it('is never below what the template needs', () => {
    const image = 5 * 1024 ** 3 + 1;
    expect(effectiveDiskMb(0, image)).toBe(5121);
    expect(effectiveDiskMb(100, image)).toBe(5121);
    expect(effectiveDiskMb(20_000, image)).toBe(20_000);
    expect(() => effectiveDiskMb(2 ** 31, image)).toThrow(/disk_mb/);
  });
});
