import type { AuditEntryBody } from '@wrenn/protocol/rest/audit';
import type { AuditRow } from '../database/audit-schema.ts';

export function toAuditBody(row: AuditRow): AuditEntryBody {
  return {
    id: row.id,
    actor_type: row.actorType,
    actor_id: row.actorId,
    actor_name: row.actorName,
    address: row.address,
    resource_type: row.resourceType,
    resource_id: row.resourceId,
    action: row.action,
    scope: row.scope,
    status: row.status,
    metadata: row.metadata,
    request_id: row.requestId,
    created_at: row.createdAt.toISOString(),
  };
}

const COLUMNS = [
  'created_at',
  'id',
  'actor_type',
  'actor_id',
  'actor_name',
  'address',
  'resource_type',
  'resource_id',
  'action',
  'scope',
  'status',
  'request_id',
  'metadata',
] as const satisfies (keyof AuditEntryBody)[];

export const CSV_HEAD = `${COLUMNS.join(',')}\r\n`;

/** One line of CSV; RFC 4180. */
export function toCsvLine(entry: AuditEntryBody): string {
  const cells = COLUMNS.map((name) => {
    const value = entry[name];
    return cell(typeof value === 'object' && value !== null ? JSON.stringify(value) : (value ?? ''));
  });
  return `${cells.join(',')}\r\n`;
}

/** Spreadsheets take what begins like this for a formula, and names are whatever people call themselves. */
const FORMULA = /^[=+\-@\t\r]/;

function cell(text: string): string {
  const harmless = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}
