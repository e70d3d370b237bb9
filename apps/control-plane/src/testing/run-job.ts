import { until } from '@wrenn/testing/until';
import { PgBoss } from 'pg-boss';
import { JOBS_SCHEMA } from '../jobs/jobs.ts';

const ENDED: readonly string[] = ['completed', 'cancelled', 'failed'];

/** Puts a job into a queue of a control plane that runs, as its schedule would, and waits until it has ended well. */
export async function runJob(databaseUrl: string, queue: string, data: object = {}): Promise<void> {
  const boss = new PgBoss({
    ...{ connectionString: databaseUrl, schema: JOBS_SCHEMA, max: 1 },
    ...{ migrate: false, supervise: false, schedule: false },
  });
  // A connection that breaks: what needs it fails.
  boss.on('error', () => undefined);
  await boss.start();
  try {
    const id = await boss.send(queue, data, { singletonKey: crypto.randomUUID() });
    if (id === null) throw new Error(`the queue ${queue} took no job`);
    const job = await until(`a job of ${queue} has ended`, async () => {
      const [found] = await boss.findJobs(queue, { id });
      return found && ENDED.includes(found.state) ? found : undefined;
    });
    if (job.state !== 'completed') throw new Error(`a job of ${queue} is ${job.state}`);
  } finally {
    await boss.stop({ graceful: false });
  }
}
