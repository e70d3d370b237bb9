import { newId } from '@wrenn/protocol/ids';
import type { AUDIT_SCOPES, AUDIT_STATUSES } from '@wrenn/protocol/rest/audit';
import { type SQL, sql } from 'drizzle-orm';
import { type Actor, noteTold } from '../access/actor.ts';
import { auditLog } from '../database/audit-schema.ts';
import type { Db } from '../database/database.ts';

/** One line of the audit log. */
export interface AuditEntry {
  /** Undefined: of no team. */
  readonly teamId: string | undefined;
  readonly actor: Actor;
  /** What it was done to: `capsule`, `member`, `session` … */
  readonly resourceType: string;
  readonly resourceId?: string | undefined;
  /** What was done: `create`, `exec`, `login` … */
  readonly action: string;
  readonly scope: (typeof AUDIT_SCOPES)[number];
  readonly status: (typeof AUDIT_STATUSES)[number];
  /** Never a secret, nor what is inside a capsule. */
  readonly metadata?: Record<string, unknown>;
}

/** An entry on its way, by whose id and time it is known: written again it is still one. */
export type StampedEntry = AuditEntry & { readonly id: string; readonly createdAt: Date };

export function stamp(entry: AuditEntry): StampedEntry {
  return { ...entry, id: newId('log'), createdAt: new Date() };
}

/** Writes an entry: within the transaction of what it tells of, where there is one. */
export async function recordAudit(db: Db, entry: AuditEntry): Promise<void> {
  await db.insert(auditLog).values(toRow({ ...entry, id: newId('log'), createdAt: sql`clock_timestamp()` }));
  noteTold(entry.actor, entry.status === 'error' || entry.status === 'warning' ? 'failure' : 'success');
}

/** Writes entries that may have been written before. As one parameter: requests wait while a statement is made. */
export async function insertEntries(db: Db, entries: readonly StampedEntry[]): Promise<void> {
  await db.execute(sql`
    INSERT INTO audit_log (id, team_id, actor_type, actor_id, actor_name, address, resource_type, resource_id, action,
      scope, status, metadata, request_id, created_at)
    SELECT "id", "teamId", "actorType", "actorId", "actorName", "address", "resourceType", "resourceId", "action",
      "scope", "status", "metadata", "requestId", "createdAt"
    FROM jsonb_to_recordset(${JSON.stringify(entries.map(toRow))}::jsonb) AS entry(
      "id" text, "teamId" text, "actorType" text, "actorId" text, "actorName" text, "address" text,
      "resourceType" text, "resourceId" text, "action" text, "scope" text, "status" text, "metadata" jsonb,
      "requestId" text, "createdAt" timestamptz)
    ON CONFLICT DO NOTHING`);
}

function toRow({ teamId, actor, resourceId, metadata, ...entry }: AuditEntry & { id: string; createdAt: Date | SQL }) {
  return {
    ...entry,
    teamId: teamId ?? null,
    resourceId: resourceId === undefined ? null : storable(resourceId, 256),
    metadata: storableObject(metadata ?? {}),
    actorType: actor.type,
    actorId: actor.id ?? null,
    actorName: storable(actor.name, 256),
    address: actor.address ?? null,
    requestId: actor.requestId ?? null,
  };
}

const MAX_TEXT = 1024;

/** Without the character that PostgreSQL has no place for, nor half ones, and no longer than people read. */
function storable(text: string, maxLength: number): string {
  return text.slice(0, maxLength).toWellFormed().replaceAll('\0', '\uFFFD');
}

function storableObject(object: Record<string, unknown>): Record<string, unknown> {
  const text = JSON.stringify(object, (_key, value: unknown) => {
    if (typeof value === 'string') return storable(value, MAX_TEXT);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    // Names can be a client's words, too.
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [storable(name, MAX_TEXT), inner]));
  });
  return JSON.parse(text) as Record<string, unknown>;
}
