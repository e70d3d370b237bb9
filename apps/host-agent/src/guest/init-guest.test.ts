import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
import { ENVD_PORT } from './guest-connection.ts';
import { initGuest, waitForGuest } from './init-guest.ts';

/** A loopback address of this file's own. */
const ADDRESS = '127.77.3.9';
const SETTINGS = { accessToken: 'secret', envs: { A: '1' }, user: 'user', workdir: '/home/user', hostname: 'name' };

const never = new AbortController().signal;

let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
});

async function serve(handle: (request: IncomingMessage, body: string) => number | 'reset'): Promise<void> {
  server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      const status = handle(request, body);
      if (status === 'reset') request.socket.resetAndDestroy();
      else response.writeHead(status).end();
    });
  });
  server.listen(ENVD_PORT, ADDRESS);
  await once(server, 'listening');
}

describe('initGuest', () => {
  it('sends everything that a new guest needs, with the time and entropy of each attempt', async () => {
    const bodies: Record<string, unknown>[] = [];
    await serve((request, body) => {
      expect(request.headers['x-access-token']).toBe('secret');
      bodies.push(JSON.parse(body));
      return bodies.length < 3 ? 'reset' : 204;
    });
    const before = Date.now();
    await initGuest('cl-1', ADDRESS, SETTINGS, never);
    // More than three only where this program stood still meanwhile: the guest is told the time again.
    expect(bodies.length).toBeGreaterThanOrEqual(3);
    const entropies = bodies.slice(0, 3).map((body) => Buffer.from(String(body.entropy), 'base64'));
    expect(new Set(entropies.map(String)).size).toBe(3);
    expect(entropies[0]?.length).toBe(64);
    const { timestamp, entropy: _, ...rest } = bodies[2] ?? {};
    expect(Date.parse(String(timestamp))).toBeGreaterThanOrEqual(before);
    expect(rest).toEqual({
      accessToken: 'secret',
      envVars: { A: '1' },
      defaultUser: 'user',
      defaultWorkdir: '/home/user',
      hostname: 'name',
    });
  });

  it('tells the time again where the guest took long to hear it', async () => {
    const bodies: Record<string, unknown>[] = [];
    await serve((_, body) => {
      bodies.push(JSON.parse(body));
      const until = performance.now() + (bodies.length < 3 ? 500 : 0);
      while (performance.now() < until);
      return 204;
    });
    await initGuest('cl-1', ADDRESS, SETTINGS, never);
    const first = bodies.slice(0, 3);
    expect(first.map((body) => body.keepConnections)).toEqual([undefined, true, true]);
    expect(first.map((body) => body.accessToken)).toEqual(['secret', undefined, undefined]);
  });

  it.each([
    [500, 'vm_start_failed'],
    [400, 'vm_start_failed'],
    [401, 'guest_protocol_error'],
    [404, 'guest_protocol_error'],
  ])('takes %i for a refusal', async (status, code) => {
    await serve(() => status);
    const init = initGuest('cl-1', ADDRESS, SETTINGS, never);
    await expect(init).rejects.toMatchObject({ code });
  });
});

describe('waitForGuest', () => {
  it('waits for a guest that is not there yet', async () => {
    const waiting = waitForGuest(ADDRESS, never);
    let up = false;
    setTimeout(() => {
      up = true;
      void serve(() => 204);
    }, 100);
    await waiting;
    expect(up).toBe(true);
  });

  it('ends by its signal, also while a guest takes the request and does not answer', async () => {
    await expect(waitForGuest(ADDRESS, AbortSignal.timeout(50))).rejects.toThrow(/timeout/);
    server = createServer(() => undefined);
    server.listen(ENVD_PORT, ADDRESS);
    await once(server, 'listening');
    await expect(waitForGuest(ADDRESS, AbortSignal.timeout(100))).rejects.toThrow(/abort|timeout/);
  });
});
