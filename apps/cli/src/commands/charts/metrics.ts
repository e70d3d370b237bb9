import { METRICS_RANGES } from '@wrenn/protocol/rest/team-metrics';
import { type Command, Option } from 'commander';
import type { CapsuleMetrics, MetricsRange } from '../../api/charts.ts';
import { resolveCapsuleId } from '../../capsule-ref.ts';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { formatBytes, formatInstant } from '../../terminal/format.ts';
import { drawSparkline } from '../../terminal/sparkline.ts';
import { type Column, formatTable } from '../../terminal/table.ts';
import { CHART_WIDTH, rangeMs } from './ranges.ts';

type Point = CapsuleMetrics['points'][number];

interface Series {
  readonly name: string;
  readonly value: (point: Point) => number;
  readonly format: (value: number) => string;
  /** What is counted within each point, in place of measured at its time. */
  readonly isCounted?: boolean;
}

interface Options {
  readonly range: MetricsRange;
  readonly points?: boolean;
  readonly json?: boolean;
}

const formatPercent = (value: number) => `${value.toFixed(1)}%`;

const SERIES: readonly Series[] = [
  { name: 'cpu', value: ({ cpu_pct }) => cpu_pct, format: formatPercent },
  { name: 'memory', value: ({ mem_bytes }) => mem_bytes, format: formatBytes },
  { name: 'disk', value: ({ disk_bytes }) => disk_bytes, format: formatBytes },
  { name: 'received', value: ({ net_rx_bytes }) => net_rx_bytes, format: formatBytes, isCounted: true },
  { name: 'sent', value: ({ net_tx_bytes }) => net_tx_bytes, format: formatBytes, isCounted: true },
];

export function addMetricsCommand(program: Command, cli: Cli): void {
  program
    .command('metrics')
    .description('show CPU, memory, disk and network of a capsule over time')
    .argument('<id>', 'the capsule, in any state')
    .addOption(new Option('-r, --range <time>', 'how far back').choices(METRICS_RANGES).default('10m'))
    .option('--points', 'print every point')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn metrics cl-1a2b\n  wrenn metrics --range 24h --points cl-1a2b')
    .action(async (ref: string, { range, points, json }: Options) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      const metrics = await api.readMetrics(id, range, cli.signal);
      if (json) return printJson(metrics);
      if (metrics.points.length === 0) return note(`Nothing was measured of ${id} in the last ${range}.`);
      print(points ? formatTable(POINT_COLUMNS, metrics.points) : drawMetrics(metrics, Date.now()));
    });
}

export function drawMetrics({ range, points }: CapsuleMetrics, nowMs: number): string {
  const span = { fromMs: nowMs - rangeMs(range), toMs: nowMs };
  const values = (series: Series) => points.map(series.value);
  const sum = (series: Series) => values(series).reduce((a, b) => a + b, 0);
  const columns: Column<Series>[] = [
    { title: 'OF', value: ({ name }) => name },
    {
      title: 'LAST',
      value: (series) => (series.isCounted ? '-' : series.format(values(series).at(-1) ?? 0)),
      align: 'right',
    },
    {
      title: 'MEAN',
      value: (series) => (series.isCounted ? '-' : series.format(sum(series) / points.length)),
      align: 'right',
    },
    {
      title: 'HIGHEST',
      value: (series) => (series.isCounted ? '-' : series.format(Math.max(...values(series)))),
      align: 'right',
    },
    { title: 'TOTAL', value: (series) => (series.isCounted ? series.format(sum(series)) : '-'), align: 'right' },
    {
      title: `LAST ${range}`,
      value: (series) => {
        const chart = points.map((point) => ({ atMs: point.timestamp_unix * 1000, value: series.value(point) }));
        return drawSparkline(chart, span, CHART_WIDTH);
      },
    },
  ];
  return formatTable(columns, SERIES);
}

const POINT_COLUMNS: Column<Point>[] = [
  { title: 'TIME', value: ({ timestamp_unix }) => formatInstant(new Date(timestamp_unix * 1000).toISOString()) },
  ...SERIES.map(
    ({ name, value, format }): Column<Point> => ({
      title: name.toUpperCase(),
      value: (point) => format(value(point)),
      align: 'right',
    }),
  ),
];
