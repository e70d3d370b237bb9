import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import { WrennError } from '@wrenn/protocol/errors';
import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import {
  type ExecRequest,
  execBackgroundResponseSchema,
  execRequestSchema,
  execResponseSchema,
  killProcessQuerySchema,
  processListSchema,
  processParamsSchema,
} from '@wrenn/protocol/rest/exec';
import { programDetails, selectorDetails } from '../audit/access-details.ts';
import { clientGone } from '../http/client-gone.ts';
import { errorResponses, noContent, type RouteDeps, sendStream, withGuest } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { execInBackground, execToEnd } from './exec.ts';
import { execJson } from './exec-json.ts';
import { type Command, listProcesses, signalProcess } from './processes.ts';

const BACKGROUND_START_TIMEOUT_MS = 60_000;
const SHOWN_COMMAND_LENGTH = 80;

export function processRoutes(app: Server, deps: RouteDeps): void {
  app.post(
    '/capsules/:id/exec',
    {
      config: { permission: 'capsule.access', audit: { resource: 'capsule', action: 'exec', details: programDetails } },
      schema: {
        operationId: 'exec',
        tags: ['processes'],
        summary: 'Run a command',
        description:
          'Answers 200 when the command has ended, or 202 at once when it runs in the background. A client that disconnects ' +
          'ends its foreground command, unless the command has a tag by which it can be found again.',
        params: capsuleParamsSchema,
        body: execRequestSchema,
        response: { 200: execResponseSchema, 202: execBackgroundResponseSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { params, body, caller } = request;
      const detail = `command: ${commandLine(body)}`;
      const base = { capsule_id: params.id, sandbox_id: params.id, cmd: body.cmd };
      const gone = clientGone(request, reply);
      if (body.background) {
        const tag = body.tag ?? randomTag('proc');
        const pid = await withGuest(deps, caller, params.id, detail, gone, (guest) =>
          // Once it has begun it is not given up, or a command would run that nobody knows of.
          execInBackground(guest, toCommand(body, tag), AbortSignal.timeout(BACKGROUND_START_TIMEOUT_MS)),
        );
        reply.code(202);
        return { ...base, pid, tag };
      }
      const timeoutMs = toTimeoutMs(body.timeout_sec);
      const command = toCommand(body, body.tag ?? undefined);
      const { pid, exitCode, signal, durationMs, stdout, stderr } = await withGuest(
        deps,
        caller,
        params.id,
        detail,
        gone,
        (guest) => execToEnd(guest, command, timeoutMs, gone),
      );
      const head = { ...base, pid, tag: body.tag ?? null, exit_code: exitCode, signal, duration_ms: durationMs };
      reply.type('application/json; charset=utf-8');
      return sendStream(reply, execJson(head, stdout, stderr));
    },
  );

  app.get(
    '/capsules/:id/processes',
    {
      config: { permission: 'capsule.access', audit: { resource: 'capsule', action: 'process_list' } },
      schema: {
        operationId: 'listProcesses',
        tags: ['processes'],
        summary: 'List the processes that were started through the API and run',
        params: capsuleParamsSchema,
        response: { 200: processListSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const gone = clientGone(request, reply);
      const processes = await withGuest(deps, request.caller, request.params.id, 'a request', gone, (guest) =>
        listProcesses(guest, gone),
      );
      return { processes };
    },
  );

  app.delete(
    '/capsules/:id/processes/:selector',
    {
      config: {
        permission: 'capsule.access',
        audit: { resource: 'capsule', action: 'process_signal', details: selectorDetails },
      },
      schema: {
        operationId: 'killProcess',
        tags: ['processes'],
        summary: 'Send a signal to a process and all its children',
        params: processParamsSchema,
        querystring: killProcessQuerySchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { params, query, caller } = request;
      const number = toSignalNumber(query.signal);
      const gone = clientGone(request, reply);
      await withGuest(deps, caller, params.id, 'a signal', gone, (guest) =>
        signalProcess(guest, params.selector, number, gone),
      );
      reply.code(204);
      return null;
    },
  );
}

/** A command as the REST bodies and frames give it. */
type CommandFields = Pick<ExecRequest, 'cmd' | 'args' | 'envs' | 'cwd' | 'user'>;

export function toCommand(fields: CommandFields, tag: string | undefined): Command {
  return {
    cmd: fields.cmd,
    args: fields.args ?? [],
    envs: fields.envs ?? {},
    // Clients send an empty text for "the default".
    cwd: fields.cwd || undefined,
    user: fields.user || undefined,
    tag,
    stdin: false,
    pty: undefined,
  };
}

/** The beginning of a command, for a person. */
export function commandLine({ cmd, args }: Pick<ExecRequest, 'cmd' | 'args'>): string {
  const line = [cmd, ...(args ?? [])].join(' ');
  return line.length > SHOWN_COMMAND_LENGTH ? `${line.slice(0, SHOWN_COMMAND_LENGTH)}…` : line;
}

/** 0 and absent are "never". */
export function toTimeoutMs(seconds: number | null | undefined): number | undefined {
  return seconds ? Math.ceil(seconds * 1000) : undefined;
}

export function randomTag(prefix: 'exec' | 'proc' | 'pty'): string {
  return `${prefix}-${randomBytes(4).toString('hex')}`;
}

function toSignalNumber(signal: string): number {
  const number = /^\d+$/.test(signal) ? Number(signal) : (constants.signals as Record<string, number>)[signal];
  if (!number || number > 64) throw new WrennError('invalid_request', { problem: `there is no signal ${signal}` });
  return number;
}
