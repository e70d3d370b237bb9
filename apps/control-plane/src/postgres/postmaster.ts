import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { DATABASE_USER } from './cluster.ts';

/** What `postmaster.pid` says; its lines are fixed by PostgreSQL's src/include/utils/pidfile.h. */
export interface Postmaster {
  readonly pid: number;
  readonly socketDir: string;
  readonly port: number;
  readonly ready: boolean;
}

/** The server that works on this data directory, or undefined. A file left by a server that is gone does not count. */
export async function findPostmaster(dataDir: string): Promise<Postmaster | undefined> {
  const lines = await readFile(join(dataDir, 'postmaster.pid'), 'utf8').then(
    (text) => text.split('\n'),
    () => undefined,
  );
  const pid = Number(lines?.[0]);
  if (!lines || !Number.isInteger(pid) || pid <= 0) return undefined;
  if (!(await worksIn(pid, dataDir))) return undefined;
  return {
    pid,
    port: Number(lines[3]),
    socketDir: lines[4] ?? '',
    ready: lines[7]?.trim() === 'ready',
  };
}

/** Every server process whose working directory is the data directory: PostgreSQL's processes stay in it. */
export async function findServerProcesses(dataDir: string): Promise<number[]> {
  const pids = (await readdir('/proc')).map(Number).filter(Number.isInteger);
  const found = await Promise.all(pids.map(async (pid) => ((await worksIn(pid, dataDir)) ? [pid] : [])));
  return found.flat();
}

async function worksIn(pid: number, dataDir: string): Promise<boolean> {
  const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  return cwd === dataDir;
}

/** Connections of clients, told by the titles of the processes that serve them: "postgres: {user} {database} …". */
export async function countClients(dataDir: string): Promise<number> {
  const pids = await findServerProcesses(dataDir);
  const titles = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return titles.filter((title) => title.startsWith(`postgres: ${DATABASE_USER} `)).length;
}
