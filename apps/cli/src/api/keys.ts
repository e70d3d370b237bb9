import {
  type ApiKeyBody,
  apiKeyListSchema,
  apiKeySchema,
  type createApiKeyRequestSchema,
} from '@wrenn/protocol/rest/api-keys';
import { auditPageSchema } from '@wrenn/protocol/rest/audit';
import type { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, query, withTimeout } from './http.ts';

export type AuditPage = z.output<typeof auditPageSchema>;

/** Which entries of the audit log. */
export interface AuditFilter {
  readonly limit?: string | undefined;
  readonly cursor?: string | undefined;
  readonly action?: string | undefined;
  readonly resource_type?: string | undefined;
  readonly actor?: string | undefined;
  readonly status?: string | undefined;
}

/** The part of the API that is about keys, and about what was done with them. */
export interface KeyCalls {
  listKeys(signal: AbortSignal): Promise<ApiKeyBody[]>;
  /** The answer has the key itself, for the only time. */
  createKey(request: z.input<typeof createApiKeyRequestSchema>, signal: AbortSignal): Promise<ApiKeyBody>;
  revokeKey(id: string, signal: AbortSignal): Promise<void>;
  /** Newest first. */
  readAudit(filter: AuditFilter, signal: AbortSignal): Promise<AuditPage>;
}

export function keyCalls({ json, send }: ApiHttp): KeyCalls {
  return {
    listKeys: (signal) => json(apiKeyListSchema, '/v1/api-keys', {}, signal),
    createKey: (request, signal) => json(apiKeySchema, '/v1/api-keys', post(request), signal),
    revokeKey: async (id, signal) => {
      await send(`/v1/api-keys/${encodeURIComponent(id)}`, { method: 'DELETE' }, withTimeout(signal, QUERY_TIMEOUT_MS));
    },
    readAudit: (filter, signal) => json(auditPageSchema, `/v1/audit-logs${query({ ...filter })}`, {}, signal),
  };
}
