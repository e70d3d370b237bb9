import { describe, expect, it } from 'vitest';
import type { CapsuleMetrics, TeamStats } from '../../api/charts.ts';
import { startFakeApi } from '../../testing/fake-api.ts';
import { drawMetrics } from './metrics.ts';
import { drawStats } from './stats.ts';

const NOW_MS = Date.parse('2026-03-01T12:00:00Z');
const ID = `cl-${'a'.repeat(25)}`;

describe('wrenn stats', () => {
  const stats: TeamStats = {
    range: '5m',
    current: { running_count: 2, vcpus_reserved: 3, memory_mb_reserved: 1024 },
    peaks: { running_count: 9, vcpus_reserved: 18, memory_mb_reserved: 4096 },
    series: {
      labels: [240, 180, 60, 0].map((ago) => new Date(NOW_MS - ago * 1000 - 60_000).toISOString()),
      ...{ running: [0, 2, 1, 2], vcpus: [0, 4, 2, 3], memory_mb: [0, 0, 0, 0] },
    },
  };

  it('draws what is held over time, with a gap where nothing was sampled', () => {
    expect(drawStats(stats, NOW_MS).split('\n')).toEqual([
      'CAPSULES       NOW  PEAK OF 30 DAYS  LAST 5m',
      'running          2                9  ▁█ ▅█',
      'vCPUs            3               18  ▁█ ▅▆',
      'memory    1024 MiB         4096 MiB  ▁▁ ▁▁',
    ]);
  });

  it('asks for the range that it is given', async () => {
    await using api = await startFakeApi(() => ({ json: { ...stats, range: '30d' } }));
    expect(JSON.parse((await api.run('stats', '--range', '30d', '--json')).stdout).peaks).toEqual(stats.peaks);
    expect(api.requests.map(({ line }) => line)).toEqual(['GET /v1/capsules/stats?range=30d']);
  });
});

describe('wrenn metrics', () => {
  const MIB = 1024 * 1024;
  const pointAt = (agoS: number, cpu_pct: number, net_rx_bytes: number) => ({
    ...{ timestamp_unix: NOW_MS / 1000 - agoS, cpu_pct, net_rx_bytes, net_tx_bytes: 0 },
    ...{ mem_bytes: 100 * MIB, disk_bytes: 200 * MIB },
  });
  const metrics: CapsuleMetrics = {
    ...{ sandbox_id: ID, range: '5m' },
    points: [pointAt(40, 100, 1024), pointAt(30, 0, 0), pointAt(20, 50, 512)],
  };

  it('draws measurements and sums up what was counted', () => {
    const [title, ...lines] = drawMetrics(metrics, NOW_MS).split('\n');
    expect(title).toMatch(/^OF +LAST +MEAN +HIGHEST +TOTAL +LAST 5m$/);
    expect(lines).toEqual([
      expect.stringMatching(/^cpu +50\.0% +50\.0% +100\.0% +- {28}█▁▅$/),
      expect.stringMatching(/^memory +100 MiB +100 MiB +100 MiB +- {28}███$/),
      expect.stringMatching(/^disk +200 MiB .* ███$/),
      expect.stringMatching(/^received +- +- +- +1\.50 KiB +█▁▅$/),
      expect.stringMatching(/^sent +- +- +- +0 B +▁▁▁$/),
    ]);
  });

  it('prints every point, JSON, or that there is nothing', async () => {
    await using api = await startFakeApi(({ line }) => ({
      json: line.endsWith('24h') ? { ...metrics, range: '24h', points: [] } : metrics,
    }));
    const lines = (await api.run('metrics', '--points', ID)).stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(4);
    expect(lines[1]).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +100\.0% +100 MiB +200 MiB +1\.00 KiB +0 B$/);
    expect(JSON.parse((await api.run('metrics', '--json', ID)).stdout)).toEqual(metrics);
    expect((await api.run('metrics', '--range', '24h', ID)).stdout).toBe('');
    expect(api.requests.map(({ line }) => line.split('?')[1])).toEqual(['range=10m', 'range=10m', 'range=24h']);
  });
});
