import type { InvitationBody } from '@wrenn/protocol/rest/teams';
import type { Command } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { formatSpan } from '../../terminal/format.ts';
import { formatTable } from '../../terminal/table.ts';
import { parseSeconds } from '../options.ts';
import { teamIdOf, teamOption, useTeam } from './team.ts';

const SECONDS_PER_HOUR = 3600;

export function addInvitationCommands(program: Command, cli: Cli): void {
  const team = program.commands.find((command) => command.name() === 'team');
  if (!team) throw new Error('the command team is added first');

  team
    .command('invite')
    .description('invite somebody; prints the link to pass on')
    .option('-e, --email <address>', 'gets a mail, and only that account can accept; default: whoever has the link')
    .option('-r, --role <role>', 'admin or member', 'member')
    .option('--expires <time>', 'how long it holds, e.g. 12h or 7d', parseSeconds, 7 * 24 * SECONDS_PER_HOUR)
    .addOption(teamOption())
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn team invite --email grace@example.com')
    .action(async (options: { email?: string; role: string; expires: number; team?: string; json?: boolean }) => {
      const { email, role } = options;
      if (role !== 'admin' && role !== 'member') throw new CliError(`${role} is not a role.`, 'Write admin or member.');
      const api = cli.loginApi();
      const invitation = await api.invite(
        await teamIdOf(cli, api, options.team),
        {
          role,
          expires_in_hours: Math.max(1, Math.round(options.expires / SECONDS_PER_HOUR)),
          ...(email === undefined ? {} : { email }),
        },
        cli.signal,
      );
      if (options.json) return printJson(invitation);
      print(invitation.token ?? '');
      note(`In a browser: ${invitation.link}`);
      note('In a terminal: wrenn team join <token>, or, without an account, wrenn signup --invitation <token>');
    });

  team
    .command('join')
    .description('accept an invitation; the next commands are for that team')
    .argument('<token>', 'of the invitation')
    .action(async (token: string) => {
      const api = cli.loginApi();
      const { id, name, role } = await api.acceptInvitation(token, cli.signal);
      await useTeam(cli, api, id);
      print(`you are ${role} of ${name} (${id})`);
    });

  const invitations = team
    .command('invitations')
    .description('list the invitations of the team')
    .addOption(teamOption())
    .option('--json', 'print JSON')
    .action(async (options: { team?: string; json?: boolean }) => {
      const api = cli.loginApi();
      const list = await api.listInvitations(await teamIdOf(cli, api, options.team), cli.signal);
      if (options.json) return printJson(list);
      if (list.length === 0) return note('There are none. `wrenn team invite` makes one.');
      const now = Date.now();
      print(
        formatTable(
          [
            { title: 'INVITATION', value: ({ id }: InvitationBody) => id },
            { title: 'FOR', value: ({ email }) => email ?? 'whoever has the link' },
            { title: 'AS', value: ({ role }) => role },
            { title: 'STATUS', value: ({ status }) => status },
            { title: 'BY', value: ({ invited_by }) => invited_by ?? '-' },
            {
              title: 'ENDS IN',
              value: ({ status, expires_at }) =>
                status === 'pending' ? formatSpan(Date.parse(expires_at) - now) : '-',
              align: 'right',
            },
          ],
          list,
        ),
      );
    });
  invitations
    .command('revoke')
    .description('take an invitation back')
    .argument('<id>')
    .addOption(teamOption())
    .action(async (id: string, options: { team?: string }) => {
      const api = cli.loginApi();
      await api.revokeInvitation(await teamIdOf(cli, api, options.team), id, cli.signal);
      print(id);
    });
}
