import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { HIDE_PROFILES } from '@wrenn/testing/hide-profiles';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startChildEnvd } from '../testing/child-envd.ts';
import { createClients, readProcess, shell } from '../testing/test-envd.ts';
import { bundleEnvd } from './bundle.ts';

let directory: string;

beforeAll(async () => {
  // Outside the workspace, so that no node_modules can help.
  directory = mkdtempSync(join(tmpdir(), 'wrenn-envd-bundle-'));
  const { version } = await bundleEnvd(join(directory, 'envd'));
  expect(version).toMatch(/^\d+\.\d+\.\d+$/);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const program = () => join(directory, 'envd/main.mjs');

describe('the bundle', () => {
  it('runs alone, on pipes and on a terminal, with files and watches', async () => {
    await using envd = await startChildEnvd({ program: program() });
    const { process, files } = createClients(envd.url);
    expect(await readProcess(process.start(shell('echo on pipes')))).toMatchObject({ stdout: 'on pipes\n' });
    expect(await readProcess(process.start({ ...shell('tty'), pty: {} }))).toMatchObject({
      pty: expect.stringMatching(/^\/dev\/pts\/\d+\r\n$/),
    });
    const { watcherId } = await files.createWatcher({ path: directory });
    const form = new FormData();
    form.append('file', new Blob(['content']), join(directory, 'uploaded'));
    expect((await fetch(`${envd.url}/files`, { method: 'POST', body: form })).status).toBe(200);
    expect((await files.getWatcherEvents({ watcherId })).events.map(({ name }) => name)).toContain('uploaded');
  });
});

/** A guest's surroundings on this machine: a host name, an /etc and a /var/lib of its own. Needs root for them. */
const GUEST = [
  'unshare',
  '--uts',
  '--mount',
  'sh',
  '-ec',
  [
    'mount -t tmpfs tmpfs /var/lib; cp -a /etc /var/lib/etc || true; mount --bind /var/lib/etc /etc',
    HIDE_PROFILES,
    'exec "$@"',
  ].join('\n'),
  'sh',
];

describe.runIf(process.getuid?.() === 0)('the bundle as a guest’s agent', () => {
  it('sets the host name and entropy, warms up for a snapshot, and keeps its own PATH to itself', async () => {
    const own = hostname();
    await using envd = await startChildEnvd({
      program: program(),
      args: ['--guest', '--host', '127.0.0.1'],
      wrap: GUEST,
    });
    expect((await fetch(`${envd.url}/snapshot/prepare`, { method: 'POST' })).status).toBe(204);
    const init = await fetch(`${envd.url}/init`, {
      method: 'POST',
      body: JSON.stringify({
        accessToken: 'secret',
        hostname: 'capsule-7',
        entropy: Buffer.alloc(32, 3).toString('base64'),
      }),
    });
    expect(init.status).toBe(204);
    expect(init.headers.get('wrenn-skipped')).toBeNull();
    const command = 'uname -n; cat /etc/hostname; grep 127.0.1.1 /etc/hosts; echo $PATH $WRENN_SANDBOX';
    const report = await readProcess(
      createClients(envd.url).process.start(shell(command), { headers: { 'X-Access-Token': 'secret' } }),
    );
    expect(report.stdout.split('\n')).toEqual([
      'capsule-7',
      'capsule-7',
      '127.0.1.1 capsule-7',
      '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin true',
      '',
    ]);
    // Where this machine lets an agent lower its score, it does so, and what it starts does not inherit that.
    const score = (pid: number | 'self' | undefined) => readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8').trim();
    const child = await readProcess(
      createClients(envd.url).process.start(shell('cat /proc/self/oom_score_adj'), {
        headers: { 'X-Access-Token': 'secret' },
      }),
    );
    expect([`-900 100`, `${score('self')} ${score('self')}`]).toContain(
      `${score(envd.child.pid)} ${child.stdout.trim()}`,
    );
    expect(hostname()).toBe(own);
  });
});
