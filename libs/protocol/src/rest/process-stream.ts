import { z } from 'zod';
import { restErrorSchema } from './error.ts';
import { commandFields, commandTimeoutSchema } from './exec.ts';

/**
 * `utf-8`: output frames carry `data`, in which no character is broken over two frames, and `data_b64` too when the
 * bytes are not valid UTF-8. `base64`: output frames carry `data_b64` only, byte for byte as the process wrote it, so
 * that offset + length of the last frame is where to attach again.
 */
const outputEncodingSchema = z.enum(['utf-8', 'base64']);

/**
 * Names one writer of a process's input, so that what it sends again after a broken connection is not written twice. The
 * server then tells by acknowledgements how much of its input has reached the process.
 */
export const inputIdSchema = z
  .string()
  .regex(/^[a-zA-Z0-9._:-]{1,64}$/, 'must be 1 to 64 letters, digits, ".", "_", ":", "-"')
  .meta({ description: 'Name of a writer of input, chosen by the client; asks for acknowledgements of its input.' });

/** What attaching does about a capsule that sleeps. */
export const whenAsleepSchema = z.enum(['wake', 'wait']).meta({
  description:
    'wake: as every call does (the default). wait: neither wake a sleeping capsule nor fail; go on when it wakes.',
});

export const inputOffsetMeta = {
  description: 'Bytes of input that were acknowledged under this input_id before; the first that is sent now follows.',
} as const;

export type OutputEncoding = z.output<typeof outputEncodingSchema>;

const controlFrames = [
  z.object({
    type: z.literal('stdin'),
    data: z.string().optional().meta({ description: 'Text.' }),
    data_b64: z.base64().optional().meta({ description: 'Bytes; instead of `data`.' }),
  }),
  z.object({ type: z.literal('stdin_end') }),
  z.object({ type: z.literal('stop') }).meta({ description: 'Kills the command with all its children.' }),
  z.object({ type: z.literal('signal'), signal: z.int().min(1).max(64) }),
] as const;

/** Frames from the client on `/v1/capsules/{id}/exec/stream`; `start` comes first. */
export const execStreamClientFrameSchema = z
  .discriminatedUnion('type', [
    z.object({
      type: z.literal('start'),
      ...commandFields,
      timeout_sec: commandTimeoutSchema.nullish().meta({ description: 'Default: never.' }),
      stdin: z.boolean().nullish().meta({ description: 'Keep stdin open for `stdin` frames. Default: false.' }),
      encoding: outputEncodingSchema.nullish().meta({ description: 'Default: utf-8.' }),
      input_id: inputIdSchema.nullish(),
    }),
    ...controlFrames,
  ])
  .meta({ id: 'ExecStreamClientFrame' });

/** Frames from the client on `/v1/capsules/{id}/processes/{selector}/stream`. */
export const processStreamClientFrameSchema = z
  .discriminatedUnion('type', [...controlFrames])
  .meta({ id: 'ProcessStreamClientFrame' });

export type ProcessStreamClientFrame = z.input<typeof processStreamClientFrameSchema>;
export type ExecStreamClientFrame = z.input<typeof execStreamClientFrameSchema>;
export type ExecStreamStart = Extract<z.output<typeof execStreamClientFrameSchema>, { type: 'start' }>;

const outputFields = {
  data: z.string().optional().meta({ description: 'Text; see `encoding`.' }),
  data_b64: z.base64().optional().meta({ description: 'The bytes; see `encoding`.' }),
  offset: z.int().meta({ description: 'Of the first byte in the output of the process, all streams together.' }),
} as const;

/** Frames from the server on `exec/stream` and `processes/{selector}/stream`. */
export const processStreamServerFrameSchema = z
  .discriminatedUnion('type', [
    z.object({ type: z.literal('start'), pid: z.int(), tag: z.string().nullable(), offset: z.int() }),
    z.object({ type: z.literal('stdout'), ...outputFields }),
    z.object({ type: z.literal('stderr'), ...outputFields }),
    z.object({
      type: z.literal('exit'),
      exit_code: z.int().meta({ description: 'Exit status; 128 + the signal when a signal ended the command.' }),
      signal: z.int().nullable(),
      offset: z.int().meta({ description: 'Bytes of output in all.' }),
    }),
    z.object({
      type: z.literal('stdin_ack'),
      bytes: z.int().meta({ description: 'Bytes of input of this input_id that have reached the process, in all.' }),
    }),
    z.object({
      type: z.literal('error'),
      data: z.string(),
      fatal: z.boolean().default(true).meta({ description: 'Whether it is the last frame.' }),
      error: restErrorSchema,
    }),
  ])
  .meta({ id: 'ProcessStreamServerFrame' });

export type ProcessStreamServerFrame = z.output<typeof processStreamServerFrameSchema>;

export const processStreamQuerySchema = z.object({
  from_offset: z.coerce
    .number()
    .int()
    .min(0)
    .optional()
    .meta({ description: 'Replay kept output from here on. Default: only what comes from now on.' }),
  encoding: outputEncodingSchema.default('utf-8'),
  when_asleep: whenAsleepSchema.default('wake'),
  input_id: inputIdSchema.optional(),
  input_offset: z.coerce.number().int().min(0).default(0).meta(inputOffsetMeta),
});
