import { describe, expect, it } from 'vitest';
import { startTestEnvd } from '../testing/test-envd.ts';
import { parseCpuTimes, parseMeminfo } from './metrics.ts';

describe('metrics', () => {
  it('counts idle and waiting time as not used', () => {
    expect(parseCpuTimes('cpu  10 20 30 40 5 6 7 8 9 10\ncpu0 1 2 3 4\n')).toEqual({ total: 126, busy: 81 });
  });

  it('reads memory in bytes', () => {
    const meminfo =
      'MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     400 kB\nCached:           250 kB\n';
    expect(parseMeminfo(meminfo)).toEqual({ total: 1_024_000, used: 614_400, cache: 256_000 });
  });

  it('has E2B’s names and likely values', async () => {
    await using envd = await startTestEnvd();
    const askedMs = Date.now();
    const metrics = (await (await fetch(`${envd.url}/metrics`)).json()) as Record<string, number>;
    expect(Object.keys(metrics).sort()).toEqual([
      'cpu_count',
      'cpu_used_pct',
      'disk_total',
      'disk_used',
      'mem_cache',
      'mem_total',
      'mem_total_mib',
      'mem_used',
      'mem_used_mib',
      'ts',
    ]);
    expect(metrics.ts).toBeGreaterThanOrEqual(Math.floor(askedMs / 1000));
    expect(metrics.ts).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000));
    expect(metrics.mem_used).toBeGreaterThan(0);
    expect(metrics.mem_used).toBeLessThan(metrics.mem_total ?? 0);
    expect(metrics.cpu_used_pct).toBeGreaterThanOrEqual(0);
    expect(metrics.cpu_used_pct).toBeLessThanOrEqual(100);
    expect(metrics.disk_used).toBeLessThan(metrics.disk_total ?? 0);
  });

  it('prepares for a snapshot', async () => {
    await using envd = await startTestEnvd();
    expect((await fetch(`${envd.url}/snapshot/prepare`, { method: 'POST' })).status).toBe(204);
  });

  it('tells its versions with its health', async () => {
    await using envd = await startTestEnvd();
    const response = await fetch(`${envd.url}/health`);
    expect(response.status).toBe(204);
    expect(response.headers.get('wrenn-envd-version')).toMatch(/^\d+\.\d+\.\d+$/);
    expect(response.headers.get('e2b-envd-version')).toBe('0.6.4');
  });
});
