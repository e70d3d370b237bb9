import type { KeyScope } from '@wrenn/protocol/rest/api-keys';
import type { TeamRole } from '@wrenn/protocol/rest/teams';

/** Who may do something. */
export type Rule =
  /** Everybody, without a credential. */
  | { readonly for: 'public' }
  /** A person who is logged in, in a team or not. API keys are refused. */
  | { readonly for: 'account' }
  /** A member with one of the roles and, where a scope is named, a key that has it. Without one keys are refused. */
  | { readonly for: 'team'; readonly roles: readonly TeamRole[]; readonly scope?: KeyScope }
  /** An administrator of the platform who is logged in. */
  | { readonly for: 'platform' }
  /** An administrator of the platform, or whom the same rule for teams lets in. The domain tells their powers apart. */
  | { readonly for: 'platform-or-team'; readonly roles: readonly TeamRole[]; readonly scope: KeyScope }
  /** The agent of the host that the path names, with what it got when it registered. */
  | { readonly for: 'host' };

const EVERY_ROLE = ['owner', 'admin', 'member'] as const;
const MANAGERS = ['owner', 'admin'] as const;

const anyMember = (scope?: KeyScope): Rule => ({ for: 'team', roles: EVERY_ROLE, ...(scope ? { scope } : {}) });
const managers = (scope?: KeyScope): Rule => ({ for: 'team', roles: MANAGERS, ...(scope ? { scope } : {}) });

/** Everything that can be allowed, and who may do it. Each route names one of these; nothing else decides. */
export const PERMISSIONS = {
  public: { for: 'public' },
  /** One's own account, sessions and teams. */
  account: { for: 'account' },

  'capsule.read': anyMember('capsules:read'),
  'capsule.write': anyMember('capsules:write'),
  /** What happens inside: commands, terminals, files, ports. */
  'capsule.access': anyMember('capsules:access'),
  'snapshot.read': anyMember('snapshots:read'),
  'snapshot.write': anyMember('snapshots:write'),

  'team.read': anyMember(),
  'team.leave': anyMember(),
  'team.update': managers(),
  'team.members': managers(),
  'team.own': { for: 'team', roles: ['owner'] },
  /** Keys of one's own; those of others and of the team need `key.manage`, which the domain asks for. */
  'key.own': anyMember(),
  'key.manage': managers(),
  /** Entries of scope team; those of scope admin need `audit.read_admin`, which the domain asks for. */
  'audit.read': anyMember('audit:read'),
  'audit.read_admin': managers('audit:read'),
  'channel.read': managers('channels:write'),
  'channel.write': managers('channels:write'),
  'metrics.read': anyMember('metrics:read'),
  'usage.read': anyMember('metrics:read'),
  'pool.read': anyMember('metrics:read'),
  'budget.read': managers(),
  'budget.write': managers(),

  /** Administrators all hosts, teams their own. */
  'host.read': { for: 'platform-or-team', roles: EVERY_ROLE, scope: 'hosts:read' },
  'host.write': { for: 'platform-or-team', roles: MANAGERS, scope: 'hosts:write' },
  host: { for: 'host' },

  platform: { for: 'platform' },
} as const satisfies Record<string, Rule>;

export type Permission = keyof typeof PERMISSIONS;
