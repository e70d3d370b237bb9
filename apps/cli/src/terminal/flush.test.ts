import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { capsuleBody } from '../testing/fake-api.ts';

const LAUNCHER = join(import.meta.dirname, '..', '..', 'bin', 'wrenn');
/** Their JSON is many times what a pipe holds. */
const CAPSULES = Array.from({ length: 1000 }, () => capsuleBody());

const server = createServer((_, response) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(CAPSULES));
});
beforeEach(() => once(server.listen(0, '127.0.0.1'), 'listening'));
afterEach(() => server.close().closeAllConnections());

function list() {
  const { port } = server.address() as AddressInfo;
  const env = { PATH: process.env.PATH, WRENN_BASE_URL: `http://127.0.0.1:${port}`, WRENN_API_KEY: 'wrn_test' };
  return spawn(LAUNCHER, ['ls', '--json'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
}

it('prints all of it into a pipe, however slowly it is read', async () => {
  const child = list();
  // Once the pipe is full.
  await once(child.stdout, 'readable');
  const ended = once(child, 'close');
  expect(JSON.parse(await text(child.stdout))).toHaveLength(CAPSULES.length);
  expect(await ended).toEqual([0, null]);
});

it('ends when it is interrupted while nobody reads', async () => {
  const child = list();
  const ended = once(child, 'exit');
  await once(child.stdout, 'readable');
  child.kill('SIGINT');
  await ended;
});
