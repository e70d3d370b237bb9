import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { baseUrlOf, checkAddressFree, formatListenAddress, freeAddresses, readAddresses } from './addresses.ts';

describe('readAddresses', () => {
  it('keeps the agent on this machine unless told otherwise', () => {
    expect(readAddresses({})).toEqual({
      api: { host: undefined, port: 8000 },
      agent: { host: '127.0.0.1', port: 50_051 },
      agentUrl: 'https://127.0.0.1:50051',
    });
  });

  it('calls the agent where it listens', () => {
    expect(readAddresses({ WRENN_HOST_LISTEN_ADDR: ':6000' }).agentUrl).toBe('https://127.0.0.1:6000');
    expect(readAddresses({ WRENN_HOST_LISTEN_ADDR: '[::1]:6000' }).agentUrl).toBe('https://[::1]:6000');
    expect(readAddresses({ CP_HOST_AGENT_ADDR: 'https://host:1' }).agentUrl).toBe('https://host:1');
  });
});

it.each([
  [':8000', 'http://127.0.0.1:8000'],
  ['127.0.0.1:1', 'http://127.0.0.1:1'],
  ['0.0.0.0:2', 'http://127.0.0.1:2'],
  ['[::1]:3', 'http://[::1]:3'],
])('%s is reached at %s', (text, url) => {
  const { api } = readAddresses({ WRENN_CP_LISTEN_ADDR: text });
  expect(baseUrlOf(api)).toBe(url);
  expect(formatListenAddress(api)).toBe(text);
});

describe('checkAddressFree', () => {
  it('passes for a free address and leaves it free', async () => {
    const { api } = await freeAddresses();
    await checkAddressFree(api, 'The API', 'WRENN_CP_LISTEN_ADDR');
    await checkAddressFree(api, 'The API', 'WRENN_CP_LISTEN_ADDR');
  });

  it('names the variable to change when the address is taken', async () => {
    const { api } = await freeAddresses();
    const server = createServer().listen(api.port, '127.0.0.1');
    await once(server, 'listening');
    const check = checkAddressFree(api, 'The API', 'WRENN_CP_LISTEN_ADDR');
    await expect(check).rejects.toMatchObject({
      message: `The API cannot listen on 127.0.0.1:${api.port}: another program listens there.`,
      remedy: expect.stringContaining('WRENN_CP_LISTEN_ADDR'),
    });
    server.close();
  });
});
