import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ChildEnvd, startChildEnvd } from '../testing/child-envd.ts';
import { startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';

const MIB = 1024 * 1024;
const RAW = { 'Content-Type': 'application/octet-stream' };

/** Mounting needs root. */
describe.runIf(process.getuid?.() === 0)('a full disk', () => {
  let envd: TestEnvd;
  let mount: string;

  beforeAll(async () => {
    envd = await startTestEnvd();
    mount = join(envd.directory, 'small');
    mkdirSync(mount);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mount]);
  });

  afterAll(async () => {
    execFileSync('umount', [mount]);
    await envd[Symbol.asyncDispose]();
  });

  const send = (body: NonNullable<RequestInit['body']>, headers: Record<string, string>) =>
    fetch(`${envd.url}/files?path=${mount}/file.bin`, { method: 'POST', headers, body });

  it.each(['raw', 'form'])(
    'refuses a %s upload with 507, and leaves the old file whole and nothing else',
    async (kind) => {
      writeFileSync(join(mount, 'file.bin'), 'old content');
      const big = new Blob([Buffer.alloc(8 * MIB)]);
      const form = new FormData();
      form.append('file', big);
      const response = await (kind === 'raw' ? send(big, RAW) : send(form, {}));
      expect(response.status).toBe(507);
      expect(await response.json()).toEqual({ code: 507, message: 'The disk of the capsule is full.' });
      expect(readFileSync(join(mount, 'file.bin'), 'utf8')).toBe('old content');
      expect(readdirSync(mount)).toEqual(['file.bin']);
      // There is room again at once.
      expect((await send(Buffer.alloc(2 * MIB), RAW)).status).toBe(200);
    },
  );
});

describe('large files', () => {
  let envd: ChildEnvd;
  let directory: TestEnvd;

  beforeAll(async () => {
    envd = await startChildEnvd();
    directory = await startTestEnvd();
  });

  afterAll(async () => {
    await envd[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
  });

  it('go up and down in constant memory', async () => {
    const url = `${envd.url}/files?path=${directory.directory}/large.bin`;
    const block = Buffer.alloc(MIB, 7);
    const blocks = 256;
    async function* body() {
      for (let index = 0; index < blocks; index++) {
        peak = Math.max(peak, envd.residentBytes());
        yield block;
      }
    }
    let peak = 0;
    await fetch(url, { method: 'POST', headers: RAW, body: block });
    const before = envd.residentBytes();
    const upload = await fetch(url, {
      method: 'POST',
      headers: RAW,
      body: ReadableStream.from(body()),
      duplex: 'half',
    } as RequestInit);
    expect(upload.status).toBe(200);
    let received = 0;
    const download = await fetch(url, { headers: { 'Accept-Encoding': 'identity' } });
    for await (const chunk of download.body ?? []) {
      received += chunk.length;
      peak = Math.max(peak, envd.residentBytes());
    }
    expect(received).toBe(blocks * MIB);
    // What is free to be collected may wait for a while; held whole, a file would take all of it.
    expect(peak - before).toBeLessThan((blocks * MIB) / 2);
  }, 60_000);
});
