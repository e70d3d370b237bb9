import { WrennError } from '@wrenn/protocol/errors';
import { PERMISSIONS, type Permission, type Rule } from './permissions.ts';
import type { Principal } from './principal.ts';

/**
 * Lets whoever asks do that, or says why not.
 *
 * @throws WrennError `unauthorized`, `login_required`, `no_team`, `insufficient_role`, `insufficient_scope` or `forbidden`
 */
export function authorize(principal: Principal | undefined, permission: Permission): void {
  const problem = problemWith(principal, PERMISSIONS[permission]);
  if (problem) throw problem;
}

/** Whether `authorize` would let it pass. */
export function isAllowed(principal: Principal | undefined, permission: Permission): boolean {
  return problemWith(principal, PERMISSIONS[permission]) === undefined;
}

function problemWith(principal: Principal | undefined, rule: Rule): WrennError | undefined {
  if (rule.for === 'public') return undefined;
  if (!principal) return new WrennError('unauthorized');
  switch (rule.for) {
    case 'account':
      return principal.type === 'user' ? undefined : new WrennError('login_required');
    case 'platform':
      if (principal.type !== 'user') return new WrennError('login_required');
      return principal.isAdmin ? undefined : new WrennError('forbidden');
    case 'platform-or-team':
      return principal.type === 'user' && principal.isAdmin ? undefined : problemInTeam(principal, rule);
    case 'team':
      return problemInTeam(principal, rule);
    case 'host':
      return principal.type === 'host' ? undefined : new WrennError('unauthorized');
  }
}

function problemInTeam(
  principal: Principal,
  { roles, scope }: Pick<Extract<Rule, { for: 'team' }>, 'roles' | 'scope'>,
): WrennError | undefined {
  if (!principal.team) return new WrennError('no_team');
  if (principal.type === 'api_key') {
    if (!scope) return new WrennError('login_required');
    if (principal.scopes && !principal.scopes.includes(scope))
      return new WrennError('insufficient_scope', { needed: scope });
  }
  if (!roles.includes(principal.team.role)) {
    return new WrennError('insufficient_role', { needed: roles.join(' or '), role: principal.team.role });
  }
  return undefined;
}
