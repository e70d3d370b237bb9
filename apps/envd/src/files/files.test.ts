import { randomBytes } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';

let envd: TestEnvd;

beforeAll(async () => {
  envd = await startTestEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

const RAW = { 'Content-Type': 'application/octet-stream' };
const at = (name: string) => join(envd.directory, name);
const urlOf = (path: string) => `${envd.url}/files?${new URLSearchParams({ path })}`;
const put = (path: string, body: NonNullable<RequestInit['body']>, headers: Record<string, string> = {}) =>
  fetch(urlOf(path), { method: 'POST', headers: { ...RAW, ...headers }, body });
const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(urlOf(path), { headers: { 'Accept-Encoding': 'identity', ...headers } });

describe('uploading', () => {
  it('writes a raw body, with parents, and tells what it wrote', async () => {
    const response = await put(at('a/b/raw.bin'), 'content');
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual([{ path: at('a/b/raw.bin'), name: 'raw.bin', type: 'file' }]);
    expect(readFileSync(at('a/b/raw.bin'), 'utf8')).toBe('content');
  });

  it('writes several files of a form to the paths in their names', async () => {
    const form = new FormData();
    form.append('comment', 'not a file');
    form.append('file', new Blob(['one']), at('form/one.txt'));
    form.append('file', new Blob(['two']), at('form/zwei ü "2".txt'));
    const response = await fetch(`${envd.url}/files`, { method: 'POST', body: form });
    expect(response.status).toBe(200);
    const written = (await response.json()) as { path: string }[];
    expect(written.map(({ path }) => path)).toEqual([at('form/one.txt'), expect.stringContaining('zwei ü')]);
    expect(readFileSync(at('form/one.txt'), 'utf8')).toBe('one');
    expect(readdirSync(at('form')).filter((name) => name.startsWith('zwei ü'))).toHaveLength(1);
  });

  it('writes a form’s part without a file name to the path of the query', async () => {
    const form = new FormData();
    form.append('file', 'x'.repeat(3_000_000));
    expect((await fetch(urlOf(at('plain.txt')), { method: 'POST', body: form })).status).toBe(200);
    expect(statSync(at('plain.txt')).size).toBe(3_000_000);
  });

  it('takes gzip, raw and in forms', async () => {
    await put(at('zipped.txt'), gzipSync('unzipped'), { 'Content-Encoding': 'gzip' });
    expect(readFileSync(at('zipped.txt'), 'utf8')).toBe('unzipped');
    const body = `--b\r\nContent-Disposition: form-data; name="file"; filename="${at('zf.txt')}"\r\n\r\nform\r\n--b--\r\n`;
    const response = await fetch(`${envd.url}/files`, {
      method: 'POST',
      headers: { 'Content-Type': 'multipart/form-data; boundary=b', 'Content-Encoding': 'gzip' },
      body: gzipSync(body),
    });
    expect(response.status).toBe(200);
    expect(readFileSync(at('zf.txt'), 'utf8')).toBe('form');
  });

  it('replaces a file at once: its mode and links stay, and readers keep the old content', async () => {
    writeFileSync(at('old.txt'), 'old', { mode: 0o640 });
    symlinkSync('old.txt', at('link.txt'));
    const { ino } = statSync(at('old.txt'));
    expect((await put(at('link.txt'), 'new')).status).toBe(200);
    expect(readFileSync(at('old.txt'), 'utf8')).toBe('new');
    expect(statSync(at('old.txt')).mode & 0o777).toBe(0o640);
    expect(statSync(at('old.txt')).ino).not.toBe(ino);
    expect(lstatSync(at('link.txt')).isSymbolicLink()).toBe(true);
    symlinkSync('made-by-link.txt', at('dangling.txt'));
    await put(at('dangling.txt'), 'made');
    expect(readFileSync(at('made-by-link.txt'), 'utf8')).toBe('made');
  });

  it('writes into devices and not over them', async () => {
    expect((await put('/dev/null', 'gone')).status).toBe(200);
    expect(statSync('/dev/null').isCharacterDevice()).toBe(true);
  });

  it('writes files of /proc, beside which none can be made', async () => {
    const comm = `/proc/${process.pid}/comm`;
    const own = readFileSync(comm, 'utf8');
    expect((await put(comm, 'renamed')).status).toBe(200);
    expect(readFileSync(comm, 'utf8')).toBe('renamed\n');
    writeFileSync(comm, own.trim());
  });

  it('keeps metadata of headers, and replaces all of it with the file', async () => {
    const first = await put(at('meta.txt'), '1', { 'X-Metadata-Author': 'Ada', 'X-Metadata-Empty': '' });
    expect(await first.json()).toMatchObject([{ metadata: { author: 'Ada', empty: '' } }]);
    expect((await envd.files.stat({ path: at('meta.txt') })).entry?.metadata).toEqual({ author: 'Ada', empty: '' });
    await put(at('meta.txt'), '2', { 'X-Metadata-Other': 'x' });
    expect((await envd.files.stat({ path: at('meta.txt') })).entry?.metadata).toEqual({ other: 'x' });
    expect((await put(at('meta.txt'), '3', { 'X-Metadata-Long': 'x'.repeat(5000) })).status).toBe(400);
    expect(readFileSync(at('meta.txt'), 'utf8')).toBe('2');
  });

  it.each([
    ['a raw body without a path', `/files`, RAW, 'x', 400],
    ['a body of no known type', '/files?path=/tmp/x', { 'Content-Type': 'text/weird' }, 'x', 400],
    ['a form without a boundary', '/files?path=/tmp/x', { 'Content-Type': 'multipart/form-data' }, 'x', 400],
    [
      'a form that breaks off',
      '/files?path=/tmp/x',
      { 'Content-Type': 'multipart/form-data; boundary=b' },
      '--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc',
      400,
    ],
    ['gzip that is none', '/files?path=/tmp/wrenn-not-gzip', { ...RAW, 'Content-Encoding': 'gzip' }, 'not gzip', 400],
    ['an unknown encoding', '/files?path=/tmp/x', { ...RAW, 'Content-Encoding': 'br' }, 'x', 400],
    ['a directory as file', '/files?path=/usr', RAW, 'x', 400],
    ['a file as directory', '/files?path=/etc/passwd/x', RAW, 'x', 400],
    ['another user’s home', '/files?path=~other/x', RAW, 'x', 400],
    ['a NUL character', '/files?path=/tmp/a%00b', RAW, 'x', 400],
    ['an unknown user', '/files?path=x&username=no-such-user', RAW, 'x', 401],
  ])('refuses %s', async (_what, path, headers, body, status) => {
    const response = await fetch(envd.url + path, { method: 'POST', headers, body });
    expect(response.status).toBe(status);
    expect(await response.json()).toEqual({ code: status, message: expect.any(String) });
    expect(JSON.parse(response.headers.get('wrenn-error') ?? '')).toMatchObject({ code: expect.any(String) });
  });

  it('refuses two files for one path, and keeps the first', async () => {
    const form = new FormData();
    form.append('file', new Blob(['one']), 'a');
    form.append('file', new Blob(['two']), 'b');
    const response = await fetch(urlOf(at('twice.txt')), { method: 'POST', body: form });
    expect(response.status).toBe(400);
    expect(readFileSync(at('twice.txt'), 'utf8')).toBe('one');
  });

  it.each([
    ['raw', 'application/octet-stream', ''],
    [
      'form',
      'multipart/form-data; boundary=b',
      '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n',
    ],
  ])('leaves the old file and nothing else when the client of a %s upload goes away', async (kind, type, head) => {
    const directory = at(`broken-${kind}`);
    await put(join(directory, 'file.txt'), 'old');
    const socket = connect(Number(new URL(envd.url).port), '127.0.0.1');
    socket.write(
      `POST /files?path=${directory}/file.txt HTTP/1.1\r\nHost: x\r\nContent-Type: ${type}\r\nContent-Length: 1000000\r\n\r\n${head}`,
    );
    socket.write(Buffer.alloc(300_000));
    await until('the upload has begun', () => readdirSync(directory).length === 2);
    socket.destroy();
    await until('nothing of it is left', () => readdirSync(directory).length === 1);
    expect(readFileSync(join(directory, 'file.txt'), 'utf8')).toBe('old');
  });
});

describe('downloading', () => {
  const content = randomBytes(700_000);

  beforeAll(() => writeFileSync(at('data.bin'), content));

  it('gives the whole file, with its length and type', async () => {
    writeFileSync(at('page.html'), '<p>');
    const response = await get(at('data.bin'));
    expect(response.status).toBe(200);
    expect(response.headers.get('content-length')).toBe('700000');
    expect(Buffer.from(await response.arrayBuffer()).equals(content)).toBe(true);
    expect((await get(at('page.html'))).headers.get('content-type')).toBe('text/html; charset=utf-8');
  });

  it('gives gzip to who wants it', async () => {
    writeFileSync(at('text.txt'), 'text '.repeat(10_000));
    const socket = connect(Number(new URL(envd.url).port), '127.0.0.1');
    socket.write(
      `GET /files?path=${at('text.txt')} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n`,
    );
    const parts: Buffer[] = [];
    for await (const part of socket) parts.push(part);
    const answer = Buffer.concat(parts);
    expect(answer.toString('latin1')).toContain('Content-Encoding: gzip');
    expect(answer.length).toBeLessThan(5000);
    expect(await (await get(at('text.txt'), { 'Accept-Encoding': 'gzip' })).text()).toBe('text '.repeat(10_000));
  });

  it.each([
    ['bytes=0-9', 0, 10],
    ['bytes=100-', 100, 700_000],
    ['bytes=-5', 699_995, 700_000],
    ['bytes=699999-800000', 699_999, 700_000],
  ])('gives the part %s', async (range, start, end) => {
    const response = await get(at('data.bin'), { Range: range });
    expect(response.status).toBe(206);
    expect(response.headers.get('content-range')).toBe(`bytes ${start}-${end - 1}/700000`);
    expect(Buffer.from(await response.arrayBuffer()).equals(content.subarray(start, end))).toBe(true);
  });

  it('refuses a part beyond the end', async () => {
    const response = await get(at('data.bin'), { Range: 'bytes=700000-' });
    expect(response.status).toBe(416);
    expect(response.headers.get('content-range')).toBe('bytes */700000');
  });

  it('gives a part only of the file that the client has the rest of', async () => {
    const etag = (await get(at('data.bin'))).headers.get('etag') ?? '';
    expect((await get(at('data.bin'), { Range: 'bytes=1-2', 'If-Range': etag })).status).toBe(206);
    expect((await get(at('data.bin'), { Range: 'bytes=1-2', 'If-Range': '"other"' })).status).toBe(200);
    expect((await get(at('data.bin'), { 'If-None-Match': etag })).status).toBe(304);
  });

  it('gives files of /proc, which claim to be empty', async () => {
    expect(await (await get('/proc/version')).text()).toContain('Linux version');
    writeFileSync(at('empty'), '');
    expect(await (await get(at('empty'))).text()).toBe('');
  });

  it('answers HEAD without a body', async () => {
    const response = await fetch(urlOf(at('data.bin')), { method: 'HEAD', headers: { 'Accept-Encoding': 'identity' } });
    expect(response.headers.get('content-length')).toBe('700000');
    expect(await response.text()).toBe('');
  });

  it.each([
    ['nothing', '/no/such/file', 404, 'path_not_found'],
    ['a directory', '/usr', 400, 'wrong_file_type'],
    ['a device', '/dev/zero', 400, 'wrong_file_type'],
    ['a path through a file', '/etc/passwd/x', 400, 'wrong_file_type'],
  ])('refuses %s', async (_what, path, status, code) => {
    const response = await get(path);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ code: status, message: expect.stringContaining(path) });
    expect(JSON.parse(response.headers.get('wrenn-error') ?? '')).toMatchObject({ code });
  });
});

describe('composing', () => {
  const compose = (body: unknown) =>
    fetch(`${envd.url}/files/compose`, {
      method: 'POST',
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });

  it('makes one file of several and removes them', async () => {
    for (const part of ['1', '2', '3']) writeFileSync(at(`part${part}`), part.repeat(3));
    const response = await compose({
      source_paths: ['1', '2', '3'].map((part) => at(`part${part}`)),
      destination: at('all'),
    });
    expect(await response.json()).toEqual({ path: at('all'), name: 'all', type: 'file' });
    expect(readFileSync(at('all'), 'utf8')).toBe('111222333');
    expect(readdirSync(envd.directory).filter((name) => name.startsWith('part'))).toEqual([]);
  });

  it('refuses what it cannot do, and changes nothing', async () => {
    writeFileSync(at('only'), 'x');
    expect((await compose({ source_paths: [at('only'), at('missing')], destination: at('out') })).status).toBe(404);
    expect((await compose({ source_paths: [at('only')], destination: at('only') })).status).toBe(400);
    expect((await compose({ source_paths: [], destination: at('out') })).status).toBe(400);
    expect((await compose('{broken')).status).toBe(400);
    expect(readFileSync(at('only'), 'utf8')).toBe('x');
  });
});
