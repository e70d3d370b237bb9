import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { WrennError } from '@wrenn/protocol/errors';
import { toRestError } from '@wrenn/protocol/rest/error';
import { afterEach, describe, expect, it } from 'vitest';
import { LineWriter } from '../demo/line-writer.ts';
import { freeAddresses } from '../up/addresses.ts';
import { createApiClient } from './client.ts';
import { execStreaming } from './exec-stream.ts';

const { signal } = new AbortController();
let close: (() => void) | undefined;
afterEach(() => close?.());

/** A server that is not, or not quite, what the client expects. */
async function serve(listener: RequestListener): Promise<ReturnType<typeof createApiClient>> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  close = () => server.close().closeAllConnections();
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  return createApiClient({ baseUrl: `http://127.0.0.1:${port}`, credential: 'wrn_test' });
}

describe('createApiClient', () => {
  it('sends the key, and tells errors of the catalogue with their remedy', async () => {
    let key: unknown;
    const api = await serve((request, response) => {
      key = request.headers.authorization;
      const error = new WrennError('no_hosts_available', { problem: 'all are full' });
      response.writeHead(503).end(JSON.stringify({ error: toRestError(error, 'req-1') }));
    });
    await expect(api.createCapsule({}, signal)).rejects.toMatchObject({
      message: 'No host has room for this capsule: all are full',
      remedy: expect.stringContaining('add a host'),
      reason: 'no_hosts_available',
    });
    expect(key).toBe('Bearer wrn_test');
  });

  it('gives the request id of what went wrong inside', async () => {
    const api = await serve((_request, response) => {
      response.writeHead(500).end(JSON.stringify({ error: toRestError(new WrennError('internal_error'), 'req-42') }));
    });
    await expect(api.listCapsules(signal)).rejects.toMatchObject({ remedy: expect.stringContaining('req-42') });
  });

  it('says so when something else than Wrenn answers', async () => {
    const api = await serve((_request, response) => {
      response.writeHead(502, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>');
    });
    const message = /answered with status 502, in a form that is not Wrenn's/;
    await expect(api.listCapsules(signal)).rejects.toThrow(message);
    const output = new LineWriter(() => undefined);
    const exec = execStreaming(api, 'cl-x', { cmd: 'true', stdout: output, stderr: output }, signal);
    await expect(exec).rejects.toThrow(message);
  });

  it('reads a list over all its pages', async () => {
    const asked: (string | undefined)[] = [];
    const api = await serve((request, response) => {
      asked.push(request.url);
      const isLast = request.url?.includes('cursor=');
      response.writeHead(200, isLast ? {} : { 'x-next-cursor': 'a+b' }).end('[]');
    });
    await api.listCapsules(signal, 'all');
    expect(asked).toEqual(['/v1/capsules?status=all', '/v1/capsules?status=all&cursor=a%2Bb']);
  });

  it('says so when the answer has another shape', async () => {
    const api = await serve((_request, response) => void response.end('[{"id":1}]'));
    await expect(api.listCapsules(signal)).rejects.toThrow('is not what this version of wrenn understands');
  });

  it('says where it looked when nothing listens there', async () => {
    const { api: address } = await freeAddresses();
    const api = createApiClient({ baseUrl: `http://127.0.0.1:${address.port}`, credential: '' });
    const output = new LineWriter(() => undefined);
    for (const call of [
      () => api.listCapsules(signal),
      () => execStreaming(api, 'cl-x', { cmd: 'true', stdout: output, stderr: output }, signal),
    ]) {
      await expect(call()).rejects.toMatchObject({
        message: `The API at http://127.0.0.1:${address.port} cannot be reached: nothing listens there.`,
        remedy: expect.stringContaining('wrenn up'),
      });
    }
  });

  it('ends when it is told to', async () => {
    const api = await serve(() => undefined);
    const stop = new AbortController();
    const call = api.listCapsules(stop.signal);
    stop.abort(new Error('Ctrl-C'));
    await expect(call).rejects.toThrow('Ctrl-C');
  });
});
