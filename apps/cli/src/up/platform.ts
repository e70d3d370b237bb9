import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { createApiClient } from '../api/client.ts';
import { CliError } from '../cli-error.ts';
import { type Connection, readKeyFile } from '../connection.ts';
import { baseUrlOf, checkAddressFree, formatListenAddress, type PlatformAddresses } from './addresses.ts';
import { openLogFile } from './log-file.ts';
import { takePlatformLock } from './platform-lock.ts';
import { supervise } from './supervisor.ts';

const REPOSITORY = join(import.meta.dirname, '..', '..', '..', '..');

/** The control plane may have to make its database first, and the agent to take over many VMs. */
const READY_TIMEOUT_MS = 180_000;
const READY_POLL_MS = 150;
/** Time for each program to finish what it has begun, before it is ended by force. */
export const STOP_GRACE_MS = 30_000;

export interface PlatformOptions {
  readonly dir: WrennDir;
  readonly addresses: PlatformAddresses;
  /** A program ended without being told to, and will be started again. */
  readonly onProgramEnded: (message: string) => void;
}

/** wrenn-agent and wrenn-cp, running. */
export interface RunningPlatform {
  readonly connection: Connection;
  /** Ends both programs. Capsules go on without them. */
  stop(): Promise<void>;
}

/**
 * Starts the platform on a WRENN_DIR and resolves when it answers. Where that fails, or the signal aborts, nothing of it
 * is left running.
 *
 * @throws CliError when another one runs there, an address is taken, or a program ends before it is ready.
 */
export async function startPlatform(options: PlatformOptions, signal: AbortSignal): Promise<RunningPlatform> {
  const { dir, addresses } = options;
  requireRoot();
  requireNoHost(dir);
  // Others may pass through, but not list: VMs run under users of their own.
  mkdirSync(dir.root, { recursive: true, mode: 0o711 });
  mkdirSync(dir.logs, { recursive: true, mode: 0o750 });

  await using resources = new AsyncDisposableStack();
  const lock = resources.use(takePlatformLock(dir));
  await checkAddressFree(addresses.api, 'The API', 'WRENN_CP_LISTEN_ADDR');
  await checkAddressFree(addresses.agent, 'The host agent', 'WRENN_HOST_LISTEN_ADDR');

  const env = {
    WRENN_DIR: dir.root,
    WRENN_CP_LISTEN_ADDR: formatListenAddress(addresses.api),
    WRENN_HOST_LISTEN_ADDR: formatListenAddress(addresses.agent),
    CP_HOST_AGENT_ADDR: addresses.agentUrl,
    // The agent beside it belongs to this platform, whatever else the environment is for.
    WRENN_CP_URL: '',
    AGENT_CP_URL: '',
  };
  const early = Promise.withResolvers<never>();
  early.promise.catch(() => undefined);
  let isReady = false;
  const startProgram = (name: string, script: string) => {
    const log = resources.use(openLogFile(join(dir.logs, `${name}.log`)));
    const program = supervise({
      name,
      command: [process.execPath, join(REPOSITORY, script)],
      env,
      log,
      onEnded: ({ description, restartInMs }) => {
        if (isReady) {
          options.onProgramEnded(
            `${name} ${description}; it starts again in ${restartInMs / 1000} s (log: ${log.path})`,
          );
        } else {
          early.reject(
            new CliError(`${name} ${description} before it was ready:\n${log.tail()}`, `The whole log is ${log.path}.`),
          );
        }
      },
    });
    resources.defer(() => program.stop(STOP_GRACE_MS));
  };
  // Stopped in the other order: the control plane first, while its host still answers.
  startProgram('wrenn-agent', 'apps/host-agent/src/main.ts');
  startProgram('wrenn-cp', 'apps/control-plane/src/main.ts');

  const baseUrl = baseUrlOf(addresses.api);
  await Promise.race([untilReady(baseUrl, dir, signal), early.promise]);
  isReady = true;
  lock.publish(baseUrl);
  const connection = { baseUrl, credential: readKeyFile(dir) };
  const owned = resources.move();
  return { connection, stop: () => owned.disposeAsync() };
}

/** The agent would go by the credentials of the other platform. @throws CliError */
function requireNoHost({ root, hostCredentials }: WrennDir): void {
  if (!existsSync(hostCredentials)) return;
  throw new CliError(
    `This machine is a host of another platform: ${hostCredentials} says which.`,
    `Run \`wrenn host join\` to go on with that, or set WRENN_DIR to another folder than ${root} for a platform of its own.`,
  );
}

/** @throws CliError */
export function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new CliError(
    'The platform needs root: it makes network namespaces, TAP devices and users for its microVMs.',
    'Run it as root, for example with `sudo npx wrenn up`. The other commands work as any user with WRENN_API_KEY.',
  );
}

async function untilReady(baseUrl: string, dir: WrennDir, signal: AbortSignal): Promise<void> {
  const api = createApiClient({ baseUrl, credential: undefined });
  const deadline = performance.now() + READY_TIMEOUT_MS;
  let missing = 'nothing answers yet';
  while (performance.now() < deadline) {
    try {
      const { ready, checks } = await api.ready(signal);
      if (ready) return;
      missing = Object.entries(checks)
        .flatMap(([name, { ok, detail }]) => (ok ? [] : [`${name}: ${detail}`]))
        .join('; ');
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof CliError)) throw error;
    }
    await delay(READY_POLL_MS, undefined, { signal });
  }
  throw new CliError(
    `The platform was not ready after ${READY_TIMEOUT_MS / 1000} s: ${missing}.`,
    `See the logs in ${dir.logs}, and run \`wrenn doctor\`.`,
  );
}
