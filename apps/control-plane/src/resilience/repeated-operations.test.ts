import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

it('an operation whose end was not put down is run again, and succeeds', { timeout: 180_000 }, async () => {
  await using platform = await TestPlatform.start({}, { hostSilenceMs: 60_000 });
  const client = new Client(platform.databaseUrl);
  await client.connect();
  await using stack = new AsyncDisposableStack();
  stack.defer(() => client.end());
  const post = async (id: string, verb: string, json: object = {}) => {
    const { status } = await platform.call(`/v1/capsules/${id}/${verb}`, { json });
    expect({ verb, status }).toEqual({ verb, status: expect.toBeOneOf([200, 201, 202, 204]) });
  };

  const made: Record<string, string> = {};
  for (const kind of ['create', 'pause', 'resume', 'fork', 'snapshot', 'hibernate', 'destroy'])
    made[kind] = await platform.createCapsule();
  const of = (kind: string) => made[kind] ?? '';
  for (const kind of ['pause', 'resume', 'hibernate']) await post(of(kind), 'pause');
  await post(of('resume'), 'resume');
  await post(of('fork'), 'fork', { count: 1 });
  await post(of('snapshot'), 'snapshots', { name: 'kept' });
  await post(of('hibernate'), 'hibernate');
  expect((await platform.fetch(`/v1/capsules/${of('destroy')}`, { method: 'DELETE' })).status).toBeLessThan(300);
  await until('all are done', async () => {
    const { rows } = await client.query("SELECT 1 FROM operations WHERE state = 'running'");
    return rows.length === 0;
  });
  const statuses = async () =>
    (await client.query('SELECT id, status, generation, host_ip FROM capsules ORDER BY id')).rows as unknown[];
  const before = await statuses();
  const vms = platform.host.vmIds().toSorted();

  // As a control plane leaves them that is killed right before: 1 is nobody's number.
  for (const [kind, id] of Object.entries(made)) {
    const { rowCount } = await client.query(
      `UPDATE operations SET state = 'running', owner = 1, finished_at = NULL, result = NULL
       WHERE capsule_id = $1 AND kind = $2`,
      [id, `capsule.${kind}`],
    );
    expect({ kind, rowCount }).toEqual({ kind, rowCount: 1 });
  }
  await until('all have ended again', async () => {
    const { rows } = await client.query("SELECT 1 FROM operations WHERE state = 'running'");
    return rows.length === 0;
  });
  const { rows: failed } = await client.query("SELECT kind, error FROM operations WHERE state <> 'succeeded'");
  expect(failed).toEqual([]);
  expect(await statuses()).toEqual(before);
  expect(platform.host.vmIds().toSorted()).toEqual(vms);
});
