import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '@wrenn/config/free-port';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { openDatabase } from '@wrenn/control-plane/database/database';
import { Passwords } from '@wrenn/control-plane/identity/passwords';
import { newId } from '@wrenn/protocol/ids';
import { until } from '@wrenn/testing/until';
import { pino } from 'pino';
import { Program } from '../tests/e2e/support/platform.ts';

export const CAPSULES = 100_000;
const EMAIL = 'bench@example.com';

/** A control plane of its own process, on the embedded PostgreSQL, without a host. */
export interface IdentityPlatform extends AsyncDisposable {
  readonly port: number;
  readonly apiKey: string;
  /** A person of the key's team. */
  readonly email: string;
  readonly password: string;
}

/** Starts a control plane whose one team has a person and many capsules, most of which have ended. */
export async function startIdentityPlatform(): Promise<IdentityPlatform> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-bench-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  await chmod(dir, 0o711);
  const paths = wrennDir(dir);
  await mkdir(paths.logs);
  const [port, agentPort] = await freePorts(2);
  const env = {
    WRENN_DIR: dir,
    WRENN_CP_LISTEN_ADDR: `127.0.0.1:${port}`,
    // Nobody listens there: what is measured needs no host.
    CP_HOST_AGENT_ADDR: `https://127.0.0.1:${agentPort}`,
    WRENN_RATE_LIMIT_FACTOR: '0',
    LOG_LEVEL: 'info',
  };
  const main = join(import.meta.dirname, '..', 'apps', 'control-plane', 'src', 'main.ts');
  const program = new Program([process.execPath, main], env, join(paths.logs, 'cp.log'));
  program.start();
  stack.defer(() => program.end('SIGTERM'));
  await until('the control plane answers', 120_000, async () => {
    if (program.hasEnded) throw new Error(`the control plane ended: ${await readFile(program.logFile, 'utf8')}`);
    return (await fetch(`http://127.0.0.1:${port}/health`).catch(() => undefined))?.ok === true;
  });
  const password = randomBytes(12).toString('hex');
  await fill(dir, await new Passwords().hash(password));
  const running = stack.move();
  return {
    ...{ port, password, email: EMAIL },
    apiKey: (await readFile(paths.apiKeyFile, 'utf8')).trim(),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function fill(dir: string, passwordHash: string): Promise<void> {
  // The one that the control plane runs.
  await using database = await openDatabase({ url: undefined, dir, log: pino({ level: 'warn' }) });
  const client = await database.connectClient();
  try {
    const userId = newId('usr');
    await client.query(
      `INSERT INTO users (id, email, name, status, password_hash) VALUES ($1, $2, 'Bench', 'active', $3)`,
      [userId, EMAIL, passwordHash],
    );
    await client.query(`INSERT INTO team_members (team_id, user_id, role) SELECT team_id, $1, 'owner' FROM api_keys`, [
      userId,
    ]);
    await client.query(
      `INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb, timeout_sec, envs,
         labels, versions, access_token, created_at)
       SELECT 'cl-' || substr(md5(i::text), 1, 25), api_keys.team_id, hosts.id, (ARRAY['minimal', 'python', 'node'])[1 + i % 3],
         CASE WHEN i % 10 = 0 THEN 'paused' WHEN i % 10 = 1 THEN 'error' ELSE 'stopped' END,
         1, 512, 0, 0, '{"LANG": "C.UTF-8"}',
         jsonb_build_object('env', (ARRAY['prod', 'dev'])[1 + (i / 7) % 2], 'job', (i / 100)::text),
         '{"kernel_version": "6.1.0", "envd_version": "0.1.0"}', 'none', now() - i * interval '1 minute'
       FROM api_keys, hosts, generate_series(1, $1) AS i`,
      [CAPSULES],
    );
    await client.query('VACUUM ANALYZE');
  } finally {
    await client.end();
  }
}
