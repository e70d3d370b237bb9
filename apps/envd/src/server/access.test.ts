import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createClients,
  type Protocol,
  readProcess,
  shell,
  startTestEnvd,
  type TestEnvd,
} from '../testing/test-envd.ts';
import { signRequest } from './access-token.ts';

const TOKEN = 'token-one';
let envd: TestEnvd;

beforeAll(async () => {
  envd = await startTestEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

describe('before the first /init', () => {
  it('is open', async () => {
    expect((await fetch(`${envd.url}/envs`)).status).toBe(200);
    expect(await envd.process.list({})).toMatchObject({ processes: [] });
  });
});

describe('after an /init with a token', () => {
  beforeAll(async () => {
    expect((await envd.init({ accessToken: TOKEN })).status).toBe(204);
  });

  it('leaves only /health open', async () => {
    expect((await fetch(`${envd.url}/health`)).status).toBe(204);
    for (const path of ['/metrics', '/envs', '/no/such/route']) expect((await fetch(envd.url + path)).status).toBe(401);
    for (const path of ['/init', '/files', '/files/compose', '/snapshot/prepare']) {
      expect((await fetch(envd.url + path, { method: 'POST', body: '{}' })).status).toBe(401);
    }
    expect((await fetch(`${envd.url}/files?path=/etc/passwd`)).status).toBe(401);
  });

  it('takes the token, and no other', async () => {
    const envs = (token: string) => fetch(`${envd.url}/envs`, { headers: { 'X-Access-Token': token } });
    expect((await envs(TOKEN)).status).toBe(200);
    for (const wrong of ['token-two', 'token-onf', 'token-on', 'x']) expect((await envs(wrong)).status).toBe(401);
  });

  it.each<Protocol>(['connect-json', 'connect-binary', 'grpc-web'])(
    'refuses calls over %s as unauthenticated',
    async (protocol) => {
      const { process, files } = createClients(envd.url, protocol);
      const refused = { code: Code.Unauthenticated };
      await expect(process.list({})).rejects.toMatchObject(refused);
      await expect(readProcess(process.start(shell('true')))).rejects.toMatchObject(refused);
      await expect(files.stat({ path: '/' })).rejects.toMatchObject(refused);
      const options = { headers: { 'X-Access-Token': TOKEN } };
      expect((await readProcess(process.start(shell('echo in'), options))).stdout).toBe('in\n');
    },
  );

  it('changes the token only for who has the current one', async () => {
    expect((await envd.init({ accessToken: 'token-two' })).status).toBe(401);
    expect((await envd.init({ accessToken: 'token-two' }, 'wrong')).status).toBe(401);
    expect((await envd.init({ accessToken: 'token-two' }, TOKEN)).status).toBe(204);
    expect((await envd.init({}, TOKEN)).status).toBe(401);
    expect((await envd.init({ accessToken: TOKEN }, 'token-two')).status).toBe(204);
  });

  it('keeps the token when a later /init names none', async () => {
    expect((await envd.init({ envVars: { A: 'b' } }, TOKEN)).status).toBe(204);
    expect((await fetch(`${envd.url}/envs`)).status).toBe(401);
  });
});

describe('signed links', () => {
  const path = () => join(envd.directory, 'signed.txt');
  const inAnHour = Math.floor(Date.now() / 1000) + 3600;

  beforeAll(() => writeFileSync(path(), 'signed'));

  function link(
    operation: 'read' | 'write',
    expiration: number | undefined,
    user = '',
    overrides: Record<string, string> = {},
  ) {
    const signature = signRequest({ path: path(), operation, user, expiration }, TOKEN);
    const query = new URLSearchParams({
      path: path(),
      signature,
      ...(user ? { username: user } : {}),
      ...(expiration === undefined ? {} : { signature_expiration: String(expiration) }),
      ...overrides,
    });
    return `${envd.url}/files?${query}`;
  }

  it('has E2B’s form', () => {
    // sha256("/a:read:user:t:5"), by sha256sum.
    const signature = signRequest({ path: '/a', operation: 'read', user: 'user', expiration: 5 }, 't');
    expect(signature).toMatch(/^v1_[A-Za-z0-9+/]{43}$/);
    expect(signature).toBe(`v1_${Buffer.from(SHA256_OF_EXAMPLE, 'hex').toString('base64').replace('=', '')}`);
  });

  it('opens one file for one operation', async () => {
    for (const expiration of [undefined, inAnHour]) {
      expect(await (await fetch(link('read', expiration))).text()).toBe('signed');
    }
    expect((await fetch(link('read', inAnHour, 'root'))).status).toBe(200);
    const form = new FormData();
    form.append('file', 'by link');
    expect((await fetch(link('write', inAnHour), { method: 'POST', body: form })).status).toBe(200);
    expect(await (await fetch(link('read', undefined))).text()).toBe('by link');
  });

  it.each([
    ['another path', () => link('read', inAnHour, '', { path: '/etc/passwd' }), 'invalid signature'],
    ['another user', () => link('read', inAnHour, '', { username: 'root' }), 'invalid signature'],
    [
      'a later end',
      () => link('read', inAnHour, '', { signature_expiration: String(inAnHour + 1) }),
      'invalid signature',
    ],
    ['another operation', () => link('write', inAnHour), 'invalid signature'],
    ['a wrong signature', () => link('read', inAnHour, '', { signature: 'v1_x' }), 'invalid signature'],
    ['a link that has expired', () => link('read', 1), 'signature is already expired'],
    ['no signature', () => `${envd.url}/files?path=${path()}`, 'missing signature query parameter'],
  ])('refuses %s', async (_what, url, message) => {
    const response = await fetch(url());
    expect(response.status).toBe(401);
    expect(await response.json()).toEqual({ code: 401, message });
  });
});

describe('pages', () => {
  it('of other machines cannot use an envd on a developer’s machine', async () => {
    const response = await fetch(`${envd.url}/health`, { headers: { Origin: 'https://evil.example' } });
    expect(response.status).toBe(403);
    expect(response.headers.get('access-control-allow-origin')).toBeNull();
  });

  it('may call a guest, which its token protects', async () => {
    await using guest = await startTestEnvd({
      system: { addEntropy() {}, setHostName() {}, setMachineId() {}, now: Date.now, setWallClock() {} },
    });
    const preflight = await fetch(`${guest.url}/process.Process/List`, {
      method: 'OPTIONS',
      headers: {
        Origin: 'https://app.example',
        'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'x-access-token,content-type',
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe('*');
    expect(preflight.headers.get('access-control-allow-headers')).toBe('x-access-token,content-type');
    await guest.init({ accessToken: TOKEN });
    const refused = await fetch(`${guest.url}/envs`, { headers: { Origin: 'https://app.example' } });
    expect(refused.status).toBe(401);
    expect(refused.headers.get('access-control-allow-origin')).toBe('*');
  });
});

describe('keep-alive', () => {
  it('serves many calls on one connection', async () => {
    const transport = createConnectTransport({ baseUrl: envd.url, httpVersion: '1.1' });
    const client = createClient(Process, transport);
    for (let round = 0; round < 20; round++) {
      await client.list({}, { headers: { 'X-Access-Token': TOKEN } });
    }
  });
});

const SHA256_OF_EXAMPLE = '44817663a6e9d8dcfa6738b5495a77f4b05a73d4f215a5825ae3b2bdae3c1faf';
