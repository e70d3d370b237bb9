import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { until } from '@wrenn/testing/until';
import type { TestPlatform } from './test-platform.ts';

/** On a machine that is busy with other tests. */
const START_TIMEOUT_MS = 60_000;

/** Another control plane of a platform, as a process that can be killed. */
export interface ChildControlPlane extends AsyncDisposable {
  readonly baseUrl: string;
  /** As a crash does it. Resolves when it is gone. */
  kill(): Promise<void>;
}

/** @param settings more variables of its environment. Resolves when it is ready. */
export async function startChildControlPlane(
  platform: TestPlatform,
  settings: Record<string, string> = {},
): Promise<ChildControlPlane> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../main.ts')], {
    env: {
      PATH: process.env.PATH,
      ...{ WRENN_DIR: dirname(platform.apiKeyFile), DATABASE_URL: platform.databaseUrl, LOG_LEVEL: 'info' },
      ...{ WRENN_CP_LISTEN_ADDR: '127.0.0.1:0', CP_HOST_AGENT_ADDR: platform.host.address, ...settings },
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  let port = 0;
  createInterface(child.stdout).on('line', (line) => {
    const { msg, port: found } = JSON.parse(line) as { msg?: string; port?: number };
    if (msg === 'wrenn-cp serves' && found) port = found;
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await ended;
  };
  try {
    await until('it serves', START_TIMEOUT_MS, () => port > 0);
    const baseUrl = `http://127.0.0.1:${port}`;
    await until('its host is online', START_TIMEOUT_MS, async () => (await fetch(`${baseUrl}/ready`)).ok);
    return { baseUrl, kill, [Symbol.asyncDispose]: kill };
  } catch (error) {
    await kill();
    throw error;
  }
}
