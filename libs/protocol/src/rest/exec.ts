import { z } from 'zod';
import { envsSchema } from './capsule.ts';

const noNul = /^[^\0]*$/;

/** Bytes of each output stream that a foreground exec answer holds at most. */
export const EXEC_OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;

/** What names a process for later: any text but a number, which would be a pid. */
export const processTagSchema = z
  .string()
  .regex(
    /^(?!\d+$)[a-zA-Z0-9._:-]{1,128}$/,
    'must be 1 to 128 letters, digits, ".", "_", ":", "-" and not only digits',
  );

/** What every way of starting a process takes. */
export const commandFields = {
  cmd: z.string().min(1).max(131_072).regex(noNul, 'must not hold a NUL character'),
  args: z.array(z.string().max(2_097_152).regex(noNul, 'must not hold a NUL character')).max(16_384).nullish(),
  envs: envsSchema.nullish(),
  cwd: z.string().max(4096).regex(noNul).nullish().meta({ description: "Default: the template's working directory." }),
  user: z.string().max(64).nullish().meta({ description: "User in the guest. Default: the template's." }),
  tag: processTagSchema.nullish().meta({ description: 'Name to find the process by.' }),
} as const;

/** Seconds until a command is killed. Timers of the guest end at 2^31 ms. */
export const commandTimeoutSchema = z
  .number()
  .min(0)
  .max(2_000_000)
  .meta({ description: 'Seconds until the command is killed, with all its children; 0 is never.' });

export const execRequestSchema = z
  .object({
    ...commandFields,
    timeout_sec: commandTimeoutSchema.nullish().transform((seconds) => seconds ?? 30),
    background: z
      .boolean()
      .nullish()
      .transform((background) => background ?? false)
      .meta({ description: 'Answer at once with the pid; the command goes on. timeout_sec does not apply then.' }),
  })
  .meta({ id: 'ExecRequest' });

export type ExecBody = z.input<typeof execRequestSchema>;
export type ExecRequest = z.output<typeof execRequestSchema>;

/** Answer 200: the command has ended. */
export const execResponseSchema = z
  .object({
    capsule_id: z.string(),
    sandbox_id: z.string().meta({ description: 'The same as capsule_id, for older clients.' }),
    cmd: z.string(),
    pid: z.int(),
    tag: z.string().nullable(),
    stdout: z.string(),
    stderr: z.string(),
    exit_code: z.int().meta({ description: 'Exit status; 128 + the signal when a signal ended the command.' }),
    signal: z.int().nullable().meta({ description: 'Number of the signal that ended the command.' }),
    duration_ms: z.int(),
    encoding: z
      .enum(['utf-8', 'base64'])
      .meta({ description: 'Of stdout and stderr; base64 when either of them is not UTF-8.' }),
    stdout_truncated_bytes: z
      .int()
      .meta({ description: 'Bytes of stdout beyond the limit that are not in the answer.' }),
    stderr_truncated_bytes: z
      .int()
      .meta({ description: 'Bytes of stderr beyond the limit that are not in the answer.' }),
  })
  .meta({ id: 'ExecResponse' });

export type ExecResponse = z.output<typeof execResponseSchema>;

/** Answer 202: the command runs in the background. */
export const execBackgroundResponseSchema = z
  .object({
    capsule_id: z.string(),
    sandbox_id: z.string(),
    cmd: z.string(),
    pid: z.int(),
    tag: z.string(),
  })
  .meta({ id: 'ExecBackgroundResponse' });

export type ExecBackgroundResponse = z.output<typeof execBackgroundResponseSchema>;

export const processInfoSchema = z
  .object({
    pid: z.int(),
    tag: z.string().nullable(),
    cmd: z.string(),
    args: z.array(z.string()),
    cwd: z.string().nullable(),
    output_offset: z.int().meta({ description: 'Bytes of output so far, all streams together.' }),
  })
  .meta({ id: 'ProcessInfo' });

export type ProcessInfoBody = z.output<typeof processInfoSchema>;

export const processListSchema = z.object({ processes: z.array(processInfoSchema) }).meta({ id: 'ProcessList' });

export const processParamsSchema = z.object({
  id: z.string(),
  selector: z.string().min(1).max(128).meta({ description: 'A pid, or a tag.' }),
});

export const killProcessQuerySchema = z.object({
  signal: z
    .string()
    .regex(/^(SIG[A-Z0-9]+|\d{1,2})$/, 'must be a name such as SIGTERM, or a number')
    .default('SIGKILL')
    .meta({ description: 'Sent to the whole process group.' }),
});
