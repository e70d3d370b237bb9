import { z } from 'zod';
import { restErrorSchema } from './error.ts';
import { commandFields, processTagSchema } from './exec.ts';
import { inputIdSchema, inputOffsetMeta, whenAsleepSchema } from './process-stream.ts';

const dimension = z.int().min(1).max(65_535);

const binary = z
  .boolean()
  .nullish()
  .meta({ description: 'Send output as binary frames. Also turned on by the first binary frame of the client.' });

/**
 * Frames from the client on `/v1/capsules/{id}/pty`; `start` or `connect` comes first. A binary frame is input too,
 * byte for byte.
 */
export const ptyClientFrameSchema = z
  .discriminatedUnion('type', [
    z.object({
      type: z.literal('start'),
      ...commandFields,
      cmd: commandFields.cmd.nullish().meta({ description: 'Default: /bin/bash.' }),
      cols: dimension.default(80),
      rows: dimension.default(24),
      binary,
      input_id: inputIdSchema.nullish(),
    }),
    z.object({
      type: z.literal('connect'),
      tag: processTagSchema,
      from_offset: z
        .int()
        .min(0)
        .nullish()
        .meta({ description: 'Replay output from here on. Default: all that is kept.' }),
      cols: dimension.nullish(),
      rows: dimension.nullish(),
      binary,
      input_id: inputIdSchema.nullish(),
      when_asleep: whenAsleepSchema.nullish(),
      input_offset: z.int().min(0).nullish().meta(inputOffsetMeta),
    }),
    z.object({ type: z.literal('input'), data: z.base64().meta({ description: 'Base64.' }) }),
    z.object({ type: z.literal('resize'), cols: dimension, rows: dimension }),
    z.object({ type: z.literal('kill') }),
    z.object({ type: z.literal('pong') }),
  ])
  .meta({ id: 'PtyClientFrame' });

export type PtyClientFrame = z.input<typeof ptyClientFrameSchema>;

/** Frames from the server on `/v1/capsules/{id}/pty`. */
export const ptyServerFrameSchema = z
  .discriminatedUnion('type', [
    z.object({
      type: z.literal('started'),
      tag: z.string(),
      pid: z.int(),
      offset: z.int().meta({ description: 'Of the first byte of output that this socket will carry.' }),
    }),
    z.object({ type: z.literal('output'), data: z.base64().meta({ description: 'Base64.' }), offset: z.int() }),
    z.object({
      type: z.literal('exit'),
      exit_code: z.int().meta({ description: 'Exit status; 128 + the signal when a signal ended it.' }),
      signal: z.int().nullable(),
    }),
    z.object({ type: z.literal('error'), data: z.string(), fatal: z.boolean(), error: restErrorSchema }),
    z.object({
      type: z.literal('input_ack'),
      bytes: z.int().meta({ description: 'Bytes of input of this input_id that have reached the program, in all.' }),
    }),
    z.object({ type: z.literal('ping') }),
  ])
  .meta({ id: 'PtyServerFrame' });

export type PtyServerFrame = z.output<typeof ptyServerFrameSchema>;
