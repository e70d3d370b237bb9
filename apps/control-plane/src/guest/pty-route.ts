import { WrennError } from '@wrenn/protocol/errors';
import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import { toRestError } from '@wrenn/protocol/rest/error';
import { type PtyServerFrame, ptyClientFrameSchema } from '@wrenn/protocol/rest/pty';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { programOf } from '../audit/access-details.ts';
import { noteDetails, streamFailed, streamOpened } from '../audit/record-requests.ts';
import { toCatalogue } from '../http/error-handler.ts';
import { FrameSocket } from '../http/frame-socket.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { openClientInput, settleLastWords, signalLasting, unlessEnded } from './client-input.ts';
import type { InputQueue } from './input-queue.ts';
import { type Beginning, LastingProcess } from './lasting-process.ts';
import { randomTag, toCommand } from './process-routes.ts';
import { type ProcessOutput, resizePty } from './processes.ts';
import { withFirstFrameDeadline } from './stream-routes.ts';

const PING_INTERVAL_MS = 30_000;
const SIGKILL = 9;
const DEFAULT_SHELL = '/bin/bash';

type PtySocket = FrameSocket<typeof ptyClientFrameSchema, PtyServerFrame>;
type ClientFrame = z.output<typeof ptyClientFrameSchema>;
type PtyRequest = FastifyRequest<{ Params: { id: string } }>;
type FirstFrame = Extract<ClientFrame, { type: 'start' | 'connect' }>;

export function ptyRoute(app: Server, deps: RouteDeps): void {
  app.get(
    '/capsules/:id/pty',
    {
      websocket: true,
      config: { permission: 'capsule.access', audit: { resource: 'capsule', action: 'pty' } },
      schema: {
        operationId: 'pty',
        tags: ['processes'],
        summary: 'Use a terminal (WebSocket)',
        description:
          'Text frames of JSON: the client sends PtyClientFrame, `start` or `connect` first; the server sends PtyServerFrame. ' +
          'A socket that is closed leaves the shell running; `connect` with its tag replays what it wrote.',
        params: capsuleParamsSchema,
      },
    },
    async (socket, request) => {
      const frames: PtySocket = new FrameSocket(socket, ptyClientFrameSchema);
      const ping = setInterval(() => void frames.send({ type: 'ping' }), PING_INTERVAL_MS);
      try {
        const first = await receiveFirst(frames);
        if (!first) return;
        noteDetails(
          request,
          first.type === 'start' ? programOf({ cmd: first.cmd ?? DEFAULT_SHELL }) : { tag: first.tag },
        );
        await runTerminal(deps, first, frames, request);
        frames.close('done');
      } catch (error) {
        if (frames.gone.aborted) return;
        streamFailed(request, error);
        await sendError(frames, error, true, request);
        frames.close('error');
      } finally {
        clearInterval(ping);
      }
    },
  );
}

async function sendError(frames: PtySocket, error: unknown, fatal: boolean, request?: FastifyRequest): Promise<void> {
  const known = toCatalogue(error);
  request?.log.info({ err: error, code: known.code }, 'a terminal ended with an error');
  await frames.send({ type: 'error', data: known.message, fatal, error: toRestError(known, request?.id) });
}

async function receiveFirst(frames: PtySocket): Promise<FirstFrame | undefined> {
  const first = await withFirstFrameDeadline(frames.receive());
  if (!first) return undefined;
  if ('frame' in first && (first.frame.type === 'start' || first.frame.type === 'connect')) return first.frame;
  throw new WrennError('invalid_request', { problem: 'the first frame must be `start` or `connect`' });
}

async function runTerminal(deps: RouteDeps, first: FirstFrame, frames: PtySocket, request: PtyRequest): Promise<void> {
  const tag = first.tag ?? randomTag('pty');
  const process = new LastingProcess(deps, {
    caller: request.caller,
    capsuleId: request.params.id,
    selector: tag,
    // A terminal that nobody types in and that shows nothing is no use of its capsule.
    detail: undefined,
  });
  const mode = { binary: first.binary ?? false };
  const ended = new AbortController();
  let obeying: Promise<void> | undefined;
  try {
    for await (const part of process.output(toBeginning(first, tag), frames.gone)) {
      switch (part.type) {
        case 'start':
          streamOpened(request);
          if (first.type === 'connect') await fitTerminal(process, first, tag, frames.gone);
          await frames.send({ type: 'started', tag, pid: part.pid, offset: part.offset });
          obeying = obeyClient(process, tag, frames, { mode, first, request }, ended.signal);
          break;
        case 'data':
          await sendOutput(frames, part, mode.binary);
          break;
        case 'end':
          await frames.send({ type: 'exit', exit_code: part.exitCode, signal: part.signal });
          break;
      }
    }
  } finally {
    if (frames.gone.aborted) await settleLastWords(obeying);
    ended.abort();
  }
}

function toBeginning(first: FirstFrame, tag: string): Beginning {
  if (first.type === 'connect') {
    return { kind: 'attach', fromOffset: first.from_offset ?? 0, whenAsleep: first.when_asleep ?? 'wake' };
  }
  const pty = { cols: first.cols, rows: first.rows };
  const command = { ...toCommand({ ...first, cmd: first.cmd ?? DEFAULT_SHELL }, tag), stdin: true, pty };
  return { kind: 'start', command, timeoutMs: undefined };
}

/** Gives a terminal the size of its new client. One that has ended has none any more, and its output can still be had. */
async function fitTerminal(
  process: LastingProcess,
  { cols, rows }: Extract<FirstFrame, { type: 'connect' }>,
  tag: string,
  signal: AbortSignal,
): Promise<void> {
  if (cols && rows) await unlessEnded(process.act((guest) => resizePty(guest, tag, { cols, rows }, signal), signal));
}

async function sendOutput(
  frames: PtySocket,
  { bytes, offset }: Extract<ProcessOutput, { type: 'data' }>,
  binary: boolean,
): Promise<void> {
  if (binary) return frames.sendBinary(bytes);
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
  return frames.send({ type: 'output', data, offset });
}

/** Does what the client asks until the terminal or the socket ends. What it asks wrongly is answered, and goes on. */
async function obeyClient(
  process: LastingProcess,
  tag: string,
  frames: PtySocket,
  { mode, first, request }: { mode: { binary: boolean }; first: FirstFrame; request: PtyRequest },
  signal: AbortSignal,
): Promise<void> {
  const input = openClientInput(
    {
      ...{ process, selector: tag, kind: 'pty', inputId: first.input_id },
      inputOffset: first.type === 'connect' ? (first.input_offset ?? 0) : 0,
      acknowledge: (bytes) => void frames.send({ type: 'input_ack', bytes }),
      onLost: (error) => void sendError(frames, error, false, request),
    },
    signal,
  );
  while (!signal.aborted) {
    try {
      const message = await frames.receive();
      if (!message) return await input.idle();
      if (signal.aborted) return;
      if ('binary' in message) {
        mode.binary = true;
        await input.push(message.binary);
      } else {
        await obey(process, tag, message.frame, input, signal);
      }
    } catch (error) {
      if (signal.aborted) return;
      await sendError(frames, error, false, request);
    }
  }
}

async function obey(
  process: LastingProcess,
  tag: string,
  frame: ClientFrame,
  input: InputQueue,
  signal: AbortSignal,
): Promise<void> {
  switch (frame.type) {
    case 'input':
      return input.push(Buffer.from(frame.data, 'base64'));
    case 'resize': {
      const size = { cols: frame.cols, rows: frame.rows };
      return unlessEnded(process.act((guest) => resizePty(guest, tag, size, signal), signal));
    }
    case 'kill':
      return signalLasting(process, tag, SIGKILL, signal);
    case 'pong':
      return undefined;
    case 'start':
    case 'connect':
      throw new WrennError('invalid_request', { problem: 'this socket has a terminal already' });
  }
}
