import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note, print } from '../cli.ts';
import { CliError, describeFailure, EXIT } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';
import { EXISTING } from './ls.ts';

export function addRmCommand(program: Command, cli: Cli): void {
  program
    .command('rm')
    .description('destroy capsules')
    .argument('[id...]', 'capsules to destroy')
    .option('--all', 'all capsules')
    .addHelpText('after', '\nExample:\n  wrenn rm cl-1a2b cl-9z8y\n  wrenn rm --all')
    .action(async (refs: string[], options: { all?: boolean }) => {
      if (refs.length > 0 === (options.all === true)) {
        throw new CliError('Name the capsules to destroy, or give --all.', '`wrenn ls` lists them.', {
          exitCode: EXIT.usage,
        });
      }
      const api = cli.api();
      const ids = options.all
        ? (await api.listCapsules(cli.signal, EXISTING)).map((capsule) => capsule.id)
        : // Every name is understood before the first capsule is destroyed.
          [...new Set(await Promise.all(refs.map((ref) => resolveCapsuleId(api, ref, cli.signal))))];
      if (ids.length === 0) return note('There are no capsules.');
      using progress = startProgress(ids.length === 1 ? 'destroying the capsule' : `destroying ${ids.length} capsules`);
      const failures: unknown[] = [];
      let done = 0;
      await Promise.all(
        ids.map(async (id) => {
          try {
            await api.destroyCapsule(id, cli.signal);
            print(id);
          } catch (error) {
            failures.push(error);
          }
          done += 1;
          progress.update(`${done} of ${ids.length}`);
        }),
      );
      cli.signal.throwIfAborted();
      for (const failure of failures) note(describeFailure(failure, false).text);
      if (failures.length > 0) cli.exitCode = EXIT.error;
    });
}
