import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readProcess, startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';

const root = process.getuid?.() === 0;
const suffix = process.pid.toString(36);
const member = `wrm${suffix}`;
const loner = `wrl${suffix}`;
const groups = [`wrga${suffix}`, `wrgb${suffix}`] as const;
let envd: TestEnvd;

const basic = (user: string) => ({ headers: { Authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` } });

/** Needs root, which can add users; a guest's agent is root too. */
describe.runIf(root)('another user', () => {
  beforeAll(async () => {
    for (const group of groups) execFileSync('groupadd', [group]);
    execFileSync('useradd', ['-m', '-s', '/bin/sh', '-G', groups.join(), member]);
    execFileSync('useradd', ['-m', '-s', '/bin/sh', loner]);
    envd = await startTestEnvd();
  });

  afterAll(async () => {
    await envd[Symbol.asyncDispose]();
    for (const user of [member, loner]) execFileSync('userdel', ['-r', user], { stdio: 'ignore' });
    for (const group of groups) execFileSync('groupdel', [group]);
  });

  const run = (user: string, command: string, terminal = false) =>
    readProcess(
      envd.process.start(
        { process: { cmd: '/bin/sh', args: ['-c', command] }, ...(terminal ? { pty: {} } : {}) },
        basic(user),
      ),
    );

  it('has exactly its own groups, on pipes and on a terminal', async () => {
    const own = (user: string) => execFileSync('id', ['-Gn', user], { encoding: 'utf8' }).trim().split(' ').sort();
    for (const user of [member, loner]) {
      const onPipes = (await run(user, 'id -Gn')).stdout.trim().split(' ').sort();
      const onTerminal = (await run(user, 'id -Gn', true)).pty.trim().split(' ').sort();
      expect(onPipes).toEqual(own(user));
      expect(onTerminal).toEqual(own(user));
    }
    expect(own(member)).toEqual([member, ...groups].sort());
  });

  it('gets its own environment, home and identity, with nothing of root left', async () => {
    const report = await run(member, 'echo $HOME $USER $LOGNAME; pwd; grep -E "^(Uid|Gid|CapEff)" /proc/self/status');
    const lines = report.stdout.trim().split('\n');
    expect(lines.slice(0, 2)).toEqual([`/home/${member} ${member} ${member}`, `/home/${member}`]);
    const { uid, gid } = statSync(`/home/${member}`);
    expect(lines[2]).toBe(`Uid:\t${uid}\t${uid}\t${uid}\t${uid}`);
    expect(lines[3]).toBe(`Gid:\t${gid}\t${gid}\t${gid}\t${gid}`);
    expect(lines[4]).toMatch(/0000000000000000$/);
  });

  it('owns its terminal', async () => {
    expect((await run(member, 'stat -c %U $(tty)', true)).pty.trim()).toBe(member);
    expect((await run(member, 'exit 6', true)).end?.exitCode).toBe(6);
  });

  it('gets a clear error for a command that is not there, though a helper switches the user', async () => {
    const start = envd.process.start({ process: { cmd: 'no-such-command' } }, basic(member));
    await expect(readProcess(start)).rejects.toMatchObject({ code: Code.NotFound });
  });

  it('is signalled as a group', async () => {
    const report = await run(member, 'sleep 1000 & kill -KILL 0');
    expect(report.end).toMatchObject({ exited: false, signal: 9 });
  });

  it('can be made the default, and changed again, by /init', async () => {
    const whoami = async () => (await readProcess(envd.process.start({ process: { cmd: 'whoami' } }))).stdout.trim();
    expect(await whoami()).toBe('root');
    await envd.init({ defaultUser: member });
    expect(await whoami()).toBe(member);
    await envd.init({ defaultUser: loner });
    expect(await whoami()).toBe(loner);
    await envd.init({ defaultUser: 'root' });
  });

  it('owns the directories and files that are made for it', async () => {
    await envd.files.makeDir({ path: 'made/deep' }, basic(member));
    const { entry } = await envd.files.stat({ path: '~/made/deep' }, basic(member));
    expect(entry).toMatchObject({ path: `/home/${member}/made/deep`, owner: member, group: member });
    const response = await fetch(`${envd.url}/files?username=${member}&path=made/new/file.txt`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/octet-stream' },
      body: 'text',
    });
    expect(await response.json()).toEqual([
      { path: `/home/${member}/made/new/file.txt`, name: 'file.txt', type: 'file' },
    ]);
    for (const path of ['made/new', 'made/new/file.txt']) {
      expect((await envd.files.stat({ path }, basic(member))).entry).toMatchObject({ owner: member, group: member });
    }
  });

  it('must exist', async () => {
    const start = envd.process.start({ process: { cmd: 'true' } }, basic('nobody-of-that-name'));
    await expect(readProcess(start)).rejects.toMatchObject({
      code: Code.Unauthenticated,
      message: expect.stringContaining('There is no user nobody-of-that-name'),
    });
    expect((await fetch(`${envd.url}/files?path=/etc/passwd&username=nobody-of-that-name`)).status).toBe(401);
  });
});
