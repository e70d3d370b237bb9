import { z } from 'zod';
import type { UsageSums } from './usage-store.ts';

const price = z.number().min(0).max(1e9).default(0);

/** What is charged, each in the same currency. */
export const pricesSchema = z.strictObject({
  currency: z.string().regex(/^[A-Z]{3}$/, 'must be a code such as EUR'),
  vcpu_hour: price,
  memory_gib_hour: price,
  /** A month is 730 hours, so that each costs the same. */
  disk_gib_month: price,
  egress_gib: price,
});
export type Prices = z.output<typeof pricesSchema>;

/** The variable WRENN_PRICES, an object as JSON. */
export const pricesVariable = z
  .string()
  .transform((text, context) => {
    try {
      return JSON.parse(text) as unknown;
    } catch {
      context.addIssue({ code: 'custom', message: 'must be JSON such as {"currency":"EUR","vcpu_hour":0.04}' });
      return z.NEVER;
    }
  })
  .pipe(pricesSchema);

const US_PER_HOUR = 3_600_000_000;
const HOURS_PER_MONTH = 730;
const MIB_PER_GIB = 1024;
const BYTES_PER_GIB = 2 ** 30;
/** Below what any bill shows. */
const MICROS = 1e6;

/** What something costs, in millionths of the currency rounded; null where no prices are set. */
export function costOf(sums: UsageSums, prices: Prices | undefined): number | null {
  if (!prices) return null;
  const hours = Number(sums.vcpuUs) / US_PER_HOUR;
  const memoryGibHours = Number(sums.memoryMbUs) / MIB_PER_GIB / US_PER_HOUR;
  const diskGibMonths = Number(sums.diskMbUs) / MIB_PER_GIB / US_PER_HOUR / HOURS_PER_MONTH;
  const egressGib = Number(sums.egressBytes) / BYTES_PER_GIB;
  const cost =
    hours * prices.vcpu_hour +
    memoryGibHours * prices.memory_gib_hour +
    diskGibMonths * prices.disk_gib_month +
    egressGib * prices.egress_gib;
  return Math.round(cost * MICROS) / MICROS;
}
