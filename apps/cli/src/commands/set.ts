import { TIMEOUT_ACTIONS, type UpdateCapsuleRequest } from '@wrenn/protocol/rest/capsule';
import { type Command, Option } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note, print, printJson } from '../cli.ts';
import { CliError, EXIT } from '../cli-error.ts';
import { describeLifetime } from './lifetime.ts';
import { parseSecondsOrNone, parseSwitch } from './options.ts';

interface SetOptions {
  timeout?: number | 'none';
  onTimeout?: (typeof TIMEOUT_ACTIONS)[number];
  deadline?: number | 'none';
  autoResume?: boolean;
  json?: boolean;
}

export function addSetCommand(program: Command, cli: Cli): void {
  program
    .command('set')
    .description('change when a capsule goes to sleep, and what then')
    .argument('<id>', 'the capsule, in any state')
    .option(
      '--timeout <time>',
      'go to sleep after this time without activity, as 90s, 15m or 2h, or none',
      parseSecondsOrNone,
    )
    .addOption(new Option('--on-timeout <action>', 'what then happens').choices(TIMEOUT_ACTIONS))
    .option('--deadline <time>', 'the same this time from now, whatever it does, or none', parseSecondsOrNone)
    .option('--auto-resume [on]', 'whether it resumes by itself when it is used', parseSwitch)
    .option('--json', 'print all about it as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  wrenn set cl-1a2b --timeout 10m --on-timeout pause --auto-resume\n  wrenn set cl-1a2b --deadline none --auto-resume=false',
    )
    .action(async (ref: string, options: SetOptions) => {
      const changes = toChanges(options);
      if (Object.keys(changes).length === 0) {
        throw new CliError('Say what to change.', 'For example: --timeout 10m', { exitCode: EXIT.usage });
      }
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      const capsule = await api.updateCapsule(id, changes, cli.signal);
      if (options.json) return printJson(capsule);
      print(id);
      for (const [title, text] of describeLifetime(capsule, Date.now())) note(`${title.toLowerCase()}: ${text}`);
    });
}

function toChanges({ timeout, onTimeout, deadline, autoResume }: SetOptions): UpdateCapsuleRequest {
  return {
    ...(timeout === undefined ? {} : { timeout_sec: timeout === 'none' ? 0 : timeout }),
    ...(onTimeout === undefined ? {} : { on_timeout: onTimeout }),
    ...(deadline === undefined ? {} : { deadline_sec: deadline === 'none' ? null : deadline }),
    ...(autoResume === undefined ? {} : { auto_resume: autoResume }),
  };
}
