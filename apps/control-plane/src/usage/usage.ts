import { WrennError } from '@wrenn/protocol/errors';
import type { AdminUsageBody, UsageBody, UsageFigures, UsageQuery } from '@wrenn/protocol/rest/usage';
import { inArray } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { costOf, type Prices } from './prices.ts';
import { type DayRange, selectUsage, sumUp, type UsageGroup, type UsageSums } from './usage-store.ts';

const MAX_DAYS = 92;
const DEFAULT_DAYS = 30;
const DAY_MS = 24 * 3_600_000;
const US_PER_SECOND = 1_000_000n;

export interface UsageDeps {
  readonly db: Db;
  readonly settings: { readonly prices: Prices | undefined };
}

/** Days of which either may be left out. */
type RangeQuery = Pick<UsageQuery, 'from' | 'to'>;

/** What a team used. @throws WrennError `invalid_request` for a range or a group that cannot be */
export async function readUsage(
  { db, settings }: UsageDeps,
  teamId: string,
  query: Omit<UsageQuery, 'format'>,
  now = new Date(),
): Promise<UsageBody> {
  const { prices } = settings;
  const range = rangeOf(query, now);
  const group = groupOf(query);
  const groups = await selectUsage(db, teamId, range, group);
  const point = (sums: UsageSums) => figuresOf(sums, prices);
  return { ...range, points: pointsOf(), total: { ...point(sumUp(groups)), currency: prices?.currency ?? null } };

  function pointsOf(): UsageBody['points'] {
    switch (group.by) {
      case 'capsule':
        return groups.map(({ key, ...sums }) => ({ capsule_id: key ?? '', ...point(sums) }));
      case 'label':
        return groups.map(({ key, ...sums }) => ({ label: key, ...point(sums) }));
      default: {
        // Charts want each day, also those on which nothing ran.
        const byDay = new Map(groups.map((sums) => [sums.key, sums]));
        return daysOf(range).map((date) => ({ date, ...point(byDay.get(date) ?? sumUp([])) }));
      }
    }
  }
}

/** What every team used that used anything. @throws WrennError `invalid_request` */
export async function readUsageOfAll(
  { db, settings }: UsageDeps,
  query: RangeQuery,
  now = new Date(),
): Promise<AdminUsageBody> {
  const { prices } = settings;
  const range = rangeOf(query, now);
  const groups = await selectUsage(db, undefined, range, { by: 'team' });
  const ids = groups.flatMap(({ key }) => key ?? []);
  const named = ids.length === 0 ? [] : await db.select().from(teams).where(inArray(teams.id, ids));
  const names = new Map(named.map(({ id, name }) => [id, name]));
  return {
    ...range,
    teams: groups.map(({ key, ...sums }) => ({
      team_id: key ?? '',
      team_name: names.get(key ?? '') ?? null,
      ...figuresOf(sums, prices),
    })),
    total: { ...figuresOf(sumUp(groups), prices), currency: prices?.currency ?? null },
  };
}

/** Rounds, once, to the nearest. */
export function figuresOf(sums: UsageSums, prices: Prices | undefined): UsageFigures {
  const vcpuSeconds = toSeconds(sums.vcpuUs);
  const memoryMbSeconds = toSeconds(sums.memoryMbUs);
  return {
    vcpu_seconds: vcpuSeconds,
    memory_mb_seconds: memoryMbSeconds,
    disk_mb_seconds: toSeconds(sums.diskMbUs),
    egress_bytes: Number(sums.egressBytes),
    cpu_minutes: toMinutes(vcpuSeconds),
    ram_mb_minutes: toMinutes(memoryMbSeconds),
    cost: costOf(sums, prices),
  };
}

function toSeconds(us: bigint): number {
  return Number((us + US_PER_SECOND / 2n) / US_PER_SECOND);
}

/** With the four places that clients have always been given. */
function toMinutes(seconds: number): number {
  return Math.round((seconds / 60) * 10_000) / 10_000;
}

function groupOf({ group_by: by, label }: Pick<UsageQuery, 'group_by' | 'label'>): UsageGroup {
  if (by !== 'label') return { by };
  if (label === undefined) {
    throw new WrennError('invalid_request', { problem: 'label: which one to group by is missing' });
  }
  return { by, label };
}

/** @throws WrennError `invalid_request` */
export function rangeOf(given: RangeQuery, now: Date): DayRange {
  const to = given.to ?? toDay(given.from ? Math.max(now.getTime(), Date.parse(given.from)) : now.getTime());
  const from = given.from ?? toDay(Date.parse(to) - (DEFAULT_DAYS - 1) * DAY_MS);
  const days = (Date.parse(to) - Date.parse(from)) / DAY_MS + 1;
  if (days < 1) throw new WrennError('invalid_request', { problem: `from: ${from} is after ${to}` });
  if (days > MAX_DAYS) {
    throw new WrennError('invalid_request', { problem: `from: ${days} days are more than ${MAX_DAYS}` });
  }
  return { from, to };
}

function daysOf({ from, to }: DayRange): string[] {
  const days: string[] = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += DAY_MS) days.push(toDay(at));
  return days;
}

function toDay(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
