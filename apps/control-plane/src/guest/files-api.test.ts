import { request } from 'node:http';
import { Readable } from 'node:stream';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let capsule: string;
let dir: string;
beforeAll(async () => {
  platform = await TestPlatform.start();
  capsule = `/v1/capsules/${await platform.createCapsule()}`;
  dir = (await sh('pwd')).trim();
});
afterAll(() => platform[Symbol.asyncDispose]());

const form = (path: string, content: string | Uint8Array<ArrayBuffer>) => {
  const body = new FormData();
  body.append('path', path && `${dir}/${path}`);
  body.append('file', new Blob([content]), 'upload');
  return body;
};
const write = (path: string, content: string | Uint8Array<ArrayBuffer>, route = 'files/write') =>
  platform.call(`${capsule}/${route}`, { body: form(path, content) });
const read = async (path: string, route = 'files/read') => {
  const answer = await platform.fetch(`${capsule}/${route}`, { json: { path: `${dir}/${path}` } });
  return { status: answer.status, bytes: Buffer.from(await answer.arrayBuffer()), headers: answer.headers };
};
const sh = async (script: string): Promise<string> =>
  (await platform.call(`${capsule}/exec`, { json: { cmd: '/bin/sh', args: ['-c', script] } })).body.stdout;

describe('files', () => {
  it.each(['files', 'files/stream'])('are written and read through %s, byte for byte', async (route) => {
    const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7) & 255));
    expect((await write('deep/down/file.bin', bytes, `${route}/write`)).status).toBe(204);
    const answer = await read('deep/down/file.bin', `${route}/read`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('content-type')).toBe('application/octet-stream');
    expect(answer.headers.get('content-length')).toBe('100000');
    expect(answer.bytes.equals(bytes)).toBe(true);
  });

  it('are written as bare bytes, empty too', async () => {
    for (const content of ['', 'bare']) {
      const answer = await platform.fetch(`${capsule}/files/write?path=${dir}/bare.txt`, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body: content || new Uint8Array(),
      });
      expect(answer.status).toBe(204);
      expect((await read('bare.txt')).bytes.toString()).toBe(content);
    }
  });

  it('have directories that are made, listed and removed', async () => {
    const post = (route: string, { path, ...more }: { path: string; depth?: number }) =>
      platform.call(`${capsule}/files/${route}`, { json: { path: `${dir}/${path}`, ...more } });
    const made = await post('mkdir', { path: 'a/b/c' });
    expect(made).toMatchObject({ status: 200, body: { entry: { name: 'c', type: 'directory' } } });
    expect(await post('mkdir', { path: 'a/b/c' })).toMatchObject({
      status: 409,
      body: { error: { code: 'conflict' } },
    });
    await write('a/b/file.txt', 'content');
    await sh('ln -s file.txt a/b/link');
    const { body } = await post('list', { path: 'a/b' });
    expect(body.entries.map((entry: { name: string }) => entry.name).sort()).toEqual(['c', 'file.txt', 'link']);
    expect(body.entries.find((entry: { name: string }) => entry.name === 'file.txt')).toMatchObject({
      type: 'file',
      size: 7,
      permissions: expect.stringContaining('rw'),
      modified_at: expect.any(Number),
      symlink_target: null,
    });
    expect((await post('list', { path: 'a', depth: 3 })).body.entries.length).toBe(4);
    expect((await post('remove', { path: 'a' })).status).toBe(204);
    expect(await post('list', { path: 'a' })).toMatchObject({
      status: 404,
      body: { error: { code: 'not_found', reason: 'path_not_found' } },
    });
  });

  it.each([
    ['files/read', { path: '/missing' }, 404, 'path_not_found'],
    ['files/stream/read', { path: '/missing' }, 404, 'path_not_found'],
    ['files/read', { path: '/usr' }, 400, 'wrong_file_type'],
    ['files/list', { path: '/etc/passwd' }, 400, 'wrong_file_type'],
    ['files/read', {}, 400, 'invalid_request'],
    ['files/list', { path: '' }, 400, 'invalid_request'],
  ])('refuse %s of %j', async (route, json, status, reason) => {
    expect(await platform.call(`${capsule}/${route}`, { json })).toMatchObject({ status, body: { error: { reason } } });
  });

  it('refuse uploads that name no path or hold no file', async () => {
    const noFile = new FormData();
    noFile.append('path', 'x');
    const late = new FormData();
    late.append('file', new Blob(['x']), 'upload');
    late.append('path', 'late');
    for (const body of [noFile, late, form('', 'x')]) {
      expect(await platform.call(`${capsule}/files/write`, { body })).toMatchObject({
        status: 400,
        body: { error: { reason: 'invalid_request' } },
      });
    }
    const type = { 'content-type': 'text/x-strange' };
    const strange = await platform.call(`${capsule}/files/write?path=x`, { method: 'POST', headers: type, body: 'x' });
    expect(strange).toMatchObject({ status: 400, body: { error: { reason: 'invalid_request' } } });
  });

  it('of more than 100 MB are refused by files/write and taken by files/stream/write', async () => {
    const big = new Uint8Array(101 * 1024 * 1024);
    expect(await write('big', big)).toMatchObject({ status: 413, body: { error: { reason: 'too_large' } } });
    expect((await read('big')).status).toBe(404);
    expect((await write('big', big, 'files/stream/write')).status).toBe(204);
    expect(await sh('stat -c %s big; rm big')).toBe(`${big.length}\n`);
  }, 120_000);

  it('of more than 100 MB are refused also when their size is not told ahead', async () => {
    const chunk = new Uint8Array(1024 * 1024);
    async function* chunks() {
      for (let i = 0; i < 101; i++) yield chunk;
    }
    const answer = await platform.call(`${capsule}/files/write?path=${dir}/big`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: Readable.toWeb(Readable.from(chunks())) as ReadableStream,
      duplex: 'half',
    });
    expect(answer).toMatchObject({ status: 413, body: { error: { reason: 'too_large' } } });
    expect((await read('big')).status).toBe(404);
  }, 120_000);

  it.each(['multipart', 'bare'])('of which only a part comes are not written (%s)', async (kind) => {
    await write('kept', 'old');
    const isForm = kind === 'multipart';
    const { port } = new URL(platform.baseUrl);
    const upload = request({
      port,
      method: 'POST',
      path: `${capsule}/files/write?path=${dir}/kept`,
      headers: {
        'x-api-key': platform.apiKey,
        'content-type': isForm ? 'multipart/form-data; boundary=frontier' : 'application/octet-stream',
      },
    });
    upload.on('error', () => undefined);
    if (isForm) upload.write('--frontier\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n');
    upload.write('x'.repeat(500_000));
    await until(
      'the guest has begun to write',
      async () => (await sh('ls -A | grep -v -e kept -e bare -e deep -e leases || true')) !== '',
    );
    upload.destroy();
    await until(
      'the guest has cleaned up',
      async () => (await sh('ls -A | grep -v -e kept -e bare -e deep -e leases || true')) === '',
    );
    expect((await read('kept')).bytes.toString()).toBe('old');
  });
});
