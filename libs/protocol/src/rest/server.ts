import { z } from 'zod';

/** `GET /health`: the process runs. */
export const healthSchema = z.object({ status: z.literal('ok'), version: z.string() }).meta({ id: 'Health' });

const check = z.object({
  ok: z.boolean(),
  detail: z.string().meta({ description: 'What was found, for a person.' }),
});

/** `GET /ready`: 200 when requests can be served, else 503 with what is missing. */
export const readySchema = z
  .object({ ready: z.boolean(), checks: z.object({ database: check, host: check }) })
  .meta({ id: 'Ready' });

export type Ready = z.output<typeof readySchema>;
