import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note } from '../cli.ts';
import { wholeNumber } from './options.ts';

export function addLogsCommand(program: Command, cli: Cli): void {
  program
    .command('logs')
    .description("print the end of a capsule's console: its kernel and its first programs")
    .argument('<id>', 'the capsule')
    .option('--bytes <n>', 'at most this many bytes from the end', wholeNumber(1), 65_536)
    .addHelpText('after', '\nExample:\n  wrenn logs cl-1a2b')
    .action(async (ref: string, options: { bytes: number }) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      const console = await api.readConsole(id, options.bytes, cli.signal);
      if (console.length === 0) return note('The console is empty.');
      process.stdout.write(process.stdout.isTTY ? forTerminal(console) : console);
    });
}

/** The text of a guest's console without what would drive the terminal of the reader. */
export function forTerminal(bytes: Uint8Array): string {
  return (
    new TextDecoder()
      .decode(bytes)
      .replaceAll('\r\n', '\n')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this removes
      .replaceAll(/\u001b\[[0-9;?]*[ -/]*[@-~]|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '')
  );
}
