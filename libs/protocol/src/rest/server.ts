import { z } from 'zod';

/** `GET /health`: the process runs. */
export const healthSchema = z.object({ status: z.literal('ok'), version: z.string() }).meta({ id: 'Health' });

const check = z.object({
  ok: z.boolean(),
  detail: z.string().meta({ description: 'What was found, for a person.' }),
});

/** Of a server of before the check. */
const UNTOLD = { ok: true, detail: 'not told' };

/** `GET /ready`: 200 when requests can be served, else 503 with what is missing. */
export const readySchema = z
  .object({
    ready: z.boolean(),
    checks: z.object({
      server: check.default(UNTOLD).meta({ description: 'Whether it takes requests, or is shutting down.' }),
      database: check,
      migrations: check.default(UNTOLD).meta({ description: 'Whether the database has the schema of this server.' }),
      host: check.meta({
        description: 'Whether a host is online. Without one requests are served where hosts join by themselves.',
      }),
      redis: check.exactOptional().meta({
        description:
          'Whether Redis answers, where it is used. While it does not, PostgreSQL stands in and requests are served.',
      }),
    }),
  })
  .meta({ id: 'Ready' });

export type Ready = z.output<typeof readySchema>;

/** `GET /v1/extensions` */
export const extensionListSchema = z.array(z.object({ name: z.string() }).meta({ id: 'Extension' }));
