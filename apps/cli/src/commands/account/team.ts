import type { MemberBody, TeamBody } from '@wrenn/protocol/rest/teams';
import { type Command, Option } from 'commander';
import type { ApiClient } from '../../api/client.ts';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { saveLogin } from '../../login/saved-logins.ts';
import { formatAge } from '../../terminal/format.ts';
import { formatTable } from '../../terminal/table.ts';

export function addTeamCommands(program: Command, cli: Cli): void {
  const team = program
    .command('team')
    .description('your teams, their members and invitations')
    .addHelpText('after', '\nExample:\n  wrenn team create research\n  wrenn team invite --email grace@example.com');

  team
    .command('ls')
    .description('list your teams; * is the one that the next commands are for')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const api = cli.loginApi();
      const [teams, { team_id }] = await Promise.all([api.listTeams(cli.signal), api.me(cli.signal)]);
      if (options.json) return printJson(teams);
      if (teams.length === 0) return note('You are in no team. `wrenn team create` makes one.');
      print(
        formatTable(
          [
            { title: 'TEAM', value: ({ id }: TeamBody) => (id === team_id ? `${id} *` : id) },
            { title: 'NAME', value: ({ name }) => name },
            { title: 'YOU ARE', value: ({ role }) => role },
            { title: 'DEFAULT', value: ({ is_default }) => (is_default ? 'yes' : '-') },
          ],
          teams,
        ),
      );
    });

  team
    .command('create')
    .description('make a team; you own it, and the next commands are for it')
    .argument('<name>')
    .action(async (name: string) => {
      const api = cli.loginApi();
      const { id } = await api.createTeam(name, cli.signal);
      await useTeam(cli, api, id);
      print(id);
    });

  team
    .command('use')
    .description('make the next commands be for another of your teams')
    .argument('<team>', 'its id or name')
    .option('--default', 'and every login from now on')
    .action(async (ref: string, options: { default?: boolean }) => {
      const api = cli.loginApi();
      const { id, name } = await findTeam(cli, api, ref);
      if (options.default) await api.makeDefaultTeam(id, cli.signal);
      await useTeam(cli, api, id);
      print(`${name} (${id})`);
    });

  team
    .command('members')
    .description('list who is in the team')
    .addOption(teamOption())
    .option('--json', 'print JSON')
    .action(async (options: { team?: string; json?: boolean }) => {
      const api = cli.loginApi();
      const { members } = await api.getTeam(await teamIdOf(cli, api, options.team), cli.signal);
      if (options.json) return printJson(members);
      const now = Date.now();
      print(
        formatTable(
          [
            { title: 'NAME', value: ({ name }: MemberBody) => name },
            { title: 'E-MAIL', value: ({ email }) => email },
            { title: 'ROLE', value: ({ role }) => role },
            { title: 'SINCE', value: ({ joined_at }) => formatAge(now - Date.parse(joined_at)), align: 'right' },
            { title: 'ID', value: ({ user_id }) => user_id },
          ],
          members,
        ),
      );
    });

  team
    .command('rename')
    .description('give the team another name')
    .argument('<name>')
    .addOption(teamOption())
    .action(async (name: string, options: { team?: string }) => {
      const api = cli.loginApi();
      await api.renameTeam(await teamIdOf(cli, api, options.team), name, cli.signal);
      print(name);
    });

  team
    .command('role')
    .description('make a member an admin, or an admin a member')
    .argument('<member>', 'e-mail address or id')
    .argument('<role>', 'admin or member')
    .addOption(teamOption())
    .action(async (ref: string, role: string, options: { team?: string }) => {
      if (role !== 'admin' && role !== 'member') throw new CliError(`${role} is not a role.`, 'Write admin or member.');
      await withMember(cli, options.team, ref, (api, id, { user_id }) => api.setRole(id, user_id, role, cli.signal));
      print(`${ref} is ${role}`);
    });

  team
    .command('remove')
    .description('take a member out of the team, at once')
    .argument('<member>', 'e-mail address or id')
    .addOption(teamOption())
    .action(async (ref: string, options: { team?: string }) => {
      await withMember(cli, options.team, ref, (api, id, { user_id }) => api.removeMember(id, user_id, cli.signal));
      print(`${ref} is out of the team`);
    });

  team
    .command('transfer')
    .description('make another member the owner; you become an admin')
    .argument('<member>', 'e-mail address or id')
    .addOption(teamOption())
    .action(async (ref: string, options: { team?: string }) => {
      await withMember(cli, options.team, ref, (api, id, { user_id }) => api.transferTeam(id, user_id, cli.signal));
      print(`${ref} owns the team`);
    });

  team
    .command('leave')
    .description('leave the team')
    .addOption(teamOption())
    .action(async (options: { team?: string }) => {
      const api = cli.loginApi();
      const id = await teamIdOf(cli, api, options.team);
      await api.leaveTeam(id, cli.signal);
      print(`you are out of ${id}`);
    });

  team
    .command('delete')
    .description('delete a team with all its capsules, snapshots and keys')
    .argument('<team>', 'its whole id, to say that you mean it')
    .action(async (id: string) => {
      await cli.loginApi().deleteTeam(id, cli.signal);
      print(id);
    });
}

export const teamOption = () => new Option('-t, --team <team>', 'id or name; default: the one you are logged in for');

/** The team that an option names, else the one of the login. @throws CliError when there is none */
export async function teamIdOf(cli: Cli, api: ApiClient, ref: string | undefined): Promise<string> {
  if (ref !== undefined) return (await findTeam(cli, api, ref)).id;
  const { team_id } = await api.me(cli.signal);
  if (team_id === null) {
    throw new CliError('You are in no team.', 'Make one with `wrenn team create`, or ask for an invitation.');
  }
  return team_id;
}

async function findTeam(cli: Cli, api: ApiClient, ref: string): Promise<TeamBody> {
  const found = (await api.listTeams(cli.signal)).filter(({ id, name, slug }) => [id, name, slug].includes(ref));
  const [team, another] = found;
  if (!team) throw new CliError(`You are in no team ${ref}.`, '`wrenn team ls` lists your teams.');
  if (another)
    throw new CliError(`Several of your teams are named ${ref}.`, 'Use the id, as `wrenn team ls` shows it.');
  return team;
}

/** Gets a token for another team, and keeps it. */
export async function useTeam(cli: Cli, api: ApiClient, teamId: string): Promise<void> {
  saveLogin(api.connection.baseUrl, await api.switchTeam(teamId, cli.signal));
}

async function withMember(
  cli: Cli,
  teamRef: string | undefined,
  memberRef: string,
  work: (api: ApiClient, teamId: string, member: MemberBody) => Promise<void>,
): Promise<void> {
  const api = cli.loginApi();
  const teamId = await teamIdOf(cli, api, teamRef);
  const { members } = await api.getTeam(teamId, cli.signal);
  const wanted = memberRef.toLowerCase();
  const member = members.find(({ user_id, email }) => user_id === memberRef || email.toLowerCase() === wanted);
  if (!member) throw new CliError(`${memberRef} is not in the team.`, '`wrenn team members` lists who is.');
  await work(api, teamId, member);
}
