import { createHmac } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Db } from '../database/database.ts';
import type { KeyRing } from '../secrets/key-ring.ts';
import { clientGone } from './client-gone.ts';
import { claimRequest, keepAnswer, type RequestName, releaseRequest } from './idempotency-store.ts';
import { isFinal, openAnswer, sealAnswer } from './kept-answer.ts';
import { idempotencyHeaders } from './request-parts.ts';
import type { Server } from './server.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** `ignored`: the route changes nothing, or what it changes is the same however often it is asked. */
    idempotency?: 'ignored';
  }
  interface FastifyRequest {
    /** The request with its idempotency key, from when its body is there. */
    repeatable: { readonly name: RequestName; readonly hash: string } | undefined;
    /** Set while this request is the one that is served under its key. */
    claimed: RequestName | undefined;
  }
}

export interface IdempotencyDeps {
  readonly db: Db;
  readonly keyRing: KeyRing;
  /** Keys the hashes of requests. */
  readonly jwtSecret: Uint8Array;
  /** Number of this control plane. */
  readonly runner: number;
}

const MUTATING = ['POST', 'PUT', 'PATCH', 'DELETE'];
/** How long a repeated request waits for the answer of the first. */
const WAIT_MS = 60_000;
const POLL_MS = 100;
const SETTLE_RETRY_MS = 1000;

/**
 * Answers a repeated request with the same Idempotency-Key as the first was answered. For every route that changes
 * something; before any route is added, after the guard.
 */
export function rememberAnswers(app: Server, deps: IdempotencyDeps): void {
  app.decorateRequest('repeatable', undefined);
  app.decorateRequest('claimed', undefined);
  app.addHook('onRoute', (route) => {
    const methods = [route.method].flat();
    if (!route.schema || route.config?.idempotency || !methods.some((method) => MUTATING.includes(method))) return;
    const { headers } = route.schema;
    const others = headers instanceof z.ZodObject ? headers.shape : {};
    route.schema = { ...route.schema, headers: idempotencyHeaders.extend(others) };
  });
  app.addHook('preValidation', async (request) => {
    request.repeatable = identify(deps, request);
  });
  app.addHook('preHandler', (request, reply) => claimOrReplay(deps, request, reply));
  app.addHook('onSend', async (request, reply, payload) => {
    const name = request.claimed;
    if (!name) return payload;
    request.claimed = undefined;
    await settle(deps, name, request, reply, payload);
    return payload;
  });
}

function identify({ jwtSecret }: IdempotencyDeps, request: FastifyRequest): FastifyRequest['repeatable'] {
  const { method, routeOptions, headers, principal } = request;
  const key = headers['idempotency-key'];
  if (typeof key !== 'string' || !MUTATING.includes(method) || routeOptions.config.idempotency) return undefined;
  const hash = createHmac('sha256', jwtSecret)
    .update('idempotent request\0')
    .update(JSON.stringify([method, request.url, bodyOf(request)]))
    .digest('hex');
  const team = principal?.team ? `${principal.team.id}/` : '';
  // Without a credential only who knows the whole request, secrets too, finds the first answer.
  const owner = principal ? `${team}${principal.id}` : `public/${hash}`;
  const operation = routeOptions.schema?.operationId ?? `${method} ${routeOptions.url}`;
  return { name: { owner, operation, key }, hash };
}

/** What of the body tells two requests apart: all of it, or its length where it is read only as it is used. */
function bodyOf({ body, headers }: FastifyRequest): unknown {
  const isStreamed = body === undefined || typeof (body as { pipe?: unknown } | null)?.pipe === 'function';
  return isStreamed ? { length: headers['content-length'] ?? null } : { json: inOneOrder(body) };
}

function inOneOrder(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inOneOrder);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([name, inner]) => [name, inOneOrder(inner)]));
}

async function claimOrReplay(deps: IdempotencyDeps, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { repeatable } = request;
  if (!repeatable) return undefined;
  const { name, hash } = repeatable;
  const signal = AbortSignal.any([clientGone(request, reply), AbortSignal.timeout(WAIT_MS)]);
  for (;;) {
    const claim = await claimRequest(deps.db, name, hash, deps.runner);
    switch (claim.is) {
      case 'ours':
        request.claimed = name;
        return undefined;
      case 'other':
        throw new WrennError('idempotency_key_used', { key: name.key });
      case 'done':
        return replay(deps, name, claim, reply);
      case 'running':
        if (signal.aborted) throw new WrennError('request_in_progress', { key: name.key, retry_after_s: 1 });
        await delay(POLL_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

function replay(
  { keyRing }: IdempotencyDeps,
  name: RequestName,
  { status, answer }: { status: number; answer: string | null },
  reply: FastifyReply,
): FastifyReply {
  const opened = answer === null ? undefined : openAnswer(keyRing, name, answer);
  if (!opened) throw new WrennError('answer_not_kept', { key: name.key, status });
  return reply.code(status).headers(opened.headers).header('idempotency-replayed', 'true').send(opened.body);
}

/** Before the answer goes out, so that whoever got one gets it again. */
async function settle(
  deps: IdempotencyDeps,
  name: RequestName,
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
): Promise<void> {
  const { db, runner, keyRing } = deps;
  const status = reply.statusCode;
  const answer = isFinal(status, payload) ? sealAnswer(keyRing, name, reply.getHeaders(), payload) : undefined;
  const write = () =>
    answer === undefined
      ? releaseRequest(db, name, runner)
      : keepAnswer(db, name, runner, { status, answer: answer ?? null });
  try {
    await write();
  } catch (err) {
    request.log.warn({ err }, 'the answer for an idempotency key is not kept yet');
    void retryForAWhile(write, request);
  }
}

/** A request that is not settled would be taken for one that still runs as long as this control plane lives. */
async function retryForAWhile(write: () => Promise<void>, request: FastifyRequest): Promise<void> {
  for (let waitMs = SETTLE_RETRY_MS; ; waitMs = Math.min(2 * waitMs, WAIT_MS)) {
    await delay(waitMs, undefined, { ref: false });
    try {
      return await write();
    } catch (err) {
      request.log.warn({ err }, 'the answer for an idempotency key is not kept yet');
    }
  }
}
