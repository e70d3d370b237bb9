import { once } from 'node:events';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { issueAuthority, issueLeaf, type KeyPair, readCertificate } from './issue.ts';
import { ensureLocalPki } from './local-pki.ts';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-pki-'));
});
afterEach(() => rm(root, { recursive: true }));

/** The role that the server saw, or the error that ended the handshake. */
async function handshake(server: KeyPair, client: KeyPair | undefined, caCertPem: string): Promise<string> {
  const listener = createServer({
    cert: server.certPem,
    key: server.keyPem,
    ca: caCertPem,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
  });
  const seen = new Promise<string>((resolve) => {
    listener.on('secureConnection', (socket: TLSSocket) => {
      const raw = socket.getPeerCertificate().raw;
      resolve(readCertificate(Uint8Array.from(raw)).role ?? 'no role');
      socket.end();
    });
    listener.on('tlsClientError', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const socket = connect({
    port: (listener.address() as AddressInfo).port,
    host: '127.0.0.1',
    ca: caCertPem,
    ...(client ? { cert: client.certPem, key: client.keyPem } : {}),
  });
  socket.on('error', () => {
    // The server's view is what counts.
  });
  try {
    return await seen;
  } finally {
    socket.destroy();
    listener.close();
  }
}

describe('ensureLocalPki', () => {
  it('makes certificates that authenticate both ends by role', async () => {
    const pki = await ensureLocalPki(root);
    expect(await handshake(pki.agent, pki.controlPlane, pki.caCertPem)).toBe('control-plane');
    expect(await handshake(pki.agent, pki.agent, pki.caCertPem)).toBe('agent');
    expect(await handshake(pki.agent, undefined, pki.caCertPem)).toMatch(/CERTIFICATE/);
  });

  it('refuses a certificate of another authority', async () => {
    const pki = await ensureLocalPki(root);
    const other = await issueLeaf(await issueAuthority(1), 'control-plane', [], 1);
    expect(await handshake(pki.agent, other, pki.caCertPem)).not.toBe('control-plane');
  });

  it('gives the same again, in files that only the owner reads', async () => {
    const first = await ensureLocalPki(root);
    expect(await ensureLocalPki(root)).toEqual(first);
    expect((await readdir(join(root, 'pki'))).sort()).toEqual(['agent.pem', 'ca.pem', 'control-plane.pem']);
    for (const name of await readdir(join(root, 'pki'))) {
      expect((await stat(join(root, 'pki', name))).mode & 0o777, name).toBe(0o600);
    }
  });

  it('ends with one authority when many start at the same instant', async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => ensureLocalPki(root)));
    expect(new Set(all.map((pki) => pki.caCertPem)).size).toBe(1);
    const [first, ...others] = all;
    for (const other of others) {
      expect(await handshake(first?.agent ?? other.agent, other.controlPlane, other.caCertPem)).toBe('control-plane');
    }
  });

  it('renews certificates near their end, and an authority so that earlier certificates stay good', async () => {
    const before = await ensureLocalPki(root);
    const caPath = join(root, 'pki', 'ca.pem');
    const caKey = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n/.exec(
      await readFile(caPath, 'utf8'),
    )?.[0];
    const oldCa = await issueAuthority(10, caKey);
    await writeFile(caPath, `${oldCa.certPem}${oldCa.keyPem}`);
    const oldAgent = await issueLeaf(oldCa, 'agent', [{ type: 'dns', value: 'localhost' }], 300);
    await writeFile(join(root, 'pki', 'agent.pem'), `${oldAgent.certPem}${oldAgent.keyPem}`);
    const after = await ensureLocalPki(root);
    expect(after.caCertPem).not.toBe(oldCa.certPem);
    expect(readCertificate(after.caCertPem).notAfter.getTime()).toBeGreaterThan(Date.now() + 3000 * 86_400_000);
    expect(after.agent.certPem).not.toBe(oldAgent.certPem);
    expect(after.controlPlane).toEqual(before.controlPlane);
    expect(await handshake(after.agent, before.controlPlane, after.caCertPem)).toBe('control-plane');
  });

  it('reissues when the authority was replaced', async () => {
    const before = await ensureLocalPki(root);
    await rm(join(root, 'pki', 'ca.pem'));
    const after = await ensureLocalPki(root);
    expect(after.agent).not.toEqual(before.agent);
    expect(await handshake(after.agent, after.controlPlane, after.caCertPem)).toBe('control-plane');
  });

  it('names a damaged file instead of replacing it', async () => {
    await ensureLocalPki(root);
    const path = join(root, 'pki', 'ca.pem');
    await writeFile(path, 'x');
    await chmod(path, 0o600);
    await expect(ensureLocalPki(root)).rejects.toThrow(path);
  });
});
