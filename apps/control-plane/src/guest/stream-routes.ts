import { patientTimeout } from '@wrenn/config/patient-timeout';
import { WrennError } from '@wrenn/protocol/errors';
import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import { toRestError } from '@wrenn/protocol/rest/error';
import { processParamsSchema } from '@wrenn/protocol/rest/exec';
import {
  type ExecStreamStart,
  execStreamClientFrameSchema,
  type OutputEncoding,
  type ProcessStreamServerFrame,
  processStreamClientFrameSchema,
  processStreamQuerySchema,
} from '@wrenn/protocol/rest/process-stream';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { programOf, selectorDetails } from '../audit/access-details.ts';
import { noteDetails, streamFailed, streamOpened } from '../audit/record-requests.ts';
import { toCatalogue } from '../http/error-handler.ts';
import { FrameSocket } from '../http/frame-socket.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { openClientInput, settleLastWords, signalLasting } from './client-input.ts';
import { type Beginning, LastingProcess } from './lasting-process.ts';
import { toFrames } from './process-frames.ts';
import { commandLine, randomTag, toCommand, toTimeoutMs } from './process-routes.ts';
import type { ProcessOutput } from './processes.ts';

const SIGKILL = 9;
const KILL_TIMEOUT_MS = 10_000;
/** How long a client may take to say what it wants. */
export const FIRST_FRAME_MS = 15_000;

type ExecSocket = FrameSocket<typeof execStreamClientFrameSchema, ProcessStreamServerFrame>;
type FollowSocket = FrameSocket<typeof processStreamClientFrameSchema, ProcessStreamServerFrame>;

export function streamRoutes(app: Server, deps: RouteDeps): void {
  app.get(
    '/capsules/:id/exec/stream',
    {
      websocket: true,
      config: { permission: 'capsule.access', audit: { resource: 'capsule', action: 'exec_stream' } },
      schema: {
        operationId: 'execStream',
        tags: ['processes'],
        summary: 'Run a command and stream its output (WebSocket)',
        description:
          'Text frames of JSON: the client sends ExecStreamClientFrame, `start` first; the server sends ProcessStreamServerFrame. ' +
          'A socket that is closed leaves the command running: `start` tells the tag by which processes/{tag}/stream goes on ' +
          'with it; `stop` ends it.',
        params: capsuleParamsSchema,
      },
    },
    async (socket, request) => {
      const frames: ExecSocket = new FrameSocket(socket, execStreamClientFrameSchema);
      await serve(request, frames, async () => {
        const start = await receiveStart(frames);
        if (!start) return;
        noteDetails(request, programOf(start));
        const { caller, params } = request;
        const tag = start.tag ?? randomTag('exec');
        const process = new LastingProcess(deps, {
          caller,
          capsuleId: params.id,
          selector: tag,
          detail: `command: ${commandLine(start)}`,
        });
        const beginning: Beginning = {
          kind: 'start',
          command: { ...toCommand(start, tag), stdin: start.stdin ?? false },
          timeoutMs: toTimeoutMs(start.timeout_sec),
        };
        const client = {
          request,
          frames,
          encoding: start.encoding ?? 'utf-8',
          inputId: start.input_id,
          inputOffset: 0,
          isFindable: typeof start.tag === 'string',
        };
        await follow(process, beginning, tag, client);
      });
    },
  );

  app.get(
    '/capsules/:id/processes/:selector/stream',
    {
      websocket: true,
      config: {
        permission: 'capsule.access',
        audit: { resource: 'capsule', action: 'process_stream', details: selectorDetails },
      },
      schema: {
        operationId: 'processStream',
        tags: ['processes'],
        summary: 'Follow the output of a process, and write to it (WebSocket)',
        description:
          'The server sends ProcessStreamServerFrame, the client ProcessStreamClientFrame. A socket that is closed leaves ' +
          'the process alone.',
        params: processParamsSchema,
        querystring: processStreamQuerySchema,
      },
    },
    async (socket, request) => {
      const frames: FollowSocket = new FrameSocket(socket, processStreamClientFrameSchema);
      await serve(request, frames, async () => {
        const { params, query, caller } = request;
        const { selector } = params;
        const process = new LastingProcess(deps, {
          caller,
          capsuleId: params.id,
          selector,
          detail: `output of process ${selector}`,
        });
        const { encoding, input_id: inputId, input_offset: inputOffset } = query;
        const client = { request, frames, encoding, inputId, inputOffset, isFindable: true };
        const { from_offset: fromOffset, when_asleep: whenAsleep } = query;
        await follow(process, { kind: 'attach', fromOffset, whenAsleep }, selector, client);
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
    streamFailed(request, error);
    await sendError(request, frames, error, true);
    frames.close('error');
  }
}

async function sendError(
  request: FastifyRequest,
  frames: FrameSocket<z.ZodType, ProcessStreamServerFrame>,
  error: unknown,
  fatal: boolean,
): Promise<void> {
  const known = toCatalogue(error);
  request.log.info({ err: error, code: known.code }, 'a stream met an error');
  await frames.send({ type: 'error', data: known.message, fatal, error: toRestError(known, request.id) });
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

/** A client of one process. */
interface Client {
  readonly request: FastifyRequest;
  readonly frames: ExecSocket | FollowSocket;
  readonly encoding: OutputEncoding;
  readonly inputId: string | null | undefined;
  readonly inputOffset: number;
  /** Whether it knows the name of the process from the start. */
  readonly isFindable: boolean;
}

async function follow(process: LastingProcess, beginning: Beginning, selector: string, client: Client): Promise<void> {
  const { frames, encoding, isFindable } = client;
  const refused = new AbortController();
  const ended = new AbortController();
  const stop = AbortSignal.any([frames.gone, refused.signal]);
  const tag = /^\d+$/.test(selector) ? null : selector;
  let isKnown = isFindable;
  let obeying: Promise<void> | undefined;
  try {
    for await (const frame of toFrames(throwOverdue(process.output(beginning, stop), beginning), encoding, tag)) {
      await frames.send(frame);
      if (frame.type !== 'start') continue;
      streamOpened(client.request);
      isKnown ||= !frames.gone.aborted;
      obeying = obeyClient(process, selector, client, ended.signal).catch((error: unknown) => refused.abort(error));
    }
  } catch (error) {
    // Nobody could ever find it.
    if (!isKnown && frames.gone.aborted) {
      using limit = patientTimeout(KILL_TIMEOUT_MS);
      await signalLasting(process, selector, SIGKILL, limit.signal);
    }
    throw error;
  } finally {
    if (frames.gone.aborted) await settleLastWords(obeying);
    ended.abort();
  }
}

/** The deadline of a command is told as an error, over whichever connection its end comes. */
async function* throwOverdue(
  output: AsyncIterable<ProcessOutput>,
  beginning: Beginning,
): AsyncGenerator<ProcessOutput> {
  for await (const part of output) {
    if (part.type === 'end' && part.isOverdue && beginning.kind === 'start') {
      throw new WrennError('deadline_exceeded', { what: 'The command', timeout_ms: beginning.timeoutMs ?? 0 });
    }
    yield part;
  }
}

/** Does what the client asks while the command runs. Throws when it asks for nonsense. */
async function obeyClient(
  process: LastingProcess,
  selector: string,
  { request, frames, inputId, inputOffset }: Client,
  signal: AbortSignal,
): Promise<void> {
  const tellError = (error: unknown) => sendError(request, frames, error, false);
  const input = openClientInput(
    {
      ...{ process, selector, kind: 'stdin', inputId, inputOffset },
      acknowledge: (bytes) => void frames.send({ type: 'stdin_ack', bytes }),
      onLost: (error) => void tellError(error),
    },
    signal,
  );
  for (;;) {
    const message = await frames.receive();
    if (!message) return input.idle();
    if (signal.aborted) return;
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
      case 'signal': {
        const number = frame.type === 'stop' ? SIGKILL : frame.signal;
        await signalLasting(process, selector, number, signal).catch((error: unknown) =>
          signal.aborted ? undefined : tellError(error),
        );
        break;
      }
      case 'start':
        throw new WrennError('invalid_request', { problem: 'the command was started already' });
    }
  }
}

function toBytes({ data, data_b64 }: { data?: string | undefined; data_b64?: string | undefined }): Buffer {
  return data_b64 === undefined ? Buffer.from(data ?? '') : Buffer.from(data_b64, 'base64');
}
