import type { HostBody } from '@wrenn/protocol/rest/hosts';
import { type Command, Option } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { startProgress } from '../../terminal/progress.ts';
import { formatFacts, formatTable } from '../../terminal/table.ts';
import { teamIdOf } from '../account/team.ts';
import { describeHost, hostColumns } from './host-description.ts';

interface CreateOptions {
  readonly type: 'regular' | 'byoc';
  readonly provider?: string;
  readonly zone?: string;
  readonly tag?: string[];
  readonly team?: string;
  readonly json?: boolean;
}

export function addHostCommands(program: Command, cli: Cli): void {
  const host = program
    .command('host')
    .description('the machines that capsules run on')
    .addHelpText(
      'after',
      '\nExample:\n  wrenn host create            (here: prints a token)\n  wrenn host join <token>      (as root, on the new machine)',
    );

  host
    .command('create')
    .description('announce a machine; prints a token with which it joins within an hour')
    .addOption(
      new Option('--type <type>', "regular: the platform's; byoc: your team's own")
        .choices(['regular', 'byoc'])
        .default('regular'),
    )
    .option('--provider <name>', 'who runs the machine, for people')
    .option('--zone <name>', 'where it is, for people')
    .option('--tag <tag...>', 'capsules can ask for hosts with a tag')
    .option('-t, --team <team>', 'whose it is, for byoc; default: the team that you are logged in for')
    .option('--json', 'print JSON')
    .action(async ({ type, provider, zone, tag, team, json }: CreateOptions) => {
      const api = cli.loginApi();
      const made = await api.createHost(
        {
          type,
          tags: tag ?? [],
          ...(team ? { team_id: await teamIdOf(cli, api, team) } : {}),
          ...(provider ? { provider } : {}),
          ...(zone ? { availability_zone: zone } : {}),
        },
        cli.signal,
      );
      if (json) return printJson(made);
      print(made.registration_token);
      tellHowToJoin(cli, made.host.id);
    });

  host
    .command('token')
    .description('another token for a machine whose registration failed, or that lost its credentials')
    .argument('<id>')
    .action(async (ref: string) => {
      const { id } = await findHost(cli, ref);
      print((await cli.loginApi().newHostToken(id, cli.signal)).registration_token);
      tellHowToJoin(cli, id);
    });

  host
    .command('join')
    .description('make this machine a host, and keep it one until Ctrl-C (needs root)')
    .argument('[token]', 'of `wrenn host create`; not needed once it has joined')
    .option(
      '--address <host:port>',
      'where the control plane reaches this machine; default: this machine connects to it',
    )
    .addHelpText(
      'after',
      '\nBuilds the guest kernel and image when they are missing, then runs wrenn-agent. WRENN_BASE_URL is the address of\n' +
        'the API.\n\nExample:\n  WRENN_BASE_URL=https://wrenn.example.com wrenn host join 3f9c…',
    )
    .action(async (token: string | undefined, options: { address?: string }) => {
      // Knows how to build images and more; the other commands start without it.
      const { runJoin } = await import('../../up/run-join.ts');
      await runJoin(cli, { token, address: options.address });
    });

  host
    .command('ls')
    .description('list hosts')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const hosts = await cli.loginApi().listHosts(cli.signal);
      if (options.json) return printJson(hosts);
      if (hosts.length === 0) return note('There are none. `wrenn host create` announces one.');
      print(formatTable(hostColumns(Date.now()), hosts));
      for (const { id, problem } of hosts) if (problem !== null) note(`${id}: ${problem}`);
    });

  host
    .command('inspect')
    .description('show all about a host: what it is, holds and lacks')
    .argument('<id>')
    .option('--json', 'print JSON')
    .action(async (ref: string, options: { json?: boolean }) => {
      const found = await findHost(cli, ref);
      if (options.json) return printJson(found);
      print(formatFacts(describeHost(found, Date.now())));
    });

  addUpkeepCommands(host, cli);
  addTagCommands(host, cli);

  host
    .command('rm')
    .description('remove a host for good')
    .argument('<id>')
    .option('--force', 'with its capsules, those that sleep too')
    .option('--preview', 'only show what would be lost')
    .option('--json', 'print the preview as JSON')
    .action(async (ref: string, options: { force?: boolean; preview?: boolean; json?: boolean }) => {
      const { id } = await findHost(cli, ref);
      if (options.preview) {
        const preview = await cli.loginApi().previewHostDeletion(id, cli.signal);
        if (options.json) return printJson(preview);
        const { sandbox_ids, running, sleeping, snapshots } = preview;
        note(
          `${running} capsules run on it and ${sleeping} sleep; snapshots only there: ${snapshots.join(', ') || 'none'}`,
        );
        for (const capsule of sandbox_ids) print(capsule);
        return;
      }
      using _ = startProgress('removing the host');
      await cli.loginApi().deleteHost(id, options.force ?? false, cli.signal);
      print(id);
    });
}

function addUpkeepCommands(host: Command, cli: Cli): void {
  for (const [name, cordoned, description] of [
    ['cordon', true, 'give a host no new capsules'],
    ['uncordon', false, 'give a host new capsules again'],
  ] as const) {
    host
      .command(name)
      .description(description)
      .argument('<id>')
      .action(async (ref: string) => {
        const { id } = await findHost(cli, ref);
        await cli.loginApi().setCordon(id, cordoned, cli.signal);
        print(id);
      });
  }
  host
    .command('drain')
    .description('put all capsules of a host to sleep, for maintenance')
    .argument('<id>')
    .option('--stay', 'let them sleep on the host itself, in place of the object store: they wake only there')
    .action(async (ref: string, options: { stay?: boolean }) => {
      const { id } = await findHost(cli, ref);
      await cli.loginApi().drainHost(id, options.stay ? 'pause' : 'hibernate', cli.signal);
      print(id);
      note('It goes on by itself: `wrenn host ls` shows how many capsules still run.');
    });
  host
    .command('undrain')
    .description('take a host back into service')
    .argument('<id>')
    .action(async (ref: string) => {
      const { id } = await findHost(cli, ref);
      await cli.loginApi().undrainHost(id, cli.signal);
      print(id);
    });
}

function addTagCommands(host: Command, cli: Cli): void {
  host
    .command('tag')
    .description('give a host tags')
    .argument('<id>')
    .argument('<tag...>')
    .action(async (ref: string, tags: string[]) => {
      const { id } = await findHost(cli, ref);
      for (const tag of tags) await cli.loginApi().addHostTag(id, tag, cli.signal);
      print(id);
    });
  host
    .command('untag')
    .description('take tags from a host')
    .argument('<id>')
    .argument('<tag...>')
    .action(async (ref: string, tags: string[]) => {
      const { id } = await findHost(cli, ref);
      for (const tag of tags) await cli.loginApi().removeHostTag(id, tag, cli.signal);
      print(id);
    });
}

/** An id may be the beginning of one, as long as it fits only one host. */
async function findHost(cli: Cli, ref: string): Promise<HostBody> {
  const hosts = await cli.loginApi().listHosts(cli.signal);
  const wanted = ref.startsWith('host-') ? ref : `host-${ref}`;
  const [found, another] = hosts.filter(({ id }) => id.startsWith(wanted));
  if (!found) throw new CliError(`There is no host ${ref}.`, '`wrenn host ls` lists them.');
  if (another) throw new CliError(`Several hosts begin with ${ref}.`, 'Write more of the id.');
  return found;
}

function tellHowToJoin(cli: Cli, id: string): void {
  note(`On the new machine, as root, within an hour (${id}):`);
  note(`  WRENN_BASE_URL=${cli.loginApi().connection.baseUrl} wrenn host join <token>`);
}
