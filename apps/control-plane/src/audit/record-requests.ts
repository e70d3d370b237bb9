import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { actorOf, toldOf } from '../access/actor.ts';
import type { Caller } from '../capsules/capsules.ts';
import { toCatalogue } from '../http/error-handler.ts';
import type { Server } from '../http/server.ts';
import type { AuditEntry } from './record.ts';
import { auditOf, type RouteAudit, refusalOf } from './route-rule.ts';
import type { AuditSink } from './trail.ts';

/** How long the answer to a change waits for its entry. */
const WRITE_MS = 5000;

/** What is known of a request besides itself. */
interface Noted {
  details: Record<string, unknown>;
  /** From the answer. */
  resourceId?: string | undefined;
  /** Of the catalogue. */
  code?: string | undefined;
  stream?: 'open' | 'failed';
}

const notes = new WeakMap<FastifyRequest, Noted>();

function noted(request: FastifyRequest): Noted {
  const found = notes.get(request) ?? { details: {} };
  notes.set(request, found);
  return found;
}

/** Adds facts to the entry of a request. Never a secret, nor what is inside a capsule. */
export function noteDetails(request: FastifyRequest, details: Record<string, unknown>): void {
  Object.assign(noted(request).details, details);
}

const openers = new WeakMap<FastifyRequest, (code: string | undefined) => void>();

/** The client of a WebSocket has got what it wanted. Without this its entry is written when it is closed. */
export function streamOpened(request: FastifyRequest): void {
  openers.get(request)?.(undefined);
}

/** The client of a WebSocket was refused, or what it asked for failed. Counts only before `streamOpened`. */
export function streamFailed(request: FastifyRequest, error: unknown): void {
  openers.get(request)?.(toCatalogue(error).code);
}

/**
 * Has every request recorded that changes something, enters a capsule or was refused to somebody known; a route cannot
 * forget it. Before any route is added, after the guard.
 */
export function recordRequests(app: Server, sink: AuditSink): void {
  app.addHook('onRoute', (route) => {
    const rule = auditOf(route);
    const refusal = refusalOf(route);
    if (rule) {
      route.preHandler = [...hooksOf(route.preHandler), beforeHandler(rule, sink)];
      route.preSerialization = [...hooksOf(route.preSerialization), noteResource];
    }
    if (!rule && !refusal) return;
    route.onError = [...hooksOf(route.onError), noteError];
    route.onSend = [...hooksOf(route.onSend), beforeAnswer(rule, refusal, sink)];
  });
}

function hooksOf<Hook>(hooks: Hook | Hook[] | undefined): Hook[] {
  return hooks === undefined ? [] : ([hooks].flat() as Hook[]);
}

/** While so much waits for the database that more could be lost, nothing begins that would have to be recorded. */
function beforeHandler(rule: RouteAudit, sink: AuditSink) {
  return async (request: FastifyRequest): Promise<void> => {
    if (sink.isFull) throw new WrennError('database_unavailable');
    if (request.ws) recordStream(request, rule, sink);
  };
}

async function noteResource(request: FastifyRequest, _reply: FastifyReply, payload: unknown): Promise<unknown> {
  const { id } = (payload ?? {}) as { id?: unknown };
  if (typeof id === 'string') noted(request).resourceId = id;
  return payload;
}

async function noteError(request: FastifyRequest, _reply: FastifyReply, error: unknown): Promise<void> {
  noted(request).code = toCatalogue(error, request).code;
}

function beforeAnswer(rule: RouteAudit | undefined, refusal: RouteAudit | undefined, sink: AuditSink) {
  return async (request: FastifyRequest, reply: FastifyReply, payload: unknown): Promise<unknown> => {
    const { statusCode } = reply;
    const isFailure = statusCode >= 400;
    const chosen = rule ?? (statusCode === 403 ? refusal : undefined);
    if (!chosen || reply.getHeader('idempotency-replayed')) return payload;
    // Whoever sends requests without a credential must not fill the log; wrong logins are their domain's matter.
    if (isFailure && !request.principal) return payload;
    if (chosen.by === 'domain' && !isFailure) return payload;
    if (!chosen.isAccess && toldOf(request).has(isFailure ? 'failure' : 'success')) return payload;
    const entry = entryOf(request, chosen, {
      status: isFailure ? 'error' : 'success',
      metadata: { http_status: statusCode, duration_ms: Math.round(reply.elapsedTime) },
    });
    // A change that nobody wrote down with it is not answered before it is.
    if (chosen.isChange && !isFailure) await sink.write(entry, WRITE_MS);
    else sink.add(entry);
    return payload;
  };
}

function recordStream(request: FastifyRequest, rule: RouteAudit, sink: AuditSink): void {
  const beganMs = performance.now();
  const state = noted(request);
  const open = (code: string | undefined) => {
    if (state.stream) return;
    state.stream = code ? 'failed' : 'open';
    state.code = code;
    sink.add(entryOf(request, rule, { status: code ? 'error' : 'success', metadata: {} }));
  };
  openers.set(request, open);
  request.raw.socket.once('close', () => {
    // One that never said who it is.
    if (!request.principal || state.stream === 'failed') return;
    const metadata = { duration_ms: Math.round(performance.now() - beganMs) };
    const action = state.stream ? `${rule.action}_end` : rule.action;
    sink.add(entryOf(request, { ...rule, action }, { status: 'info', metadata }));
  });
}

function entryOf(
  request: FastifyRequest,
  rule: RouteAudit,
  { status, metadata }: Pick<AuditEntry, 'status' | 'metadata'>,
): AuditEntry {
  const { details, code, resourceId } = noted(request);
  const params = (request.params ?? {}) as Record<string, string | undefined>;
  // Plugins may give a route to administrators after it got its rule.
  const scope = request.routeOptions.config.permission === 'platform' ? 'platform' : rule.scope;
  // Not set for whoever was refused.
  const caller: Caller | null = request.caller;
  return {
    teamId: caller?.teamId ?? (scope === 'platform' ? undefined : request.principal?.team?.id),
    actor: actorOf(request),
    resourceType: rule.resource,
    resourceId: (rule.param === false ? undefined : params[rule.param ?? 'id']) ?? resourceId,
    action: rule.action,
    scope,
    status,
    metadata: { ...safeDetails(request, rule), ...details, ...metadata, ...(code ? { code } : {}) },
  };
}

/** The body of a refused request may have any form. */
function safeDetails(request: FastifyRequest, rule: RouteAudit): Record<string, unknown> {
  try {
    return rule.details?.(request) ?? {};
  } catch {
    return {};
  }
}
