import { once } from 'node:events';
import { connect } from 'node:net';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());

/** Sends bytes as they are and reads until the server closes the connection. */
async function raw(text: string): Promise<{ status: number; headers: string; body: string }> {
  const socket = connect(Number(new URL(platform.baseUrl).port), '127.0.0.1');
  let received = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    received += chunk;
  });
  // Refused in the middle of what it sends it may be reset instead of ended.
  socket.on('error', () => undefined);
  socket.write(text);
  await once(socket, 'close');
  const [headers = '', body = ''] = received.split('\r\n\r\n');
  return { status: Number(headers.slice(9, 12)), headers: headers.toLowerCase(), body };
}

const request = (line: string, ...headers: string[]) =>
  `${[`${line} HTTP/1.1`, 'host: x', 'connection: close', ...headers].join('\r\n')}\r\n\r\n`;
const upgrade = (path: string, ...headers: string[]) =>
  `${[
    `GET ${path} HTTP/1.1`,
    'host: x',
    'connection: upgrade',
    'upgrade: websocket',
    'sec-websocket-version: 13',
    'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
  ].join('\r\n')}\r\n\r\n`;
const key = () => `x-api-key: ${platform.apiKey}`;
const CAPSULE = '/v1/capsules/cl-0000000000000000000000000';

describe('refusals have the form of the catalogue', () => {
  it.each([
    ['what is no HTTP', () => 'hello there\r\n\r\n', 400, 'invalid_request'],
    ['a header without a name', () => request('GET /health', ': x'), 400, 'invalid_request'],
    ['headers over the limit', () => request('GET /health', `x: ${'x'.repeat(20_000)}`), 431, 'headers_too_large'],
    ['two lengths', () => request('POST /health', 'content-length: 1', 'content-length: 2'), 400, 'invalid_request'],
    ['a malformed path', () => request('GET /v1/capsules/%zz', key()), 400, 'invalid_request'],
    ['a path of one long segment', () => request(`GET /v1/capsules/${'x'.repeat(300)}`, key()), 400, 'invalid_request'],
    ['an unknown path', () => request('GET /nowhere'), 404, 'not_found'],
    ['a method that a path does not have', () => request('PUT /v1/capsules', key()), 404, 'not_found'],
    ['OPTIONS', () => request('OPTIONS /v1/capsules'), 404, 'not_found'],
    ['TRACE', () => request('TRACE /v1/capsules'), 404, 'not_found'],
    ['an unknown method', () => request('NONSENSE /v1/capsules'), 400, 'invalid_request'],
    ['no credential', () => request('GET /v1/capsules'), 401, 'unauthorized'],
    ['an empty body of a length', () => request('POST /v1/capsules', key(), 'content-length: 0'), 201, undefined],
    [
      'a body of an unknown type',
      () => `${request('POST /v1/capsules', key(), 'content-type: text/x', 'content-length: 1')}x`,
      400,
      'invalid_request',
    ],
    [
      'a body of a broken encoding',
      () =>
        `${request('POST /v1/capsules', key(), 'content-type: application/json', 'transfer-encoding: chunked')}zz\r\n`,
      400,
      'invalid_request',
    ],
    ['a WebSocket nowhere', () => upgrade('/nowhere', 'connection: close'), 404, 'not_found'],
    ['a WebSocket of no capsule', () => upgrade(`${CAPSULE}/nowhere`, key()), 404, 'not_found'],
    ['a WebSocket with a wrong key', () => upgrade(`${CAPSULE}/pty`, 'x-api-key: wrong'), 401, 'unauthorized'],
  ])('for %s', async (_, make, status, reason) => {
    const answer = await raw(make());
    expect([answer.status, answer.body]).toEqual([status, expect.anything()]);
    if (reason === undefined) return;
    expect(errorResponseSchema.parse(JSON.parse(answer.body)).error.reason).toBe(reason);
    expect(answer.headers).toMatch(/\r\nx-request-id: /);
    expect(answer.headers).toMatch(/\r\ncontent-type: application\/json/);
    expect(answer.body).not.toMatch(/node_modules|\.ts:|at \w+ \(/);
  });

  it('for HEAD, which has no body', async () => {
    const answer = await raw(request('HEAD /nowhere'));
    expect([answer.status, answer.body]).toEqual([404, '']);
  });
});
