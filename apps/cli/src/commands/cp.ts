import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note } from '../cli.ts';
import { download } from '../copy/download.ts';
import { parseLocation, planCopy } from '../copy/location.ts';
import { upload } from '../copy/upload.ts';
import { formatBytes, formatDuration } from '../terminal/format.ts';

export function addCopyCommand(program: Command, cli: Cli): void {
  program
    .command('cp')
    .description('copy a file or folder between this machine and a capsule')
    .argument('<from>', '`path`, `id:path`, or `-` for standard input')
    .argument('<to>', '`path`, `id:path`, or `-` for standard output')
    .option('-u, --user <name>', "user in the capsule (default: the template's)")
    .option('-f, --force', 'replace a folder that is there')
    .addHelpText(
      'after',
      "\nA relative path in a capsule starts at the user's home directory.\n\n" +
        'Example:\n  wrenn cp notes.txt cl-1a2b:/tmp/\n  wrenn cp cl-1a2b:results ./results\n  wrenn cp cl-1a2b:/etc/os-release -',
    )
    .action(async (from: string, to: string, options: { user?: string; force?: boolean }) => {
      const copy = planCopy(parseLocation(from), parseLocation(to));
      const api = cli.api();
      const side = copy.direction === 'upload' ? copy.to : copy.from;
      const capsuleId = await resolveCapsuleId(api, side.capsule, cli.signal);
      const guest = { api, capsuleId, user: options.user, signal: cli.signal };
      const started = performance.now();
      const bytes =
        copy.direction === 'upload'
          ? await upload(guest, copy.from, copy.to.path)
          : await download(guest, copy.from.path, copy.to, options.force === true);
      if (process.stderr.isTTY) note(`${formatBytes(bytes)} in ${formatDuration(performance.now() - started)}`);
    });
}
