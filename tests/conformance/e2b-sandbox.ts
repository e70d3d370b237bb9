import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEnvd } from '@wrenn/envd/start-envd';
import { Sandbox } from 'e2b';

/** Where E2B's client looks for envd in debug mode. */
const DEBUG_PORT = 49983;

export interface E2bSandbox extends AsyncDisposable {
  readonly sandbox: Sandbox;
  /** An empty directory that goes with it. */
  readonly directory: string;
}

/**
 * E2B's own client in its debug mode, which talks to a bare envd and to no control plane, and an envd for it. Where the
 * debug port is taken, by an envd that a developer runs, the client is told of another by its own setting.
 */
export async function startE2bSandbox(): Promise<E2bSandbox> {
  const port = (await isFree(DEBUG_PORT)) ? DEBUG_PORT : 0;
  const envd = await startEnvd({ host: '127.0.0.1', port, guest: false });
  process.env.E2B_DEBUG = 'true';
  if (port === 0) process.env.E2B_SANDBOX_URL = `http://localhost:${envd.port}`;
  const directory = await mkdtemp(join(tmpdir(), 'wrenn-conformance-'));
  return {
    sandbox: await Sandbox.create(),
    directory,
    [Symbol.asyncDispose]: async () => {
      delete process.env.E2B_DEBUG;
      delete process.env.E2B_SANDBOX_URL;
      await envd.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}
