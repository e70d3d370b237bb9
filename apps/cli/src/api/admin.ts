import {
  adminMailPageSchema,
  adminTeamPageSchema,
  adminUserPageSchema,
  type setActiveRequestSchema,
  type setAdminRequestSchema,
} from '@wrenn/protocol/rest/admin';
import type { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, query, withTimeout } from './http.ts';

export type AdminUser = z.output<typeof adminUserPageSchema>['users'][number];
export type AdminTeam = z.output<typeof adminTeamPageSchema>['teams'][number];
export type AdminMail = z.output<typeof adminMailPageSchema>['items'][number];

/** The part of the API that is for administrators of the platform. */
export interface AdminCalls {
  listAllUsers(signal: AbortSignal): Promise<AdminUser[]>;
  listAllTeams(signal: AbortSignal): Promise<AdminTeam[]>;
  /** The newest first. */
  listMails(limit: number, signal: AbortSignal): Promise<AdminMail[]>;
  setUserActive(id: string, request: z.input<typeof setActiveRequestSchema>, signal: AbortSignal): Promise<void>;
  setUserAdmin(id: string, request: z.input<typeof setAdminRequestSchema>, signal: AbortSignal): Promise<void>;
  restoreUser(id: string, signal: AbortSignal): Promise<void>;
  /** For good. */
  enableByoc(teamId: string, signal: AbortSignal): Promise<void>;
}

export function adminCalls({ json, send }: ApiHttp): AdminCalls {
  const act = async (path: string, init: RequestInit, signal: AbortSignal) => {
    await send(path, init, withTimeout(signal, QUERY_TIMEOUT_MS));
  };
  const user = (id: string, rest: string) => `/v1/admin/users/${encodeURIComponent(id)}/${rest}`;
  return {
    listAllUsers: (signal) =>
      allPages(async (page) => {
        const { users, total_pages } = await json(adminUserPageSchema, `/v1/admin/users${query({ page })}`, {}, signal);
        return { items: users, total_pages };
      }),
    listAllTeams: (signal) =>
      allPages(async (page) => {
        const { teams, total_pages } = await json(adminTeamPageSchema, `/v1/admin/teams${query({ page })}`, {}, signal);
        return { items: teams, total_pages };
      }),
    listMails: async (limit, signal) =>
      (await json(adminMailPageSchema, `/v1/admin/mails${query({ limit: String(limit) })}`, {}, signal)).items,
    setUserActive: (id, request, signal) => act(user(id, 'active'), { ...post(request), method: 'PUT' }, signal),
    setUserAdmin: (id, request, signal) => act(user(id, 'admin'), { ...post(request), method: 'PUT' }, signal),
    restoreUser: (id, signal) => act(user(id, 'restore'), { method: 'POST' }, signal),
    enableByoc: (id, signal) =>
      act(`/v1/admin/teams/${encodeURIComponent(id)}/byoc`, { ...post({ enabled: true }), method: 'PUT' }, signal),
  };
}

async function allPages<Item>(
  read: (page: string) => Promise<{ items: Item[]; total_pages: number }>,
): Promise<Item[]> {
  const all: Item[] = [];
  for (let page = 1; ; page++) {
    const { items, total_pages } = await read(String(page));
    all.push(...items);
    if (page >= total_pages) return all;
  }
}
