import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { z } from 'zod';
import { type Cli, note, print } from '../cli.ts';
import { CliError, EXIT } from '../cli-error.ts';
import { readBaseUrl, readWrennDir } from '../connection.ts';
import { startProgress } from '../terminal/progress.ts';
import { formatListenAddress, readAddresses } from './addresses.ts';
import { ensureImagesWithProgress } from './images.ts';
import { openLogFile } from './log-file.ts';
import { requireRoot, STOP_GRACE_MS } from './platform.ts';
import { takePlatformLock } from './platform-lock.ts';
import { supervise } from './supervisor.ts';

const AGENT = join(import.meta.dirname, '..', '..', '..', '..', 'apps/host-agent/src/main.ts');
const JOIN_TIMEOUT_MS = 120_000;
const POLL_MS = 150;

export interface JoinOptions {
  /** Undefined: this machine has joined before. */
  readonly token: string | undefined;
  /** Where the control plane reaches the agent; undefined: the agent connects to it. */
  readonly address: string | undefined;
}

/** Runs the agent of a host of another machine's platform until the person ends it. */
export async function runJoin(cli: Cli, { token, address }: JoinOptions): Promise<void> {
  requireRoot();
  const dir = readWrennDir();
  if (!token && !existsSync(dir.hostCredentials)) {
    throw new CliError('This machine has not joined yet.', 'Give the token that `wrenn host create` printed.');
  }
  const isNew = token !== undefined;
  mkdirSync(dir.root, { recursive: true, mode: 0o711 });
  mkdirSync(dir.logs, { recursive: true, mode: 0o750 });
  await using resources = new AsyncDisposableStack();
  resources.use(takePlatformLock(dir));
  await ensureImagesWithProgress(dir, (line) => print(`  ${line}`), cli.signal);

  const log = resources.use(openLogFile(join(dir.logs, 'wrenn-agent.log')));
  const early = Promise.withResolvers<never>();
  early.promise.catch(() => undefined);
  let isUp = false;
  let isFirst = true;
  const startedAtMs = Date.now();
  const baseUrl = platformOf(dir, isNew);
  const program = supervise({
    name: 'wrenn-agent',
    command: () => {
      // A token works once: what starts again goes by the credentials that it brought.
      const registration = isFirst && token !== undefined ? ['--register', token] : [];
      isFirst = false;
      return [process.execPath, AGENT, ...registration, ...(address === undefined ? [] : ['--address', address])];
    },
    env: {
      WRENN_DIR: dir.root,
      WRENN_CP_URL: baseUrl,
      WRENN_HOST_LISTEN_ADDR: formatListenAddress(readAddresses().agent),
    },
    log,
    onEnded: ({ description, restartInMs }) => {
      if (isUp) note(`wrenn-agent ${description}; it starts again in ${restartInMs / 1000} s (log: ${log.path})`);
      else early.reject(new CliError(`wrenn-agent ${description}:\n${log.tail()}`, `The whole log is ${log.path}.`));
    },
  });
  resources.defer(() => program.stop(STOP_GRACE_MS));
  {
    using _ = startProgress(isNew ? `joining ${baseUrl}` : `going back to ${baseUrl}`);
    await Promise.race([untilServing(log, startedAtMs, cli.signal), early.promise]);
  }
  isUp = true;
  print(`this machine is a host of ${baseUrl}`);
  note(`Log: ${log.path}. Ctrl-C stops the agent; capsules keep running, and the next \`wrenn host join\` takes over.`);
  if (!cli.signal.aborted) await once(cli.signal, 'abort');
  cli.exitCode = EXIT.ok;
}

const savedSchema = z.object({ cp_url: z.string() });

/** Who went back need not say where to; whoever says it nevertheless is heard. */
function platformOf({ hostCredentials }: WrennDir, isNew: boolean): string {
  if (isNew || process.env.WRENN_BASE_URL) return readBaseUrl();
  try {
    return savedSchema.parse(JSON.parse(readFileSync(hostCredentials, 'utf8'))).cp_url;
  } catch (cause) {
    throw new CliError(
      `${hostCredentials} is damaged.`,
      'Make a new token with `wrenn host token` and give it to `wrenn host join`; capsules stay.',
      { cause },
    );
  }
}

async function untilServing(
  log: { tail(): string; readonly path: string },
  sinceMs: number,
  signal: AbortSignal,
): Promise<void> {
  while (Date.now() - sinceMs < JOIN_TIMEOUT_MS) {
    if (/"msg":"agent is ready"/.test(log.tail())) return;
    await delay(POLL_MS, undefined, { signal });
  }
  throw new CliError(`wrenn-agent was not ready after ${JOIN_TIMEOUT_MS / 1000} s.`, `See ${log.path}.`);
}
