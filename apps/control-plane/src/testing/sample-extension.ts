import type { Extension, ExtensionContext } from '../extensions/extension.ts';

/** Memory that a team may have in one capsule, in MiB. */
const MEMORY_LIMIT_MB = 1024;

const NOTES_QUEUE = 'sample-notes';

/** An extension as a hosted edition would have one: counts what is asked for, limits it, and tells of it. */
export const extension: Extension = {
  name: 'sample',
  register(context) {
    const { jobs, log, WrennError } = context;
    const counts = { capsules: 0, beats: 0, notes: [] as string[] };

    context.beforeCapsules(async ({ memoryMb, count }) => {
      if (memoryMb > MEMORY_LIMIT_MB) {
        throw new WrennError('refused_by_extension', {
          problem: `Your plan has capsules of at most ${MEMORY_LIMIT_MB} MiB.`,
        });
      }
      counts.capsules += count;
    });

    context.work('beat', async (signal) => {
      counts.beats++;
      log.info('the sample works');
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    });

    jobs.define(NOTES_QUEUE, { deadlineMs: 5000 }, async ({ text }: { text: string }) => {
      counts.notes.push(text);
    });

    context.routes((app) => addRoutes(app, context, counts));
  },
};

type Server = Parameters<Parameters<ExtensionContext['routes']>[0]>[0];

function addRoutes(
  app: Server,
  { z, db, jobs, recordAudit }: ExtensionContext,
  counts: { capsules: number; beats: number; notes: string[] },
): void {
  const countsSchema = z.object({ capsules: z.int(), beats: z.int(), notes: z.array(z.string()) });
  for (const [path, permission] of [
    ['/counts', 'team.read'],
    ['/public-counts', 'public'],
  ] as const) {
    app.get(
      path,
      {
        config: { permission },
        schema: {
          operationId: `sample${permission === 'public' ? 'Public' : ''}Counts`,
          tags: ['sample'],
          summary: 'What the sample has counted',
          response: { 200: countsSchema },
        },
      },
      async () => counts,
    );
  }
  app.post(
    '/notes',
    {
      config: { permission: 'capsule.write' },
      schema: {
        operationId: 'sampleNote',
        tags: ['sample'],
        summary: 'Have a job take a note',
        body: z.object({ text: z.string() }),
        response: { 202: z.null() },
      },
    },
    async (request, reply) => {
      await db.transaction(async (tx) => {
        await jobs.enqueue(tx, NOTES_QUEUE, { text: request.body.text });
        await recordAudit(tx, {
          teamId: request.caller.teamId,
          actor: { type: 'system', name: 'sample' },
          resourceType: 'sample',
          action: 'note',
          scope: 'team',
          status: 'success',
        });
      });
      reply.code(202);
      return null;
    },
  );
}
