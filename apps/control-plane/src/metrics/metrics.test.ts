import type { CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { createMetrics } from './metrics.ts';

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database[Symbol.asyncDispose]());

const traceOf = (...names: string[]): CapsuleTrace => ({
  kind: 'fork',
  started_at: new Date().toISOString(),
  duration_ms: 50,
  steps: names.map((name) => ({ name, where: 'host', offset_ms: 0, duration_ms: 1 })),
});

it('bounds the values of the label that hosts can choose', async () => {
  const metrics = createMetrics(database.db, () => []);
  metrics.recordTrace(traceOf('restore memory', 'cl-1a2b3c4d', `x${'y'.repeat(60)}`, 'a"b\n'));
  for (let a = 0; a < 26; a += 1) {
    for (let b = 0; b < 26; b += 1) metrics.recordTrace(traceOf(String.fromCharCode(97 + a, 97 + b)));
  }
  metrics.recordTrace(traceOf('restore memory'));
  const { text } = await metrics.render();
  const steps = [...text.matchAll(/_step_duration_seconds_count\{.*step="([^"]*)"\} (\d+)/g)];
  expect(steps).toHaveLength(65);
  const counts = new Map(steps.map(([, step, value]) => [step, Number(value)]));
  expect(counts.get('restore memory')).toBe(2);
  expect(counts.get('other')).toBe(3 + 676 - 63);
  expect(text).toContain('wrenn_capsule_start_duration_seconds_count{kind="fork"} 678');
});
