import type { Command } from 'commander';
import { followProcess } from '../api/exec-stream.ts';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note } from '../cli.ts';
import { attachTerminal } from '../terminal/attach.ts';

interface AttachOptions {
  tty?: boolean;
  stdin?: boolean;
}

/** Tags of terminals, as the API and `wrenn shell` make them. */
const TERMINAL_TAG = /^pty-/;

export function addAttachCommand(program: Command, cli: Cli): void {
  program
    .command('attach')
    .description('go back to a command or terminal that runs in a capsule; `wrenn ps` lists them')
    .argument('<id>', 'the capsule')
    .argument('<process>', 'its pid or tag')
    .option('-t, --tty', 'it is a terminal; implied by a tag that begins with pty-')
    .option('-i, --stdin', 'give it the input of wrenn')
    .addHelpText(
      'after',
      '\nShows its output from the oldest byte that is kept, and ends with its exit code. Ctrl-C leaves it running; a\nterminal takes every key, and Enter, then ~. leaves it.\n\nExample:\n  wrenn attach cl-1a2b exec-5d0c3f19a2b4e678',
    )
    .action(async (ref: string, selector: string, options: AttachOptions) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      if (options.tty ?? TERMINAL_TAG.test(selector)) {
        cli.exitCode = await attachTerminal(cli, api, id, { tag: selector });
        return;
      }
      const { stdin, stdout, stderr } = process;
      const onNotice = (message: string) => note(`wrenn: ${message}`);
      const streams = { stdin: options.stdin ? stdin : undefined, stdout, stderr, onNotice };
      cli.exitCode = (await followProcess(api, id, selector, streams, cli.signal)).exitCode;
    });
}
