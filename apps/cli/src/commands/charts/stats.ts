import { STATS_RANGES } from '@wrenn/protocol/rest/team-metrics';
import { type Command, Option } from 'commander';
import type { StatsRange, TeamStats } from '../../api/charts.ts';
import { type Cli, print, printJson } from '../../cli.ts';
import { drawSparkline } from '../../terminal/sparkline.ts';
import { formatTable } from '../../terminal/table.ts';
import { CHART_WIDTH, rangeMs } from './ranges.ts';

interface Row {
  readonly name: string;
  readonly now: number;
  readonly peak: number;
  readonly series: readonly number[];
  readonly unit?: string;
}

export function addStatsCommand(program: Command, cli: Cli): void {
  program
    .command('stats')
    .description('show how many capsules of the team run, and what they hold, over time')
    .addOption(new Option('-r, --range <time>', 'how far back').choices(STATS_RANGES).default('1h'))
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn stats\n  wrenn stats --range 30d')
    .action(async ({ range, json }: { range: StatsRange; json?: boolean }) => {
      const stats = await cli.api().readStats(range, cli.signal);
      if (json) return printJson(stats);
      print(drawStats(stats, Date.now()));
    });
}

export function drawStats({ range, current, peaks, series }: TeamStats, nowMs: number): string {
  const times = series.labels.map((label) => Date.parse(label));
  const span = { fromMs: nowMs - rangeMs(range), toMs: nowMs };
  const rows: Row[] = [
    { name: 'running', now: current.running_count, peak: peaks.running_count, series: series.running },
    { name: 'vCPUs', now: current.vcpus_reserved, peak: peaks.vcpus_reserved, series: series.vcpus },
    {
      ...{ name: 'memory', unit: ' MiB', series: series.memory_mb },
      ...{ now: current.memory_mb_reserved, peak: peaks.memory_mb_reserved },
    },
  ];
  return formatTable(
    [
      { title: 'CAPSULES', value: ({ name }) => name },
      { title: 'NOW', value: ({ now, unit = '' }) => `${now}${unit}`, align: 'right' },
      { title: 'PEAK OF 30 DAYS', value: ({ peak, unit = '' }) => `${peak}${unit}`, align: 'right' },
      {
        title: `LAST ${range}`,
        value: (row) => {
          const points = row.series.map((value, index) => ({ value, atMs: times[index] ?? Number.NaN }));
          return drawSparkline(points, span, CHART_WIDTH);
        },
      },
    ],
    rows,
  );
}
