import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@wrenn/config/free-port';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { LoopbackHost } from '@wrenn/control-plane/testing/loopback-host';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Program } from './support/platform.ts';

const MIB = 1024 * 1024;
const OUTPUT_BYTES = 1024 * MIB;

const resources = new AsyncDisposableStack();
let controlPlane: Program;
let exec: (json: object) => Promise<Response>;
beforeAll(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-'));
  resources.defer(() => rm(dir, { recursive: true, force: true }));
  await chmod(dir, 0o711);
  // An emulated microVM would take many minutes for so much; its host and guest agent are real without it, too.
  const host = resources.use(await LoopbackHost.start(dir));
  const port = await freePort();
  const env = {
    WRENN_DIR: dir,
    WRENN_CP_LISTEN_ADDR: `127.0.0.1:${port}`,
    CP_HOST_AGENT_ADDR: host.address,
    LOG_LEVEL: 'warn',
  };
  const main = join(import.meta.dirname, '..', '..', 'apps', 'control-plane', 'src', 'main.ts');
  controlPlane = new Program([process.execPath, main], env, join(dir, 'cp.log'));
  resources.defer(() => controlPlane.end('SIGTERM'));
  controlPlane.start();
  const base = `http://127.0.0.1:${port}`;
  await until('it is ready', 120_000, async () => (await fetch(`${base}/ready`).catch(() => undefined))?.ok === true);
  const key = (await readFile(wrennDir(dir).apiKeyFile, 'utf8')).trim();
  const post = (path: string, json: object) =>
    fetch(`${base}${path}`, {
      method: 'POST',
      headers: { 'x-api-key': key, 'content-type': 'application/json' },
      body: JSON.stringify(json),
    });
  const { id } = (await (await post('/v1/capsules', {})).json()) as { id: string };
  exec = (json) => post(`/v1/capsules/${id}/exec`, json);
});
afterAll(() => resources.disposeAsync());

async function memoryMb(field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile(`/proc/${controlPlane.pid}/status`, 'utf8');
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

it('prints 1 GB through wrenn-cp, which grows by less than 64 MB', async () => {
  await (await exec({ cmd: 'true' })).text();
  const before = await memoryMb('VmRSS');
  const script = `yes 'a line of thirty-two characters' | head -c ${OUTPUT_BYTES}`;
  const answer = await exec({ cmd: '/bin/sh', args: ['-c', script], timeout_sec: 0 });
  const body = (await answer.json()) as { stdout: string; stdout_truncated_bytes: number };
  expect(body.stdout.length).toBe(16 * MIB);
  expect(body.stdout_truncated_bytes).toBe(OUTPUT_BYTES - 16 * MIB);
  const peak = await memoryMb('VmHWM');
  expect(peak - before, `${before} MiB before, ${peak} MiB at its peak`).toBeLessThan(64);
}, 600_000);
