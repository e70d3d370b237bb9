import { describe, expect, it } from 'vitest';
import { readSettings } from '../settings.ts';
import { costOf, pricesSchema } from './prices.ts';

const HOUR_US = 3_600_000_000n;
const none = { vcpuUs: 0n, memoryMbUs: 0n, diskMbUs: 0n, egressBytes: 0n };
const prices = pricesSchema.parse({
  ...{ currency: 'EUR', vcpu_hour: 0.04, memory_gib_hour: 0.005, disk_gib_month: 7.3, egress_gib: 0.02 },
});

describe('prices', () => {
  it('are of vCPU-hours, GiB-hours, GiB-months of 730 hours, and GiB', () => {
    expect(costOf({ ...none, vcpuUs: 3n * HOUR_US }, prices)).toBe(0.12);
    expect(costOf({ ...none, memoryMbUs: 2048n * HOUR_US }, prices)).toBe(0.01);
    expect(costOf({ ...none, diskMbUs: 1024n * HOUR_US }, prices)).toBe(0.01);
    expect(costOf({ ...none, egressBytes: 2n ** 31n }, prices)).toBe(0.04);
    expect(costOf(none, prices)).toBe(0);
    expect(costOf({ ...none, vcpuUs: HOUR_US }, undefined)).toBeNull();
  });

  it('round only the sum, to millionths', () => {
    const little = { vcpuUs: HOUR_US / 100_000n, memoryMbUs: (1024n * HOUR_US) / 10_000n };
    // 0.0000004 and 0.0000005, of which each alone would be nothing or one.
    expect(costOf({ ...none, ...little }, prices)).toBe(0.000001);
  });

  it('stay exact over what a large platform uses in three months', () => {
    const vcpuUs = 100_000n * 2208n * HOUR_US;
    expect(costOf({ ...none, vcpuUs }, prices)).toBe(8_832_000);
  });

  it('that are left out are nothing', () => {
    expect(readSettings({ WRENN_PRICES: '{"currency":"USD","vcpu_hour":1}' }).prices).toEqual({
      ...{ currency: 'USD', vcpu_hour: 1, memory_gib_hour: 0, disk_gib_month: 0, egress_gib: 0 },
    });
    expect(readSettings({}).prices).toBeUndefined();
    expect(readSettings({ WRENN_PRICES: '' }).prices).toBeUndefined();
  });

  it.each(['nonsense', '[]', '{"vcpu_hour":1}', '{"currency":"EUR","vcpu_hour":-1}', '{"currency":"EUR","vcpu":1}'])(
    'are refused as %s, by their name',
    (text) => {
      expect(() => readSettings({ WRENN_PRICES: text })).toThrow('WRENN_PRICES');
    },
  );
});
