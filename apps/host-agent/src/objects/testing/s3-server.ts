import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { quietPort } from '@wrenn/testing/quiet-port';
import { S3_SERVER_PROGRAM } from './install-s3-server.ts';

const START_TIMEOUT_MS = 20_000;

export interface S3Server extends AsyncDisposable {
  /** For `openObjectStore`, with short timeouts. */
  readonly url: string;
  /** The AWS_* variables of a user who may do everything. */
  readonly env: Readonly<Record<string, string>>;
  /** The folder in which the objects of `url` are files. */
  readonly objects: string;
  /** Kills the server as it is. */
  kill(): Promise<void>;
}

/** A real S3 server in a process of its own, with one bucket. */
export async function startS3Server(): Promise<S3Server> {
  const root = await mkdtemp(join(tmpdir(), 'wrenn-s3-'));
  const objects = join(root, 'hibernated', 'wrenn');
  await mkdir(join(root, 'hibernated'));
  const env = { AWS_ACCESS_KEY_ID: 'tester', AWS_SECRET_ACCESS_KEY: 'secret-of-the-tester' };
  const endpoint = `127.0.0.1:${await quietPort()}`;
  const child = spawn(S3_SERVER_PROGRAM, ['--quiet', '--port', endpoint, '--keep-alive', 'posix', root], {
    env: { ROOT_ACCESS_KEY: env.AWS_ACCESS_KEY_ID, ROOT_SECRET_KEY: env.AWS_SECRET_ACCESS_KEY },
    stdio: 'ignore',
  });
  const exited = once(child, 'exit');
  const kill = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!(await fetch(`http://${endpoint}/`).catch(() => undefined))) {
    if (child.exitCode !== null || Date.now() > deadline) throw new Error('The S3 server does not start');
    await delay(20);
  }
  return {
    url: `s3://hibernated/wrenn?endpoint=http://${endpoint}&request_timeout_ms=5000`,
    env,
    objects,
    kill,
    async [Symbol.asyncDispose]() {
      await kill();
      await rm(root, { recursive: true, force: true });
    },
  };
}
