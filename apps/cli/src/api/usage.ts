import {
  type AdminUsageBody,
  adminUsageSchema,
  type BudgetBody,
  budgetSchema,
  type PoolBody,
  poolSchema,
  type SetPoolRequest,
  type setBudgetRequestSchema,
  type UsageBody,
  type UsageQuery,
  usageSchema,
} from '@wrenn/protocol/rest/usage';
import type { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, query, withTimeout } from './http.ts';

/** Days and how to group; what is left out is the server's default. */
export type UsageRequest = Partial<Pick<UsageQuery, 'from' | 'to' | 'group_by' | 'label'>>;

/** The part of the API that is about what teams use, may use and pay. */
export interface UsageCalls {
  /** Of the team of the credential, or of another one that its person is in. */
  readUsage(request: UsageRequest, teamId: string | undefined, signal: AbortSignal): Promise<UsageBody>;
  readUsageCsv(request: UsageRequest, teamId: string | undefined, signal: AbortSignal): Promise<string>;
  /** Of every team, for administrators. */
  readUsageOfAll(request: Pick<UsageRequest, 'from' | 'to'>, signal: AbortSignal): Promise<AdminUsageBody>;
  readUsageOfAllCsv(request: Pick<UsageRequest, 'from' | 'to'>, signal: AbortSignal): Promise<string>;
  getPool(teamId: string, signal: AbortSignal): Promise<PoolBody>;
  /** For administrators. */
  setPool(teamId: string, request: SetPoolRequest, signal: AbortSignal): Promise<PoolBody>;
  getBudget(teamId: string, signal: AbortSignal): Promise<BudgetBody>;
  setBudget(teamId: string, request: z.input<typeof setBudgetRequestSchema>, signal: AbortSignal): Promise<BudgetBody>;
}

export function usageCalls({ json, send }: ApiHttp): UsageCalls {
  const team = (id: string, rest: string) => `/v1/teams/${encodeURIComponent(id)}/${rest}`;
  const usage = (teamId: string | undefined) => (teamId === undefined ? '/v1/capsules/usage' : team(teamId, 'usage'));
  const text = async (path: string, request: UsageRequest, signal: AbortSignal) => {
    const to = `${path}${query({ ...request, format: 'csv' })}`;
    return (await send(to, {}, withTimeout(signal, QUERY_TIMEOUT_MS))).text();
  };
  return {
    readUsage: (request, teamId, signal) => json(usageSchema, `${usage(teamId)}${query(request)}`, {}, signal),
    readUsageCsv: (request, teamId, signal) => text(usage(teamId), request, signal),
    readUsageOfAll: (request, signal) => json(adminUsageSchema, `/v1/admin/usage${query(request)}`, {}, signal),
    readUsageOfAllCsv: (request, signal) => text('/v1/admin/usage', request, signal),
    getPool: (teamId, signal) => json(poolSchema, team(teamId, 'pool'), {}, signal),
    setPool: (teamId, request, signal) => {
      const path = `/v1/admin/teams/${encodeURIComponent(teamId)}/pool`;
      return json(poolSchema, path, { ...post(request), method: 'PUT' }, signal);
    },
    getBudget: (teamId, signal) => json(budgetSchema, team(teamId, 'budget'), {}, signal),
    setBudget: (teamId, request, signal) =>
      json(budgetSchema, team(teamId, 'budget'), { ...post(request), method: 'PUT' }, signal),
  };
}
