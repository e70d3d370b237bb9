import { z } from 'zod';
import { capsuleSchema, labelsSchema, templateNameSchema, traceQuerySchema } from './capsule.ts';
import { arrayQueryFields } from './paging.ts';

/** Children that one fork makes at most. */
export const MAX_FORKS = 16;

/** `POST /v1/capsules/{id}/resume` */
export const resumeQuerySchema = traceQuerySchema.extend({
  memory: z.enum(['keep', 'discard']).default('keep').meta({
    description: 'discard: boot the disk without the memory, as where that is damaged or of another CPU.',
  }),
});

/** `POST /v1/capsules/{id}/fork` */
export const forkRequestSchema = z
  .object({
    count: z
      .int()
      .min(1)
      .max(MAX_FORKS)
      .default(1)
      .meta({ description: 'How many new capsules; all of them or none.' }),
    metadata: labelsSchema.optional().meta({ description: 'Labels of the children. Default: those of the source.' }),
  })
  .meta({ id: 'ForkRequest' });

export type ForkRequest = z.output<typeof forkRequestSchema>;

export const forkResponseSchema = z.object({ capsules: z.array(capsuleSchema) }).meta({ id: 'ForkResponse' });

/** `POST /v1/capsules/{id}/snapshots` */
export const createSnapshotRequestSchema = z
  .object({ name: templateNameSchema.optional().meta({ description: 'Default: a new name.' }) })
  .meta({ id: 'CreateSnapshotRequest' });

/** `POST /v1/snapshots`: the same with the capsule in the body. */
export const createSnapshotOfRequestSchema = createSnapshotRequestSchema
  .extend({
    capsule_id: z.string().optional(),
    sandbox_id: z.string().optional().meta({ description: 'The same as capsule_id, for older clients.' }),
  })
  .refine((body) => body.capsule_id ?? body.sandbox_id, { error: 'is needed', path: ['capsule_id'] })
  .meta({ id: 'CreateSnapshotOfRequest' });

/** A template that capsules can be made of. */
export const snapshotSchema = z
  .object({
    id: z.string().nullable().meta({ description: 'Null for templates of the platform.' }),
    name: z.string().meta({ description: 'Give it as `template` to create a capsule.' }),
    type: z.enum(['base', 'snapshot']),
    template: z.string().meta({ description: 'The base template below it.' }),
    capsule_id: z.string().nullable().meta({ description: 'The capsule that it was made of.' }),
    vcpus: z.int().nullable().meta({ description: 'Null: any.' }),
    memory_mb: z.int().nullable(),
    disk_mb: z.int().nullable(),
    size_bytes: z.int().nullable(),
    created_at: z.iso.datetime({ offset: true }).nullable(),
    platform: z.boolean().meta({ description: 'Whether every team has it.' }),
    metadata: z.record(z.string(), z.string()),
  })
  .meta({ id: 'Snapshot' });

export type SnapshotBody = z.output<typeof snapshotSchema>;

export const snapshotListSchema = z.array(snapshotSchema);
export const listSnapshotsQuerySchema = z.object({
  type: z.enum(['base', 'snapshot']).optional(),
  ...arrayQueryFields,
});
export const snapshotParamsSchema = z.object({ name: z.string() });

/** `POST /v1/capsules/{id}/verify` */
export const verifyResponseSchema = z
  .object({
    capsule_id: z.string(),
    generation: z.int(),
    ok: z.boolean(),
    files: z.array(
      z.object({
        name: z.string(),
        size_bytes: z.int(),
        problem: z.string().nullable().meta({ description: 'Null: as it was written.' }),
      }),
    ),
  })
  .meta({ id: 'VerifyResponse' });
