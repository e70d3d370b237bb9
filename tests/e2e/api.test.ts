import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { execResponseSchema } from '@wrenn/protocol/rest/exec';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Platform, startPlatform } from './support/platform.ts';

const MIB = 1024 * 1024;

let platform: Platform;
beforeAll(async () => {
  platform = await startPlatform();
});
afterAll(() => platform?.[Symbol.asyncDispose]());

// Answers are of many shapes, and a test that reads a wrong one fails.
// biome-ignore lint/suspicious/noExplicitAny: see above
type Json = any;

const call = (method: string, path: string, body?: unknown): Promise<{ status: number; body: Json }> =>
  platform.call(method, `/v1/capsules${path}`, body);
const create = async (body: object = {}): Promise<string> => {
  const answer = await call('POST', '', body);
  if (answer.status !== 201) throw new Error(`create was answered with ${JSON.stringify(answer)}`);
  return answer.body.id;
};
const destroy = async (id: string) => expect((await call('DELETE', `/${id}`)).status).toBe(204);
const sh = (id: string, script: string, more: object = {}) =>
  call('POST', `/${id}/exec`, { cmd: '/bin/sh', args: ['-c', script], ...more });
const statusOf = async (id: string) => (await call('GET', `/${id}`)).body.status;

const write = (id: string, path: string, content: Uint8Array<ArrayBuffer>, route = 'files/write') => {
  const form = new FormData();
  form.append('path', path);
  form.append('file', new Blob([content]), 'upload');
  return fetch(`${platform.baseUrl}/v1/capsules/${id}/${route}`, {
    method: 'POST',
    headers: { 'x-api-key': platform.apiKey },
    body: form,
  });
};
const read = async (id: string, path: string) => {
  const answer = await fetch(`${platform.baseUrl}/v1/capsules/${id}/files/read`, {
    method: 'POST',
    headers: { 'x-api-key': platform.apiKey, 'content-type': 'application/json' },
    body: JSON.stringify({ path }),
  });
  return Buffer.from(await answer.arrayBuffer());
};

/** Sends the first frame and gathers frames until one of a type that ends the stream. */
async function stream(
  path: string,
  first: object,
  onFrame: (frame: Json, socket: WebSocket) => void = () => undefined,
) {
  const url = `${platform.baseUrl.replace('http', 'ws')}/v1/capsules${path}`;
  const socket = new WebSocket(url, { headers: { 'x-api-key': platform.apiKey } });
  const frames: Json[] = [];
  await new Promise<void>((resolve, reject) => {
    socket.on('open', () => socket.send(JSON.stringify(first)));
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data));
      frames.push(frame);
      onFrame(frame, socket);
    });
    socket.on('close', () => resolve());
    socket.on('error', reject);
  });
  return frames;
}

/** Highest resident memory of a process so far, in MiB. */
async function peakMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

describe('a capsule', () => {
  let id: string;
  beforeAll(async () => {
    id = await create({ envs: { PROJECT: 'wrenn' }, metadata: { purpose: 'test' } });
  });
  afterAll(() => destroy(id));

  it('is shown as it is', async () => {
    const { body } = await call('GET', `/${id}`);
    expect(body).toMatchObject({ status: 'running', template: 'minimal', vcpus: 1, memory_mb: 512 });
    expect(body.host_ip).toMatch(/^10\.11\.\d+\.\d+$/);
    expect(body.guest_ip).toBe('169.254.0.21');
    expect(body.metadata).toMatchObject({
      purpose: 'test',
      kernel_version: expect.any(String),
      envd_version: expect.any(String),
    });
  });

  it('runs shell, Python and Node as its user, in its home, with its environment', async () => {
    const shell = await sh(id, 'id -un; pwd; echo $PROJECT; id -Gn');
    expect(execResponseSchema.parse(shell.body)).toMatchObject({
      exit_code: 0,
      stdout: 'user\n/home/user\nwrenn\nuser\n',
    });
    expect((await call('POST', `/${id}/exec`, { cmd: 'python3', args: ['-c', 'print(6*7)'] })).body.stdout).toBe(
      '42\n',
    );
    const node = await call('POST', `/${id}/exec`, { cmd: 'node', args: ['-p', '6*7'], timeout_sec: 120 });
    expect(node.body.stdout).toBe('42\n');
    expect((await sh(id, 'id -u', { user: 'root' })).body.stdout).toBe('0\n');
    expect((await sh(id, 'sudo -n id -u')).body.stdout).toBe('0\n');
  });

  it('gives a command the groups that its user has at that moment', async () => {
    await sh(id, 'sudo groupadd artists && sudo usermod -aG artists,video user');
    expect((await sh(id, 'id -Gn')).body.stdout).toBe('user video artists\n');
  });

  it('streams output while it comes', async () => {
    // Each line comes only when the one before it has been seen.
    const script = 'for i in 1 2 3; do echo $i; read seen && [ "$seen" = "saw $i" ] || exit 9; done';
    const first = { type: 'start', cmd: '/bin/sh', args: ['-c', script], stdin: true };
    const frames = await stream(`/${id}/exec/stream`, first, ({ type, data }, socket) => {
      if (type === 'stdout') socket.send(JSON.stringify({ type: 'stdin', data: `saw ${data}` }));
    });
    const output = frames.filter(({ type }) => type === 'stdout').map(({ data }) => data);
    expect(output).toEqual(['1\n', '2\n', '3\n']);
    expect(frames.at(-1)).toMatchObject({ type: 'exit', exit_code: 0 });
  });

  it('has a terminal', async () => {
    const line = Buffer.from('stty size; tput colors; exit 7\n').toString('base64');
    const frames = await stream(`/${id}/pty`, { type: 'start', cols: 99, rows: 33 }, ({ type }, socket) => {
      if (type === 'started') socket.send(JSON.stringify({ type: 'input', data: line }));
    });
    const output = frames.filter(({ type }) => type === 'output').map(({ data }) => Buffer.from(data, 'base64'));
    expect(Buffer.concat(output).toString()).toContain('33 99');
    expect(frames.at(-1)).toMatchObject({ type: 'exit', exit_code: 7 });
  });

  it('keeps files byte for byte', async () => {
    const bytes = Buffer.from(Array.from({ length: 3 * MIB }, (_, i) => (i * 31) & 255));
    expect((await write(id, '/home/user/in/file', bytes)).status).toBe(204);
    expect((await read(id, '/home/user/in/file')).equals(bytes)).toBe(true);
    const { body } = await call('POST', `/${id}/files/list`, { path: '/home/user/in' });
    expect(body.entries).toMatchObject([{ name: 'file', type: 'file', size: bytes.length, owner: 'user' }]);
  });

  it('keeps wrenn-cp and wrenn-agent small while it prints much', async () => {
    const pids = [platform.controlPlane.pid, platform.agent.pid];
    const before = await Promise.all(pids.map(peakMb));
    const bytes = 64 * MIB;
    const { body } = await call('POST', `/${id}/exec`, {
      cmd: 'head',
      args: ['-c', String(bytes), '/dev/zero'],
      timeout_sec: 0,
    });
    expect(body.stdout.length + body.stdout_truncated_bytes).toBe(bytes);
    const after = await Promise.all(pids.map(peakMb));
    for (const [i, mb] of after.entries()) {
      const grown = mb - (before[i] ?? 0);
      expect(grown, `peaks of both in MiB: ${before.join(', ')} before, ${after.join(', ')} after`).toBeLessThan(64);
    }
  });

  describe('with bad input', () => {
    it.each([
      ['a file that is not there', 'files/read', { path: '/no/such/file' }, 404, 'path_not_found'],
      ['a directory that is not there', 'files/list', { path: '/no/such/dir' }, 404, 'path_not_found'],
      ['a directory that is a file', 'files/list', { path: '/etc/passwd' }, 400, 'wrong_file_type'],
      ['a directory that exists', 'files/mkdir', { path: '/home/user' }, 409, 'conflict'],
      ['a command that does not exist', 'exec', { cmd: 'no-such-command' }, 400, 'command_not_found'],
      ['a user that does not exist', 'exec', { cmd: 'true', user: 'nobody-here' }, 400, 'invalid_request'],
      [
        'a command that takes too long',
        'exec',
        { cmd: 'sleep', args: ['600'], timeout_sec: 1 },
        504,
        'deadline_exceeded',
      ],
    ])('answers %s', async (_, route, body, status, reason) => {
      const answer = await call('POST', `/${id}/${route}`, body);
      expect(answer).toMatchObject({ status, body: { error: { reason, remedy: expect.any(String) } } });
    });

    it('answers a file that is too large', async () => {
      const answer = await write(id, '/tmp/large', new Uint8Array(101 * MIB));
      expect(answer.status).toBe(413);
      expect(await answer.json()).toMatchObject({ error: { code: 'too_large', reason: 'too_large' } });
    });

    it('answers a full disk, and works on when there is room again', async () => {
      await sh(id, 'fallocate -l $(($(df --output=avail -B1 / | tail -1) - 2000000)) /home/user/filler', {
        timeout_sec: 120,
      });
      const answer = await write(id, '/home/user/more', new Uint8Array(8 * MIB));
      expect(answer.status).toBe(507);
      expect(await answer.json()).toMatchObject({ error: { code: 'guest_disk_full' } });
      await sh(id, 'rm /home/user/filler');
      expect((await write(id, '/home/user/more', new Uint8Array(8 * MIB))).status).toBe(204);
    });

    it('keeps nothing of an upload that was cut off, and no command whose client is gone', async () => {
      const { port } = new URL(platform.baseUrl);
      const headers = { 'x-api-key': platform.apiKey };
      const upload = request({
        port,
        method: 'POST',
        path: `/v1/capsules/${id}/files/stream/write?path=/home/user/half/file`,
        headers: { ...headers, 'content-type': 'application/octet-stream' },
      });
      upload.on('error', () => undefined);
      upload.write(Buffer.alloc(MIB));
      await until('the guest has begun', 30_000, async () => (await sh(id, 'ls -A half')).body.stdout !== '');
      upload.destroy();
      await until('nothing is left', 30_000, async () => (await sh(id, 'ls -A half')).body.stdout === '');

      const exec = request({
        port,
        method: 'POST',
        path: `/v1/capsules/${id}/exec`,
        headers: { ...headers, 'content-type': 'application/json' },
      });
      exec.on('error', () => undefined);
      exec.end(JSON.stringify({ cmd: 'sleep', args: ['4711'], timeout_sec: 0 }));
      const count = async () => (await sh(id, 'pgrep -fc "^sleep 4711" || true')).body.stdout;
      await until('it runs', 30_000, async () => (await count()) === '1\n');
      exec.destroy();
      await until('it is gone', 30_000, async () => (await count()) === '0\n');
    });
  });
});

describe('a create', () => {
  it.each([
    ['an unknown template', { template: 'nowhere' }, 404, 'template_not_found'],
    ['an impossible shape', { vcpus: 512, memory_mb: 16 }, 400, 'invalid_shape'],
    ['a field of the wrong type', { vcpus: 'two' }, 400, 'invalid_request'],
  ])('with %s is refused', async (_, body, status, reason) => {
    expect(await call('POST', '', body)).toMatchObject({ status, body: { error: { reason } } });
  });

  const idsStarted = async (): Promise<string[]> => {
    const { body } = await call('GET', '?status=starting,running');
    return body.map((capsule: Json) => capsule.id);
  };

  /** Resolves as soon as a new capsule is being started; on a busy machine it may run by the time that it is seen. */
  const begin = async () => {
    const known = await idsStarted();
    const answer = call('POST', '', {}).catch(() => 'cut off' as const);
    const id = await until('it is being started', 30_000, async () =>
      (await idsStarted()).find((each) => !known.includes(each)),
    );
    return { id, answer };
  };

  it('is repaired when the agent is killed in its middle', async () => {
    const { id, answer } = await begin();
    await platform.agent.end('SIGKILL');
    platform.agent.start();
    expect(await answer).toMatchObject({ status: 201, body: { id } });
    await until('it answers', 60_000, async () => (await sh(id, 'echo alive')).body.stdout === 'alive\n');
    await destroy(id);
  });

  it('is gone on with when the control plane is killed in its middle', async () => {
    const { id, answer } = await begin();
    await platform.controlPlane.end('SIGKILL');
    const early = await answer;
    if (early !== 'cut off') expect(early).toMatchObject({ status: 201, body: { id } });
    platform.controlPlane.start();
    await platform.ready();
    await until('it runs', 120_000, async () => (await statusOf(id)) === 'running');
    expect((await sh(id, 'echo alive')).body.stdout).toBe('alive\n');
    await destroy(id);
  });
});

describe('a guest that dies', () => {
  it('becomes an error with a reason; its last words can be read and nothing of it is left', async () => {
    const id = await create();
    // Powers the machine off at once, whatever runs on it.
    await sh(id, 'echo o > /proc/sysrq-trigger; sleep 60', { user: 'root', timeout_sec: 30 });
    await until('it is an error', 60_000, async () => (await statusOf(id)) === 'error');
    const { body } = await call('GET', `/${id}`);
    expect(body.status_reason).toEqual(expect.stringMatching(/\w+ \w+/));
    expect(await sh(id, 'true')).toMatchObject({ status: 409, body: { error: { code: 'invalid_state' } } });
    const logs = await fetch(`${platform.baseUrl}/v1/capsules/${id}/logs`, {
      headers: { 'x-api-key': platform.apiKey },
    });
    expect(logs.status).toBe(200);
    await destroy(id);
  });
});
