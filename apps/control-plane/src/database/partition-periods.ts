/** How long a partition is. In UTC; weeks begin on Mondays. */
export type Period = 'hour' | 'day' | 'week' | 'month';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const NAME = /^_y(\d{4})m(\d{2})(?:d(\d{2}))?(?:h(\d{2}))?$/;

/** The first instant of the period that a time lies in. */
export function periodOf(period: Period, date: Date): Date {
  const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
  switch (period) {
    case 'hour':
      return new Date(Date.UTC(year, month, day, date.getUTCHours()));
    case 'day':
      return new Date(Date.UTC(year, month, day));
    case 'week':
      return new Date(Date.UTC(year, month, day - ((date.getUTCDay() + 6) % 7)));
    case 'month':
      return new Date(Date.UTC(year, month, 1));
  }
}

/** The first instant of the period after the one that begins at `start`. */
export function nextPeriod(period: Period, start: Date): Date {
  switch (period) {
    case 'hour':
      return new Date(start.getTime() + HOUR_MS);
    case 'day':
      return new Date(start.getTime() + DAY_MS);
    case 'week':
      return new Date(start.getTime() + 7 * DAY_MS);
    case 'month':
      return new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1, 1));
  }
}

/** `{table}_y2030m11`, with `d04` for weeks and days and `h17` for hours. */
export function nameOf(table: string, period: Period, start: Date): string {
  const [year, month, day, hour] = start.toISOString().split(/[-T:]/);
  const ofDay = period === 'month' ? '' : `d${day}`;
  const ofHour = period === 'hour' ? `h${hour}` : '';
  return `${table}_y${year}m${month}${ofDay}${ofHour}`;
}

/** Undefined when the name is none that `nameOf` gives. */
export function startOfName(table: string, period: Period, name: string): Date | undefined {
  if (!name.startsWith(table)) return undefined;
  const [, year, month, day = '01', hour = '00'] = NAME.exec(name.slice(table.length)) ?? [];
  if (!year || !month) return undefined;
  const start = new Date(`${year}-${month}-${day}T${hour}:00:00Z`);
  return nameOf(table, period, start) === name ? start : undefined;
}
