import type { AdminUsageBody, UsageBody, UsageFigures } from '@wrenn/protocol/rest/usage';

const FIGURES = [
  'vcpu_seconds',
  'memory_mb_seconds',
  'disk_mb_seconds',
  'egress_bytes',
  'cpu_minutes',
  'ram_mb_minutes',
  'cost',
] as const satisfies readonly (keyof UsageFigures)[];

type Cell = string | number | null | undefined;

/** One line a point, RFC 4180, without the total, so that a column can be summed. */
export function usageToCsv({ points, total }: UsageBody, groupBy: 'day' | 'capsule' | 'label'): string {
  const column = ({ day: 'date', capsule: 'capsule_id', label: 'label' } as const)[groupBy];
  const lines = points.map((point) => [point[column], ...FIGURES.map((name) => point[name]), total.currency]);
  return toCsv([[column, ...FIGURES, 'currency'], ...lines]);
}

export function adminUsageToCsv({ teams, total }: AdminUsageBody): string {
  const lines = teams.map((team) => [
    ...[team.team_id, team.team_name],
    ...FIGURES.map((name) => team[name]),
    total.currency,
  ]);
  return toCsv([['team_id', 'team_name', ...FIGURES, 'currency'], ...lines]);
}

function toCsv(lines: readonly (readonly Cell[])[]): string {
  return lines.map((cells) => `${cells.map(toCell).join(',')}\r\n`).join('');
}

function toCell(value: Cell): string {
  if (typeof value !== 'string') return value === null || value === undefined ? '' : String(value);
  // Somebody's label must not be a formula in somebody else's spreadsheet.
  const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
  // Quotes tell an empty label from none.
  return text === '' || /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
