import type { AdminTeam } from '../../api/admin.ts';
import type { ApiClient } from '../../api/client.ts';
import type { Cli } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';

/** A team by its id or name, for administrators, who need not be in it. @throws CliError when there is not one */
export async function findAnyTeam(cli: Cli, api: ApiClient, ref: string): Promise<AdminTeam> {
  const found = (await api.listAllTeams(cli.signal)).filter(
    ({ id, name, slug, deleted_at }) => deleted_at === null && [id, name, slug].includes(ref),
  );
  const [team, another] = found;
  if (!team) throw new CliError(`There is no team ${ref}.`, '`wrenn admin teams` lists them.');
  if (another) throw new CliError(`Several teams are named ${ref}.`, 'Use the id, as `wrenn admin teams` shows it.');
  return team;
}
