import { WrennError } from '@wrenn/protocol/errors';
import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import { toRestError } from '@wrenn/protocol/rest/error';
import { processParamsSchema } from '@wrenn/protocol/rest/exec';
import {
  type ExecStreamStart,
  execStreamClientFrameSchema,
  type ProcessStreamServerFrame,
  processStreamQuerySchema,
} from '@wrenn/protocol/rest/process-stream';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import { toCatalogue } from '../http/error-handler.ts';
import { FrameSocket } from '../http/frame-socket.ts';
import { type RouteDeps, useGuest } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { openProcess } from './exec.ts';
import type { Guest } from './guest.ts';
import { InputQueue } from './input-queue.ts';
import { toFrames } from './process-frames.ts';
import { commandLine, toCommand, toTimeoutMs } from './process-routes.ts';
import { attachProcess, signalProcess } from './processes.ts';

const SIGKILL = 9;
/** How long a client may take to say what it wants. */
export const FIRST_FRAME_MS = 15_000;

type ExecSocket = FrameSocket<typeof execStreamClientFrameSchema, ProcessStreamServerFrame>;

export function streamRoutes(app: Server, deps: RouteDeps): void {
  app.get(
    '/capsules/:id/exec/stream',
    {
      websocket: true,
      schema: {
        operationId: 'execStream',
        tags: ['processes'],
        summary: 'Run a command and stream its output (WebSocket)',
        description:
          'Text frames of JSON: the client sends ExecStreamClientFrame, `start` first; the server sends ProcessStreamServerFrame. ' +
          'A socket that is closed ends the command, unless the command has a tag by which it can be found again.',
        params: capsuleParamsSchema,
      },
    },
    async (socket, request) => {
      const frames: ExecSocket = new FrameSocket(socket, execStreamClientFrameSchema);
      await serve(request, frames, async () => {
        const start = await receiveStart(frames);
        if (!start) return;
        const command = { kind: 'stream', detail: `command: ${commandLine(start)}` } as const;
        using use = await useGuest(deps, request.caller, request.params.id, command);
        await streamCommand(use.guest, start, frames);
      });
    },
  );

  app.get(
    '/capsules/:id/processes/:selector/stream',
    {
      websocket: true,
      schema: {
        operationId: 'processStream',
        tags: ['processes'],
        summary: 'Follow the output of a process (WebSocket)',
        description: 'The server sends ProcessStreamServerFrame. A socket that is closed leaves the process alone.',
        params: processParamsSchema,
        querystring: processStreamQuerySchema,
      },
    },
    async (socket, request) => {
      const frames = new FrameSocket<z.ZodNever, ProcessStreamServerFrame>(socket, z.never());
      const { params, query, caller } = request;
      await serve(request, frames, async () => {
        const stream = { kind: 'stream', detail: `output of process ${params.selector}` } as const;
        using use = await useGuest(deps, caller, params.id, stream);
        const output = attachProcess(use.guest, params.selector, query.from_offset, frames.gone);
        const tag = /^\d+$/.test(params.selector) ? null : params.selector;
        for await (const frame of toFrames(output, query.encoding, tag)) await frames.send(frame);
      });
    },
  );
}

/** Runs the work of a socket to its end, and tells the client of an error by a last frame. */
async function serve(
  request: FastifyRequest,
  frames: FrameSocket<z.ZodType, ProcessStreamServerFrame>,
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
    frames.close('done');
  } catch (error) {
    if (frames.gone.aborted) return;
    const known = toCatalogue(error);
    request.log.info({ err: error, code: known.code }, 'a stream ended with an error');
    await frames.send({ type: 'error', data: known.message, error: toRestError(known, request.id) });
    frames.close('error');
  }
}

async function receiveStart(frames: ExecSocket): Promise<ExecStreamStart | undefined> {
  const first = await withFirstFrameDeadline(frames.receive());
  if (!first) return undefined;
  if (!('frame' in first) || first.frame.type !== 'start') {
    throw new WrennError('invalid_request', { problem: 'the first frame must be `start`' });
  }
  return first.frame;
}

/** @throws WrennError when the client says nothing for too long */
export async function withFirstFrameDeadline<T>(first: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new WrennError('deadline_exceeded', { what: 'The first frame', timeout_ms: FIRST_FRAME_MS })),
      FIRST_FRAME_MS,
    );
  });
  try {
    return await Promise.race([first, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function streamCommand(guest: Guest, start: ExecStreamStart, frames: ExecSocket): Promise<void> {
  const tag = start.tag ?? undefined;
  const command = { ...toCommand(start, tag), stdin: start.stdin ?? false };
  const refused = new AbortController();
  const ended = new AbortController();
  const stop = AbortSignal.any([frames.gone, refused.signal]);
  await using process = openProcess(guest, command, toTimeoutMs(start.timeout_sec), stop);
  try {
    for await (const frame of toFrames(process.output, start.encoding ?? 'utf-8', tag ?? null)) {
      await frames.send(frame);
      if (frame.type !== 'start') continue;
      obeyClient(guest, String(frame.pid), frames, AbortSignal.any([stop, ended.signal])).catch((error: unknown) =>
        refused.abort(error),
      );
    }
  } finally {
    ended.abort();
  }
}

/** Does what the client asks while the command runs. Throws when it asks for nonsense. */
async function obeyClient(guest: Guest, pid: string, frames: ExecSocket, signal: AbortSignal): Promise<void> {
  const input = new InputQueue(guest, pid, 'stdin', signal);
  for (;;) {
    const message = await frames.receive();
    if (!message || signal.aborted) return;
    if ('binary' in message) {
      await input.push(message.binary);
      continue;
    }
    const { frame } = message;
    switch (frame.type) {
      case 'stdin':
        await input.push(toBytes(frame));
        break;
      case 'stdin_end':
        input.end();
        break;
      case 'stop':
        await unlessEnded(signalProcess(guest, pid, SIGKILL, signal));
        break;
      case 'signal':
        await unlessEnded(signalProcess(guest, pid, frame.signal, signal));
        break;
      case 'start':
        throw new WrennError('invalid_request', { problem: 'the command was started already' });
    }
  }
}

function toBytes({ data, data_b64 }: { data?: string | undefined; data_b64?: string | undefined }): Buffer {
  return data_b64 === undefined ? Buffer.from(data ?? '') : Buffer.from(data_b64, 'base64');
}

/** A process may end just before it is asked for something; its exit tells the client all there is to know. */
export async function unlessEnded(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof WrennError) || error.code !== 'process_not_found') throw error;
  }
}
