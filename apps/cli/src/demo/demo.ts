import { randomBytes } from 'node:crypto';
import { type ApiClient, createApiClient } from '../api/client.ts';
import { execStreaming } from '../api/exec-stream.ts';
import { print } from '../cli.ts';
import { CliError } from '../cli-error.ts';
import { createWithProgress } from '../commands/new-capsule.ts';
import { readKeyFile, readWrennDir } from '../connection.ts';
import { formatDuration } from '../terminal/format.ts';
import { startProgress } from '../terminal/progress.ts';
import { checkAddressFree, freeAddresses, type PlatformAddresses, readAddresses } from '../up/addresses.ts';
import { ensureImagesWithProgress } from '../up/images.ts';
import { startPlatform } from '../up/platform.ts';
import { readPlatformState } from '../up/platform-state.ts';
import { run, say } from './guest.ts';
import { LineWriter } from './line-writer.ts';
import { PROGRAMS, STREAM } from './programs.ts';
import { showSleep } from './sleep.ts';
import { type Stopwatch, startStopwatch } from './stopwatch.ts';

const CLEAN_UP_TIMEOUT_MS = 120_000;

/**
 * Shows the platform from nothing to code that runs in a microVM, sleeps and is copied, with the time of each step. Whatever it started is
 * stopped and removed when it returns, also when it fails; a platform that runs already is used and left running.
 *
 * @throws CliError when something does not work as it should.
 */
export async function runDemo(signal: AbortSignal): Promise<void> {
  const stopwatch = startStopwatch((title) => print(`\n▸ ${title}`));
  try {
    await runSteps(stopwatch, signal);
  } finally {
    print(`\n${stopwatch.table()}\n`);
  }
}

async function runSteps(stopwatch: Stopwatch, signal: AbortSignal): Promise<void> {
  await using cleanUp = new AsyncDisposableStack();
  const api = await providePlatform(stopwatch, cleanUp, signal);
  // Not cut off by Ctrl-C: the platform would finish it all the same, and nobody would know the id to remove.
  const capsule = await stopwatch.step('create a capsule', () =>
    createWithProgress(api, { metadata: { purpose: 'demo' } }, new AbortController().signal),
  );
  const made = [capsule.id];
  cleanUp.defer(() =>
    stopwatch.step('destroy the capsules', async () => {
      await Promise.all(made.map((id) => api.destroyCapsule(id, AbortSignal.timeout(CLEAN_UP_TIMEOUT_MS))));
    }),
  );
  signal.throwIfAborted();
  say(`${capsule.id}: ${capsule.vcpus} vCPU, ${capsule.memory_mb} MiB`);

  for (const { title, cmd, args, expected } of PROGRAMS) {
    await stopwatch.step(title, async () => {
      const { text } = await run(api, capsule.id, cmd, args, signal);
      if (!expected.test(text)) throw new CliError(`The output of "${cmd}" is not what it should be: ${text}`);
    });
  }
  await stopwatch.step('write a file and read it back', () => copyThere(api, capsule.id, signal));
  await stopwatch.step('stream output as it is written', () => stream(api, capsule.id, signal));
  await showSleep({ api, dir: readWrennDir(), capsule, stopwatch, onMade: (id) => made.push(id), signal });
}

/** The platform that runs on WRENN_DIR, or one of our own for as long as `cleanUp` lives. */
async function providePlatform(
  stopwatch: Stopwatch,
  cleanUp: AsyncDisposableStack,
  signal: AbortSignal,
): Promise<ApiClient> {
  const dir = readWrennDir();
  const running = readPlatformState(dir);
  if (running !== undefined) {
    return stopwatch.step('use the platform that runs already', async () => {
      say(`at ${running.baseUrl}; it is left running`);
      return createApiClient({ baseUrl: running.baseUrl, credential: readKeyFile(dir) });
    });
  }
  await stopwatch.step('provide the guest kernel and image', () => ensureImagesWithProgress(dir, say, signal));
  return stopwatch.step('start the platform', async () => {
    const addresses = await chooseAddresses();
    using _ = startProgress('starting the host agent and the control plane');
    const platform = await startPlatform({ dir, addresses, onProgramEnded: say }, signal);
    cleanUp.defer(() => stopwatch.step('stop the platform', () => platform.stop()));
    say(`API at ${platform.connection.baseUrl}, data in ${dir.root}`);
    return createApiClient(platform.connection);
  });
}

/** The addresses that the environment gives; where it gives none and the usual ones are taken, others. */
async function chooseAddresses(): Promise<PlatformAddresses> {
  const addresses = readAddresses();
  try {
    await checkAddressFree(addresses.api, 'The API', 'WRENN_CP_LISTEN_ADDR');
    await checkAddressFree(addresses.agent, 'The host agent', 'WRENN_HOST_LISTEN_ADDR');
    return addresses;
  } catch (error) {
    if (process.env.WRENN_CP_LISTEN_ADDR || process.env.WRENN_HOST_LISTEN_ADDR) throw error;
    return freeAddresses();
  }
}

async function copyThere(api: ApiClient, id: string, signal: AbortSignal): Promise<void> {
  const path = '/tmp/wrenn-demo.bin';
  const content = randomBytes(256 * 1024);
  await api.writeFile(id, path, new Blob([content]).stream(), signal);
  const { body } = await api.readFile(id, path, signal);
  const back = Buffer.from(await new Response(body).arrayBuffer());
  if (!back.equals(content)) throw new CliError(`${path} came back different: ${back.length} bytes.`);
  say(`${path}: ${content.length} bytes there and back, equal`);
}

async function stream(api: ApiClient, id: string, signal: AbortSignal): Promise<void> {
  const { cmd, args, lines, atLeastMs } = STREAM;
  const stdout = new LineWriter(({ text, atMs }) => say(`${formatDuration(atMs).padStart(7)}  ${text}`));
  await execStreaming(api, id, { cmd, args, timeoutSec: 120, stdout, stderr: process.stderr }, signal);
  const spreadMs = (stdout.lines.at(-1)?.atMs ?? 0) - (stdout.lines[0]?.atMs ?? 0);
  if (stdout.lines.length !== lines) throw new CliError(`${stdout.lines.length} lines came instead of ${lines}.`);
  if (spreadMs < atLeastMs)
    throw new CliError(`The lines came within ${formatDuration(spreadMs)}: not as they were written.`);
}
