import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note } from '../cli.ts';
import { attachTerminal, requireTerminal } from '../terminal/attach.ts';
import { addNewCapsuleOptions, type NewCapsuleOptions, withTemporaryCapsule } from './new-capsule.ts';

/** A login shell: bash where the capsule has it. */
const LOGIN_SHELL = {
  cmd: '/bin/sh',
  args: ['-c', 'if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi'],
};

interface ShellOptions extends NewCapsuleOptions {
  user?: string;
  workdir?: string;
  keep?: boolean;
}

export function addShellCommand(program: Command, cli: Cli): void {
  const command = program
    .command('shell')
    .description('open a terminal in a capsule; without an id, in a new one that is destroyed after')
    .argument('[id]', 'the capsule')
    .option('-u, --user <name>', "user in the capsule (default: the template's)")
    .option('-w, --workdir <path>', "working directory (default: the template's)")
    .option('--keep', 'keep the new capsule')
    .addHelpText(
      'after',
      '\nThe shell ends with `exit` or Ctrl-D. Enter, then ~. leaves a capsule that hangs.\n\nExample:\n  wrenn shell cl-1a2b\n  wrenn shell --memory 2G',
    );
  addNewCapsuleOptions(command).action(async (ref: string | undefined, options: ShellOptions) => {
    requireTerminal();
    const api = cli.api();
    const { user, workdir: cwd } = options;
    const attach = (id: string) => attachTerminal(cli, api, id, { ...LOGIN_SHELL, envs: {}, cwd, user });
    if (ref !== undefined) {
      cli.exitCode = await attach(await resolveCapsuleId(api, ref, cli.signal));
      return;
    }
    cli.exitCode = await withTemporaryCapsule(cli, api, options, ({ id }) => {
      note(`${id}${options.keep ? '' : ', destroyed when the shell ends'}`);
      return attach(id);
    });
  });
}
