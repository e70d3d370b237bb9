import { issueAuthority, issueLeaf } from '@wrenn/pki/issue';
import { afterEach, describe, expect, it } from 'vitest';
import { HttpReceiver, type Responder } from '../testing/http-receiver.ts';
import { Outbound, type OutboundOptions } from './outbound.ts';

const LOOPBACK = ['127.0.0.0/8'];
const stack: AsyncDisposable[] = [];
afterEach(async () => {
  for (const each of stack.splice(0)) await each[Symbol.asyncDispose]();
});

async function receiver(respond?: Responder): Promise<HttpReceiver> {
  const started = await HttpReceiver.start(respond);
  stack.push(started);
  return started;
}

function post(url: string, options: Partial<OutboundOptions> = {}) {
  const outbound = new Outbound({ allowedNetworks: [], timeoutMs: 15_000, ...options });
  return outbound.send({ method: 'POST', url, headers: { 'x-mine': '1' }, body: 'häl' }, AbortSignal.timeout(20_000));
}

describe('an allowed network', () => {
  it('is sent the request, and gives the answer', async () => {
    const target = await receiver((_request, response) => response.writeHead(201, { 'x-theirs': '2' }).end('taken'));
    const answer = await post(`${target.url}/a?b=c`, { allowedNetworks: LOOPBACK });
    expect(answer).toMatchObject({ status: 201, body: 'taken', headers: { 'x-theirs': '2' } });
    expect(target.received[0]).toMatchObject({ method: 'POST', path: '/a?b=c', body: 'häl' });
    expect(target.received[0]?.headers).toMatchObject({ 'x-mine': '1', 'content-length': '4' });
  });

  it('is reached by a name too, and with TLS only where the certificate is good', async () => {
    const authority = await issueAuthority(1);
    const leaf = await issueLeaf(authority, 'control-plane', [{ type: 'dns', value: 'receiver.test' }], 1);
    const tls = await HttpReceiver.start(undefined, { key: leaf.keyPem, cert: leaf.certPem });
    stack.push(tls);
    const options = { allowedNetworks: LOOPBACK, resolve: async () => ['127.0.0.1'] };
    const trusting = { ...options, ca: authority.certPem };
    await expect(post(`https://receiver.test:${tls.port}/`, options)).rejects.toThrow(/^TLS failed/);
    await expect(post(`https://other.test:${tls.port}/`, trusting)).rejects.toThrow(/^TLS failed/);
    expect(tls.received).toEqual([]);
    expect((await post(`https://receiver.test:${tls.port}/`, trusting)).status).toBe(204);
  });
});

describe('an address that is not public', () => {
  it.each([
    'http://127.0.0.1:PORT/',
    'http://127.1:PORT/',
    'http://0x7f000001:PORT/',
    'http://2130706433:PORT/',
    'http://[::ffff:127.0.0.1]:PORT/',
    'http://0.0.0.0:PORT/',
    'https://127.0.0.1:PORT/',
    'https://169.254.169.254/latest/meta-data',
    'https://[fe80::1]/',
    'https://[64:ff9b::7f00:1]:PORT/',
  ])('is not connected to: %s', async (url) => {
    const target = await receiver();
    await expect(post(url.replace('PORT', String(target.port)))).rejects.toThrow(/is not a public address/);
    expect(target.received).toEqual([]);
  });

  it('is not connected to when a name stands for it', async () => {
    const target = await receiver();
    const resolve = async () => ['127.0.0.1', '::1', '10.0.0.1'];
    await expect(post(`https://evil.test:${target.port}/`, { resolve })).rejects.toThrow(/is not a public address/);
    expect(target.received).toEqual([]);
  });

  it('is not connected to when a name stands for it the second time', async () => {
    const target = await receiver();
    const answers = [['127.0.0.1'], ['10.0.0.1'], ['127.0.0.1']];
    const asked: string[] = [];
    const outbound = new Outbound({
      allowedNetworks: LOOPBACK,
      resolve: async (hostname) => {
        asked.push(hostname);
        return answers.shift() ?? [];
      },
    });
    const send = () =>
      outbound.send(
        { method: 'POST', url: `http://rebinding.test:${target.port}/`, headers: {}, body: '' },
        AbortSignal.timeout(20_000),
      );
    expect((await send()).status).toBe(204);
    await expect(send()).rejects.toThrow(/is not a public address/);
    expect((await send()).status).toBe(204);
    // Each request asks anew, and once: what was judged is what is connected to.
    expect(asked).toHaveLength(3);
  });

  it('is not connected to although another address of the name is allowed', async () => {
    const target = await receiver();
    const resolve = async () => ['10.255.255.1', '127.0.0.1'];
    const answer = await post(`http://both.test:${target.port}/`, { resolve, allowedNetworks: LOOPBACK });
    expect(answer.status).toBe(204);
  });

  it('is not redirected to', async () => {
    const inner = await receiver();
    const outer = await receiver((_request, response) => response.writeHead(307, { location: inner.url }).end());
    expect((await post(outer.url, { allowedNetworks: LOOPBACK })).status).toBe(307);
    expect(inner.received).toEqual([]);
  });
});

describe('a public address', () => {
  const resolve = async () => ['203.0.113.1', '8.8.8.8'];

  it('is sent nothing without TLS', async () => {
    await expect(post('http://example.com/')).rejects.toThrow(/only https/);
    await expect(post('http://example.com/', { resolve, allowedNetworks: ['10.0.0.0/8'] })).rejects.toThrow(
      /only https/,
    );
  });

  it.each([22, 25, 80, 465])('is sent nothing at port %i', async (port) => {
    await expect(post(`https://example.com:${port}/`, { resolve })).rejects.toThrow(`port ${port} is not allowed`);
  });
});

describe('an answer', () => {
  it('is waited for no longer than 1 s, whether nothing or little by little comes', async () => {
    const silent = await receiver(() => undefined);
    const slow = await receiver((_request, response) => {
      response.writeHead(200);
      const drip = setInterval(() => response.write('.'), 50);
      response.once('close', () => clearInterval(drip));
    });
    for (const { url } of [silent, slow]) {
      await expect(post(url, { allowedNetworks: LOOPBACK, timeoutMs: 1000 })).rejects.toThrow('no answer within 1 s');
    }
  });

  it('is read no further than 16 KiB', async () => {
    const endless = await receiver((_request, response) => {
      response.writeHead(200);
      const more = () => {
        while (response.write(Buffer.alloc(65_536, 'x')));
      };
      response.on('drain', more);
      more();
    });
    const answer = await post(endless.url, { allowedNetworks: LOOPBACK });
    expect(answer.body).toHaveLength(16_384);
  });

  it('that does not come is told of in words', async () => {
    const gone = await HttpReceiver.start();
    const { url } = gone;
    await gone[Symbol.asyncDispose]();
    await expect(post(url, { allowedNetworks: LOOPBACK })).rejects.toThrow('the connection was refused');
    const resolve = async () => {
      throw Object.assign(new Error('getaddrinfo'), { code: 'ENOTFOUND' });
    };
    await expect(post('https://nowhere.test/', { resolve })).rejects.toThrow('the name is not known');
    const cut = await receiver((_request, response) => response.destroy());
    await expect(post(cut.url, { allowedNetworks: LOOPBACK })).rejects.toThrow('the connection was cut');
  });
});
