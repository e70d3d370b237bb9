import { WrennError } from '@wrenn/protocol/errors';
import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import { toRestError } from '@wrenn/protocol/rest/error';
import { type PtyServerFrame, ptyClientFrameSchema } from '@wrenn/protocol/rest/pty';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { toCatalogue } from '../http/error-handler.ts';
import { FrameSocket } from '../http/frame-socket.ts';
import { type RouteDeps, useGuest } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import type { Guest } from './guest.ts';
import { InputQueue } from './input-queue.ts';
import { randomTag, toCommand } from './process-routes.ts';
import { attachProcess, type ProcessOutput, resizePty, signalProcess, startProcess } from './processes.ts';
import { unlessEnded, withFirstFrameDeadline } from './stream-routes.ts';

const PING_INTERVAL_MS = 30_000;
const SIGKILL = 9;
const DEFAULT_SHELL = '/bin/bash';

type PtySocket = FrameSocket<typeof ptyClientFrameSchema, PtyServerFrame>;
type ClientFrame = z.output<typeof ptyClientFrameSchema>;
type FirstFrame = Extract<ClientFrame, { type: 'start' | 'connect' }>;

export function ptyRoute(app: Server, deps: RouteDeps): void {
  app.get(
    '/capsules/:id/pty',
    {
      websocket: true,
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
        // A terminal that nobody types in and that shows nothing is no use of its capsule.
        using use = await useGuest(deps, request.caller, request.params.id, 'bytes');
        await runTerminal(use.guest, first, frames, () => deps.activity.touch(use.capsule.id));
        frames.close('done');
      } catch (error) {
        if (frames.gone.aborted) return;
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

async function runTerminal(guest: Guest, first: FirstFrame, frames: PtySocket, touch: () => void): Promise<void> {
  const tag = first.tag ?? randomTag('pty');
  const mode = { binary: first.binary ?? false };
  const ended = new AbortController();
  const signal = AbortSignal.any([frames.gone, ended.signal]);
  try {
    for await (const part of openTerminal(guest, first, tag, frames.gone)) {
      switch (part.type) {
        case 'start':
          await frames.send({ type: 'started', tag, pid: part.pid, offset: part.offset });
          void obeyClient(guest, tag, frames, { mode, touch }, signal);
          break;
        case 'data':
          touch();
          await sendOutput(frames, part, mode.binary);
          break;
        case 'end':
          await frames.send({ type: 'exit', exit_code: part.exitCode, signal: part.signal });
          break;
      }
    }
  } finally {
    ended.abort();
  }
}

async function* openTerminal(
  guest: Guest,
  first: FirstFrame,
  tag: string,
  signal: AbortSignal,
): AsyncGenerator<ProcessOutput> {
  if (first.type === 'start') {
    const { cols, rows } = first;
    const command = {
      ...toCommand({ ...first, cmd: first.cmd ?? DEFAULT_SHELL }, tag),
      stdin: true,
      pty: { cols, rows },
    };
    yield* startProcess(guest, command, undefined, signal);
    return;
  }
  const { cols, rows } = first;
  if (cols && rows) await resizePty(guest, tag, { cols, rows }, signal);
  yield* attachProcess(guest, tag, first.from_offset ?? 0, signal);
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
  guest: Guest,
  tag: string,
  frames: PtySocket,
  { mode, touch }: { readonly mode: { binary: boolean }; readonly touch: () => void },
  signal: AbortSignal,
): Promise<void> {
  const input = new InputQueue(guest, tag, 'pty', signal);
  while (!signal.aborted) {
    try {
      const message = await frames.receive();
      if (!message || signal.aborted) return;
      if ('binary' in message || message.frame.type === 'input') touch();
      if ('binary' in message) {
        mode.binary = true;
        await input.push(message.binary);
      } else {
        await obey(guest, tag, message.frame, input, signal);
      }
    } catch (error) {
      if (signal.aborted) return;
      await sendError(frames, error, false);
    }
  }
}

async function obey(
  guest: Guest,
  tag: string,
  frame: ClientFrame,
  input: InputQueue,
  signal: AbortSignal,
): Promise<void> {
  switch (frame.type) {
    case 'input':
      return input.push(Buffer.from(frame.data, 'base64'));
    case 'resize':
      return unlessEnded(resizePty(guest, tag, { cols: frame.cols, rows: frame.rows }, signal));
    case 'kill':
      return unlessEnded(signalProcess(guest, tag, SIGKILL, signal));
    case 'pong':
      return undefined;
    case 'start':
    case 'connect':
      throw new WrennError('invalid_request', { problem: 'this socket has a terminal already' });
  }
}
