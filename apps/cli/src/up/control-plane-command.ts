import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { Cli } from '../cli.ts';
import { CliError } from '../cli-error.ts';

const CONTROL_PLANE = join(import.meta.dirname, '..', '..', '..', '..', 'apps/control-plane/src/main.ts');

/** Runs a command of wrenn-cp on the machine of the platform, whose database it opens by itself. */
export async function runControlPlane(cli: Cli, dir: WrennDir, args: readonly string[]): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new CliError(
      'This reads the database of the platform, which only root may.',
      'Run it as root on its machine.',
    );
  }
  const env = { ...process.env, WRENN_DIR: dir.root };
  const child = spawn(process.execPath, [CONTROL_PLANE, ...args], { env, stdio: 'inherit', signal: cli.signal });
  const [status] = await once(child, 'exit');
  cli.exitCode = typeof status === 'number' ? status : 1;
}
