import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { patientTimeout } from '@wrenn/config/patient-timeout';
import { createApiClient } from '../api/client.ts';
import { type Cli, note, print } from '../cli.ts';
import { EXIT, messageOf } from '../cli-error.ts';
import { readWrennDir } from '../connection.ts';
import { formatDuration } from '../terminal/format.ts';
import { startProgress } from '../terminal/progress.ts';
import { readAddresses } from './addresses.ts';
import { ensureImagesWithProgress } from './images.ts';
import { type RunningPlatform, startPlatform } from './platform.ts';

/** Whoever ends the platform waits for it. */
const COUNT_TIMEOUT_MS = 5000;

/** Runs the platform until the person ends it. */
export async function runUp(cli: Cli): Promise<void> {
  const dir = readWrennDir();
  const platform = await step('platform', async () => {
    await ensureImagesWithProgress(dir, (line) => print(`  ${line}`), cli.signal);
    using _ = startProgress('starting the host agent and the control plane');
    return await startPlatform({ dir, addresses: readAddresses(), onProgramEnded: note }, cli.signal);
  });
  describe(platform, dir.apiKeyFile, dir.logs);
  if (!cli.signal.aborted) await once(cli.signal, 'abort');
  await stop(platform);
  cli.exitCode = EXIT.ok;
}

async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await work();
  print(
    `${styleText('green', '✓', { stream: process.stdout })} ${what} ready (${formatDuration(performance.now() - started)})`,
  );
  return result;
}

function describe({ connection }: RunningPlatform, keyFile: string, logs: string): void {
  const me = commandName();
  print('');
  print(`  API   ${connection.baseUrl}`);
  print(`  Key   ${connection.credential}  (in ${keyFile})`);
  print(`  Docs  ${connection.baseUrl}/docs`);
  print(`  Logs  ${logs}`);
  print('');
  print('Try, in another terminal:');
  print(`  ${me} run -- python3 -c 'print(6*7)'`);
  print(`  ${me} shell`);
  print('');
  print('Ctrl-C stops the platform. Capsules keep running until you remove them.');
}

async function stop(platform: RunningPlatform): Promise<void> {
  const left = await countCapsules(platform);
  print('');
  {
    using _ = startProgress('stopping');
    await platform.stop();
  }
  print('stopped');
  if (left > 0) {
    print(
      `${left === 1 ? '1 capsule keeps' : `${left} capsules keep`} running; the next \`${commandName()} up\` takes over.`,
    );
    print(`To remove them instead: \`${commandName()} down --destroy\` while the platform runs.`);
  }
}

/** Those that run; 0 where nobody answers. */
export async function countCapsules({ connection }: Pick<RunningPlatform, 'connection'>): Promise<number> {
  try {
    using limit = patientTimeout(COUNT_TIMEOUT_MS);
    const capsules = await createApiClient(connection).listCapsules(limit.signal, 'running');
    return capsules.length;
  } catch (error) {
    note(`The capsules could not be counted: ${messageOf(error)}`);
    return 0;
  }
}

/** `wrenn` where the shell finds it, else the way through npm. */
function commandName(): string {
  const folders = (process.env.PATH ?? '').split(':').filter((folder) => !folder.endsWith('node_modules/.bin'));
  return folders.some((folder) => isExecutable(join(folder, 'wrenn'))) ? 'wrenn' : 'npx wrenn';
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
