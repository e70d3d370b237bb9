import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { until } from '@wrenn/testing/until';
import type { TestAgent } from './host-agent.ts';

/** A VM without a tenant, as the agent's journal tells it. */
export interface PooledRecord {
  readonly vmId: string;
  readonly imageSha256: string;
  readonly accessToken: string;
  readonly slot?: number;
  readonly process?: { readonly pid: number };
}

/** What an agent has said of its warm pool, oldest first. */
export async function poolReports(agent: TestAgent): Promise<{ waiting: number; wanted: number; memoryMb: number }[]> {
  const lines = (await agent.log()).split('\n').filter((line) => line.includes('"waiting":'));
  return lines.map((line) => JSON.parse(line));
}

/** Waits until at least so many VMs wait in the agent's pool, and no other is being made. */
export async function untilWaiting(agent: TestAgent, count: number): Promise<PooledRecord[]> {
  return until(`${count} VMs wait`, 240_000, async () => {
    const records = await pooledRecords(agent.dir);
    const waiting = (await poolReports(agent)).at(-1)?.waiting ?? 0;
    return waiting >= count && records.length === waiting ? records : undefined;
  });
}

/** VMs without a tenant in the journal, those that are being made too. */
export async function pooledRecords(root: string): Promise<PooledRecord[]> {
  const { capsules } = wrennDir(root);
  const texts = await Promise.all(
    (await readdir(capsules).catch(() => [])).map((name) =>
      readFile(join(capsules, name, 'record.json'), 'utf8').catch(() => '{}'),
    ),
  );
  return texts.map((text) => JSON.parse(text)).filter(({ phase }) => phase === 'pooled');
}
