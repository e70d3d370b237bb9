import type { FastifyRequest, RouteOptions } from 'fastify';
import type { Permission } from '../access/permissions.ts';
import type { AuditEntry } from './record.ts';

/** How requests of a route are recorded. */
export interface AuditRule {
  readonly resource: string;
  readonly action: string;
  /** Parameter of the path that names the resource; false: none does. Default: `id`. Else the `id` of the answer. */
  readonly param?: string | false;
  /** `domain`: whoever makes the change records it with it; only failures are left to the route. */
  readonly by?: 'domain';
  /** Facts of the request that are no secrets. */
  readonly details?: (request: FastifyRequest) => Record<string, unknown>;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /**
     * How its requests are recorded. Undefined: by its permission and operation id, where it changes something or
     * enters a capsule. `domain`: the same, but only failures: the domain records what it changes, with it.
     * false: never.
     */
    audit?: AuditRule | 'domain' | false;
  }
}

/** A rule with everything that a route says only by its place. */
export interface RouteAudit extends AuditRule {
  readonly scope: AuditEntry['scope'];
  /** It was given no rule of its own, so that nobody knows whether its domain records. */
  readonly isDerived: boolean;
  /** It enters a capsule, which waking it up is no part of. */
  readonly isAccess: boolean;
  /** It changes something else. */
  readonly isChange: boolean;
}

const READING = ['GET', 'HEAD', 'OPTIONS'];

/** What is recorded of a route's requests, or undefined when nothing is but refusals. */
export function auditOf(route: RouteOptions): RouteAudit | undefined {
  const { permission, audit } = route.config ?? {};
  const methods = [route.method].flat();
  // Fastify's twin of a GET route.
  if (permission === undefined || audit === false || methods.every((method) => method === 'HEAD')) return undefined;
  const isAccess = permission === 'capsule.access' || route.config?.lasts === true;
  const isReading = methods.every((method) => READING.includes(method));
  if (audit === undefined && isReading && !isAccess) return undefined;
  const base = {
    scope: scopeOf(permission),
    isDerived: audit === undefined,
    isAccess,
    isChange: !isReading && !isAccess,
  };
  if (typeof audit === 'object') return { ...base, ...audit };
  return { ...base, ...derive(route, permission), ...(audit === 'domain' ? { by: 'domain' as const } : {}) };
}

/** What a request that was refused is recorded as, also one that would have changed nothing. */
export function refusalOf(route: RouteOptions): RouteAudit | undefined {
  const { permission } = route.config ?? {};
  if (permission === undefined || permission === 'public') return undefined;
  return {
    scope: scopeOf(permission),
    isDerived: true,
    isAccess: false,
    isChange: false,
    ...derive(route, permission),
  };
}

function derive(route: RouteOptions, permission: Permission): Pick<AuditRule, 'resource' | 'action'> {
  const place = route.url.replace(/^\/v1\//, '').split('/')[0] || 'server';
  const isOfPlace =
    permission === 'public' || permission === 'account' || permission === 'platform' || permission === 'host';
  const action = route.schema?.operationId ?? `${[route.method].flat()[0]} ${route.url}`;
  return { resource: isOfPlace ? place : (permission.split('.')[0] ?? place), action: toSnakeCase(action) };
}

function scopeOf(permission: Permission): AuditEntry['scope'] {
  if (permission === 'public' || permission === 'account' || permission === 'platform' || permission === 'host')
    return 'platform';
  return permission === 'team.members' || permission === 'team.own' ? 'admin' : 'team';
}

function toSnakeCase(name: string): string {
  return name.replace(/[a-z0-9](?=[A-Z])/g, '$&_').toLowerCase();
}
