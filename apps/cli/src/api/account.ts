import {
  type changePasswordRequestSchema,
  confirmTwoFactorRequestSchema,
  meSchema,
  recoveryCodesSchema,
  sessionListSchema,
  twoFactorSetupSchema,
} from '@wrenn/protocol/rest/account';
import {
  type AuthBody,
  authSchema,
  messageSchema,
  providersSchema,
  type signUpRequestSchema,
} from '@wrenn/protocol/rest/auth';
import type { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, withTimeout } from './http.ts';

export type Me = z.output<typeof meSchema>;
export type LoginMethods = z.output<typeof providersSchema>;

/** The part of the API that is about logins and one's own account. */
export interface AccountCalls {
  loginMethods(signal: AbortSignal): Promise<LoginMethods>;
  signUp(request: z.input<typeof signUpRequestSchema>, signal: AbortSignal): Promise<string>;
  activate(token: string, signal: AbortSignal): Promise<AuthBody>;
  /** @throws ApiError `two_factor_required` with a challenge for `sendSecondFactor` */
  login(email: string, password: string, signal: AbortSignal): Promise<AuthBody>;
  sendSecondFactor(challenge: string, code: string, signal: AbortSignal): Promise<AuthBody>;
  /** Ends a login through a provider. `verifier` proves that it began here. */
  exchangeCode(code: string, verifier: string, signal: AbortSignal): Promise<AuthBody>;
  logout(signal: AbortSignal): Promise<void>;
  requestPasswordReset(email: string, signal: AbortSignal): Promise<void>;
  confirmPasswordReset(token: string, newPassword: string, signal: AbortSignal): Promise<void>;
  me(signal: AbortSignal): Promise<Me>;
  rename(name: string, signal: AbortSignal): Promise<AuthBody>;
  changePassword(request: z.input<typeof changePasswordRequestSchema>, signal: AbortSignal): Promise<void>;
  /** @param confirmation the e-mail address of the account */
  deleteAccount(confirmation: string, signal: AbortSignal): Promise<void>;
  switchTeam(teamId: string, signal: AbortSignal): Promise<AuthBody>;
  listSessions(signal: AbortSignal): Promise<z.output<typeof sessionListSchema>>;
  /** Without an id: all but this one. */
  revokeSession(id: string | undefined, signal: AbortSignal): Promise<void>;
  beginTwoFactor(signal: AbortSignal): Promise<z.output<typeof twoFactorSetupSchema>>;
  /** Answers the recovery codes. */
  confirmTwoFactor(code: string, signal: AbortSignal): Promise<string[]>;
  endTwoFactor(code: string, signal: AbortSignal): Promise<void>;
}

export function accountCalls({ json, send }: ApiHttp): AccountCalls {
  const act = async (path: string, init: RequestInit, signal: AbortSignal) => {
    await send(path, init, withTimeout(signal, QUERY_TIMEOUT_MS));
  };
  const logIn = (path: string, body: unknown, signal: AbortSignal) => json(authSchema, path, post(body), signal);
  return {
    loginMethods: (signal) => json(providersSchema, '/v1/auth/providers', {}, signal),
    signUp: async (request, signal) => (await json(messageSchema, '/v1/auth/signup', post(request), signal)).message,
    activate: (token, signal) => logIn('/v1/auth/activate', { token }, signal),
    login: (email, password, signal) => logIn('/v1/auth/login', { email, password }, signal),
    sendSecondFactor: (challenge, code, signal) => logIn('/v1/auth/two-factor', { challenge, code }, signal),
    exchangeCode: (code, verifier, signal) => logIn('/v1/auth/exchange', { code, verifier }, signal),
    logout: (signal) => act('/v1/auth/logout', { method: 'POST' }, signal),
    requestPasswordReset: (email, signal) => act('/v1/me/password/reset', post({ email }), signal),
    confirmPasswordReset: (token, newPassword, signal) =>
      act('/v1/me/password/reset/confirm', post({ token, new_password: newPassword }), signal),
    me: (signal) => json(meSchema, '/v1/me', {}, signal),
    rename: (name, signal) => json(authSchema, '/v1/me', { ...post({ name }), method: 'PATCH' }, signal),
    changePassword: (request, signal) => act('/v1/me/password', post(request), signal),
    deleteAccount: (confirmation, signal) => act('/v1/me', { ...post({ confirmation }), method: 'DELETE' }, signal),
    switchTeam: (teamId, signal) => logIn('/v1/auth/switch-team', { team_id: teamId }, signal),
    listSessions: (signal) => json(sessionListSchema, '/v1/me/sessions', {}, signal),
    revokeSession: (id, signal) =>
      act(`/v1/me/sessions${id === undefined ? '' : `/${encodeURIComponent(id)}`}`, { method: 'DELETE' }, signal),
    beginTwoFactor: (signal) => json(twoFactorSetupSchema, '/v1/me/two-factor', { method: 'POST' }, signal),
    confirmTwoFactor: async (code, signal) => {
      const request = post(confirmTwoFactorRequestSchema.parse({ code }));
      return (await json(recoveryCodesSchema, '/v1/me/two-factor/confirm', request, signal)).recovery_codes;
    },
    endTwoFactor: (code, signal) => act('/v1/me/two-factor', { ...post({ code }), method: 'DELETE' }, signal),
  };
}
