import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type EmbeddedServer, startEmbeddedServer } from './embedded-server.ts';
import { acquireMachineLock } from './machine-lock.ts';
import { findPostmaster } from './postmaster.ts';

const log = pino({ level: 'silent' });
let base: string;
let dir: string;
let data: string;
const servers: EmbeddedServer[] = [];

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'wrenn-pg-'));
  await chmod(base, 0o711);
});
afterAll(() => rm(base, { recursive: true, force: true }));
beforeEach(() => {
  // One data directory for all tests: each leaves it as another control plane would find it.
  dir = join(base, 'wrenn');
  data = join(dir, 'postgres', 'data');
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function start(where = dir): Promise<EmbeddedServer> {
  const server = await startEmbeddedServer({ dir: where, log, durable: false });
  servers.push(server);
  return server;
}

async function query(server: EmbeddedServer, sql: string): Promise<unknown[]> {
  const client = new Client(server.address);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

describe('the embedded PostgreSQL', () => {
  it('keeps its data over a stop, is closed to others and listens on no port', async () => {
    const first = await start();
    await query(first, 'CREATE TABLE kept AS SELECT 7 AS value');
    expect(await query(first, 'SHOW listen_addresses')).toEqual([{ listen_addresses: '' }]);
    expect((await stat(first.address.host)).mode & 0o777).toBe(0o700);
    expect((await stat(data)).mode & 0o777).toBe(0o700);
    const { pid } = (await findPostmaster(data)) ?? { pid: 0 };
    if (process.getuid?.() === 0) expect((await stat(`/proc/${pid}`)).uid).not.toBe(0);
    await first.stop();
    expect(await findPostmaster(data)).toBeUndefined();
    expect(await query(await start(), 'SELECT value FROM kept')).toEqual([{ value: 7 }]);
  });

  it('survives a control plane that is killed, and is taken over by the next', async () => {
    const script = `
      const { startEmbeddedServer } = await import(${JSON.stringify(join(import.meta.dirname, 'embedded-server.ts'))});
      const { pino } = await import('pino');
      await startEmbeddedServer({ dir: ${JSON.stringify(dir)}, log: pino({ level: 'silent' }), durable: false });
      process.kill(process.pid, 'SIGKILL');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      cwd: import.meta.dirname,
      stdio: 'inherit',
    });
    expect(await once(child, 'exit')).toEqual([null, 'SIGKILL']);
    const before = await findPostmaster(data);
    expect(before?.ready).toBe(true);
    const server = await start();
    expect((await findPostmaster(data))?.pid).toBe(before?.pid);
    expect(await query(server, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('starts again after it was killed, also when its pid belongs to somebody else now', async () => {
    const server = await start();
    const { pid } = (await findPostmaster(data)) ?? { pid: 0 };
    const file = await readFile(join(data, 'postmaster.pid'), 'utf8');
    process.kill(pid, 'SIGKILL');
    await until('it is gone', async () => (await findPostmaster(data)) === undefined);
    await server.ensureRunning();
    expect(await query(server, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await server.stop();
    await writeFile(join(data, 'postmaster.pid'), file.replace(String(pid), String(process.pid)));
    expect(await query(await start(), 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('is shared by two that start at once, and goes with the last', async () => {
    const [first, second] = await Promise.all([start(), start()]);
    const client = new Client(second.address);
    await client.connect();
    await first.stop();
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    // Served for a moment after it was closed.
    await client.end();
    await second.stop();
    expect(await findPostmaster(data)).toBeUndefined();
  });

  it('refuses data of another major version', async () => {
    const version = join(data, 'PG_VERSION');
    const found = await readFile(version, 'utf8');
    await writeFile(version, '9\n');
    await expect(start()).rejects.toThrow(/was made by PostgreSQL 9/);
    await writeFile(version, found);
  });

  it('works below a path that is too long for a socket', async () => {
    const long = join(base, 'x'.repeat(60), 'y'.repeat(60));
    const server = await start(long);
    expect(await query(server, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await server.stop();
    await rm(server.address.host, { recursive: true, force: true });
  });
});

describe('acquireMachineLock', () => {
  it('lets one in at a time, and the next as soon as it is free', async () => {
    const name = `wrenn-test-${process.pid}`;
    let inside = 0;
    let most = 0;
    const enter = async () => {
      await using _lock = await acquireMachineLock(name, 60_000);
      inside += 1;
      most = Math.max(most, inside);
      await new Promise(setImmediate);
      inside -= 1;
    };
    await Promise.all(Array.from({ length: 10 }, enter));
    expect(most).toBe(1);
  });

  it('gives up in time', async () => {
    const name = `wrenn-test-held-${process.pid}`;
    await using _lock = await acquireMachineLock(name, 1000);
    await expect(acquireMachineLock(name, 50)).rejects.toThrow(/held the lock/);
  });
});
