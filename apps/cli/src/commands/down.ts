import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { createApiClient } from '../api/client.ts';
import { type Cli, note, print } from '../cli.ts';
import { CliError, systemCodeOf } from '../cli-error.ts';
import { readKeyFile, readWrennDir } from '../connection.ts';
import { startProgress } from '../terminal/progress.ts';
import { readPlatformState } from '../up/platform-state.ts';
import { EXISTING } from './ls.ts';

const STOP_TIMEOUT_MS = 90_000;

export function addDownCommand(program: Command, cli: Cli): void {
  program
    .command('down')
    .description('stop the `wrenn up` of this machine')
    .option('--destroy', 'destroy all capsules first; without it they keep running')
    .addHelpText('after', '\nExample:\n  wrenn down --destroy')
    .action(async (options: { destroy?: boolean }) => {
      const dir = readWrennDir();
      const state = readPlatformState(dir);
      if (state === undefined) {
        if (options.destroy) {
          throw new CliError(
            `No \`wrenn up\` runs on ${dir.root}.`,
            'Start it, then give `wrenn down --destroy` again.',
          );
        }
        return note(`No \`wrenn up\` runs on ${dir.root}.`);
      }
      if (options.destroy) {
        using progress = startProgress('destroying capsules');
        const api = createApiClient({ baseUrl: state.baseUrl, credential: readKeyFile(dir) });
        const capsules = await api.listCapsules(cli.signal, EXISTING);
        progress.update(String(capsules.length));
        await Promise.all(capsules.map(({ id }) => api.destroyCapsule(id, cli.signal)));
      }
      using _ = startProgress('stopping the platform');
      askToStop(state.pid);
      const deadline = performance.now() + STOP_TIMEOUT_MS;
      while (readPlatformState(dir)?.pid === state.pid) {
        if (performance.now() > deadline) {
          throw new CliError(
            `Process ${state.pid} has not stopped after ${STOP_TIMEOUT_MS / 1000} s.`,
            `See ${dir.logs}.`,
          );
        }
        await delay(100, undefined, { signal: cli.signal });
      }
      print('stopped');
    });
}

function askToStop(pid: number): void {
  try {
    process.kill(pid, 'SIGTERM');
  } catch (error) {
    if (systemCodeOf(error) !== 'EPERM') throw error;
    throw new CliError(`You may not stop process ${pid}.`, 'Run this as root.');
  }
}
