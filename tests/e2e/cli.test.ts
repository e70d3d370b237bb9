import { createHash, randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Platform, startPlatform } from './support/platform.ts';
import { wrenn as runWrenn, startWrenn } from './support/wrenn.ts';

let platform: Platform;
let env: Record<string, string>;
/** One capsule for all that does not change it for the others. */
let id: string;
let dir: string;

const wrenn = (args: readonly string[], input?: string | Uint8Array) => runWrenn(args, env, input);

async function listIds(): Promise<string[]> {
  return (await wrenn(['ls', '-q'])).stdout.split('\n').filter(Boolean);
}

beforeAll(async () => {
  platform = await startPlatform();
  env = { WRENN_DIR: platform.dir, WRENN_BASE_URL: platform.baseUrl, WRENN_API_KEY: platform.apiKey };
  dir = await mkdtemp(join(tmpdir(), 'wrenn-cli-e2e-'));
  const { stdout, stderr } = await wrenn(['create']);
  id = stdout.trim();
  expect(id, stderr).toMatch(/^cl-[0-9a-z]{25}$/);
});

afterAll(async () => {
  await platform?.[Symbol.asyncDispose]();
  if (dir) await rm(dir, { recursive: true, force: true });
});

describe('wrenn exec', () => {
  it('gives the exit code of the command', async () => {
    expect((await wrenn(['exec', id, '--', 'true'])).status).toBe(0);
    expect((await wrenn(['exec', id, '--', 'sh', '-c', 'exit 7'])).status).toBe(7);
    expect((await wrenn(['exec', id, '--', 'sh', '-c', 'kill -TERM $$'])).status).toBe(143);
  });

  it('keeps output and errors apart', async () => {
    const { stdout, stderr } = await wrenn(['exec', id, 'sh', '-c', 'echo out; echo err >&2']);
    expect({ stdout, stderr }).toEqual({ stdout: 'out\n', stderr: 'err\n' });
  });

  it('exits with 127 for a command that is not there, and says so', async () => {
    const { status, stderr } = await wrenn(['exec', id, '--', 'no-such-command']);
    expect(status).toBe(127);
    expect(stderr).toMatch(/no-such-command[^\n]*\n {2}→ Install/);
  });

  it('carries bytes of any kind in and out, unchanged', async () => {
    const bytes = randomBytes(3 * 1024 * 1024);
    const { bytes: back, status } = await wrenn(['exec', id, '--', 'cat'], bytes);
    expect(status).toBe(0);
    expect(back.equals(bytes)).toBe(true);
  });

  it('ends when the command does, however much input is left', async () => {
    const { child, result } = startWrenn(['exec', id, '--', 'head', '-c', '3'], env);
    child.stdin.write('abcdef');
    expect(await result).toMatchObject({ status: 0, stdout: 'abc' });
  });

  it('takes user, folder and environment', async () => {
    const options = ['--user', 'root', '--workdir', '/etc', '--env', 'A=1 2'];
    const { stdout } = await wrenn(['exec', ...options, id, '--', 'sh', '-c', 'echo "$(id -un) $PWD $A"']);
    expect(stdout).toBe('root /etc 1 2\n');
  });

  it('kills the command at its time limit', async () => {
    const { status } = await wrenn(['exec', '--limit', '1s', id, '--', 'sleep', '600']);
    expect(status).not.toBe(0);
    await until('the command is gone', 20_000, async () => {
      return (await wrenn(['exec', id, '--', 'pgrep', '-x', 'sleep'])).status === 1;
    });
  });

  it('passes the first Ctrl-C on to the command', async () => {
    const { child, result } = startWrenn(
      ['exec', id, '--', 'sh', '-c', "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done"],
      env,
    );
    child.stdout.once('data', () => child.kill('SIGINT'));
    expect(await result).toMatchObject({ status: 3, stdout: 'ready\ncaught\n' });
  });

  it('leaves a command that ignores Ctrl-C at the second one, and kills it', async () => {
    const script = "trap '' INT; echo ready; exec sleep 4242";
    const { child, result } = startWrenn(['exec', id, '--', 'sh', '-c', script], env);
    child.stdout.once('data', () => {
      // Apart: the system does not count signals that wait.
      const again = setInterval(() => child.kill('SIGINT') || clearInterval(again), 300);
    });
    expect(await result).toMatchObject({ status: 130, stdout: 'ready\n' });
    await until('the command is gone', 20_000, async () => {
      return (await wrenn(['exec', id, '--', 'pgrep', '-f', 'sleep 4242'])).status === 1;
    });
  });

  it('accepts the beginning of an id', async () => {
    expect((await wrenn(['exec', id.slice(3, 12), '--', 'echo', 'hi'])).stdout).toBe('hi\n');
    expect((await wrenn(['exec', 'zzzzzzzz', '--', 'true'])).stderr).toContain('There is no capsule zzzzzzzz.');
  });
});

describe('wrenn run', () => {
  it('prints what the command prints, and leaves no capsule', async () => {
    const before = await listIds();
    const { status, stdout } = await wrenn(['run', '--', 'python3', '-c', 'print(6*7)']);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '42\n' });
    expect((await wrenn(['run', '--', 'sh', '-c', 'exit 5'])).status).toBe(5);
    expect((await wrenn(['run', '--', 'no-such-command'])).status).toBe(127);
    expect(await listIds()).toEqual(before);
  });

  it('gives the capsule the environment and the shape that were asked for', async () => {
    const script = 'echo $NAME; grep MemTotal /proc/meminfo';
    const { stdout } = await wrenn(['run', '--memory', '256M', '-e', 'NAME=you', '--', 'sh', '-c', script]);
    const [name, memory] = stdout.split('\n');
    expect(name).toBe('you');
    expect(Number(/(\d+) kB/.exec(memory ?? '')?.[1])).toBeLessThan(256 * 1024);
  });

  it('keeps the capsule when it is asked to', async () => {
    const { stderr } = await wrenn(['run', '--keep', '--', 'true']);
    const kept = /kept (cl-\w+);/.exec(stderr)?.[1] ?? '';
    expect(await listIds()).toContain(kept);
    expect(await wrenn(['rm', kept])).toMatchObject({ status: 0, stdout: `${kept}\n` });
    expect(await listIds()).not.toContain(kept);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)(
    'destroys the capsule when %s ends it while the command runs',
    async (signal) => {
      const before = await listIds();
      const { child, result } = startWrenn(['run', '--', 'sh', '-c', 'echo ready; sleep 600'], env);
      child.stdout.once('data', () => child.kill(signal));
      expect((await result).status).toBe(signal === 'SIGINT' ? 130 : 143);
      expect(await listIds()).toEqual(before);
    },
  );

  it('destroys the capsule when Ctrl-C comes while it is being made', async () => {
    const before = await listIds();
    const { child, result } = startWrenn(['run', '--', 'sleep', '60'], env);
    await until('the capsule is being made', 30_000, async () => (await listIds()).length > before.length);
    child.kill('SIGINT');
    const { status, stdout } = await result;
    expect([status, stdout]).toEqual([130, '']);
    expect(await listIds()).toEqual(before);
  });
});

describe('wrenn cp', () => {
  const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

  it('carries 50 MB there and back', async () => {
    const [from, back] = [join(dir, 'fifty'), join(dir, 'fifty.back')];
    const content = randomBytes(50_000_000);
    await writeFile(from, content);
    expect(await wrenn(['cp', from, `${id}:/tmp/`])).toMatchObject({ status: 0 });
    const { stdout } = await wrenn(['exec', id, '--', 'sha256sum', '/tmp/fifty']);
    expect(stdout.split(' ')[0]).toBe(sha256(content));
    expect(await wrenn(['cp', `${id}:/tmp/fifty`, back])).toMatchObject({ status: 0 });
    expect(sha256(await readFile(back))).toBe(sha256(content));
    await wrenn(['exec', id, '--', 'rm', '/tmp/fifty']);
  });

  it('carries folders there and back, with links and modes', async () => {
    const source = join(dir, 'tree');
    await mkdir(join(source, 'deep', 'er'), { recursive: true });
    await writeFile(join(source, 'deep', 'er', 'a file'), 'content');
    await writeFile(join(source, 'run.sh'), '#!/bin/sh\necho ran\n', { mode: 0o755 });
    expect(await wrenn(['cp', source, `${id}:made/here`])).toMatchObject({ status: 0 });
    await wrenn(['exec', id, '--', 'sh', '-c', 'cd made/here && ln -s run.sh link']);
    expect((await wrenn(['exec', id, '--', './made/here/link'])).stdout).toBe('ran\n');

    const back = join(dir, 'tree.back');
    expect(await wrenn(['cp', `${id}:made/here`, back])).toMatchObject({ status: 0 });
    expect((await readdir(back, { recursive: true })).sort()).toEqual([
      'deep',
      'deep/er',
      'deep/er/a file',
      'link',
      'run.sh',
    ]);
    expect((await stat(join(back, 'run.sh'))).mode & 0o777).toBe(0o755);

    const again = await wrenn(['cp', `${id}:made/here`, back]);
    expect(again).toMatchObject({ status: 0 });
    expect(await readdir(back)).toContain('here');
    const refused = await wrenn(['cp', `${id}:made/here`, back]);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain('exists already');
    expect(await wrenn(['cp', '--force', `${id}:made/here`, back])).toMatchObject({ status: 0 });
  });

  it('keeps a script executable', async () => {
    const script = join(dir, 'tool');
    await writeFile(script, '#!/bin/sh\necho tool\n', { mode: 0o755 });
    await wrenn(['cp', script, `${id}:tool`]);
    expect((await wrenn(['exec', id, '--', './tool'])).stdout).toBe('tool\n');
    await wrenn(['cp', `${id}:tool`, join(dir, 'tool.back')]);
    expect((await stat(join(dir, 'tool.back'))).mode & 0o111).not.toBe(0);
  });

  it('copies from and to pipes', async () => {
    expect(await wrenn(['cp', '-', `${id}:piped`], 'through a pipe')).toMatchObject({ status: 0 });
    expect((await wrenn(['cp', `${id}:piped`, '-'])).stdout).toBe('through a pipe');
  });

  it.each([
    [
      'a guest file that is not there',
      () => [`${id}:nothing`, '.'],
      'There is no file or directory /home/user/nothing',
    ],
    ['a local file that is not there', () => [join(dir, 'nothing'), `${id}:`], 'does not exist'],
    ['a folder that the user may not make', () => [join(dir, 'tree'), `${id}:/etc/tree`], 'unpack into /etc/tree: '],
    ['a device', () => [`${id}:/dev/null`, '.'], 'neither a file nor a folder'],
    ['a capsule that is not there', () => ['x', 'zzzzzzzz:x'], 'There is no capsule'],
  ])('says what is wrong with %s', async (_, args, message) => {
    const { status, stderr, stdout } = await wrenn(['cp', ...args()]);
    expect(status).toBe(1);
    expect(stderr).toContain(message);
    expect(stdout).toBe('');
  });

  it('leaves nothing behind when it is interrupted', async () => {
    await wrenn(['exec', id, '--', 'truncate', '-s', '1G', 'huge']);
    const target = join(dir, 'interrupted');
    await mkdir(target);
    const { child, result } = startWrenn(['cp', `${id}:huge`, target], env);
    await until('the copy has begun', 30_000, async () => {
      const [partial] = await readdir(target);
      return partial !== undefined && (await stat(join(target, partial))).size > 0;
    });
    child.kill('SIGINT');
    expect((await result).status).toBe(130);
    expect(await readdir(target)).toEqual([]);
  });
});

describe('listings', () => {
  it('shows capsules as a table and as JSON', async () => {
    const table = (await wrenn(['ls'])).stdout.split('\n');
    expect(table[0]).toMatch(/^ID +STATUS +TEMPLATE +VCPUS +MEMORY +AGE$/);
    expect(table[1]).toMatch(new RegExp(`^${id} +running +minimal +1 +512 MiB +\\d+[smh]$`));
    const capsules = JSON.parse((await wrenn(['ls', '--json'])).stdout) as { id: string; status: string }[];
    expect(capsules).toContainEqual(expect.objectContaining({ id, status: 'running', memory_mb: 512 }));
  });

  it('shows the commands that run in a capsule', async () => {
    const { child, result } = startWrenn(['exec', id, '--', 'sh', '-c', 'echo ready; sleep 600'], env);
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect((await wrenn(['ps', id])).stdout).toMatch(/PID +TAG +COMMAND\n *\d+ +\S+ +.*sh -c echo ready; sleep 600/);
    const [process] = JSON.parse((await wrenn(['ps', '--json', id])).stdout) as { pid: number }[];
    expect(process?.pid).toBeGreaterThan(1);
    child.kill('SIGTERM');
    expect((await result).status).toBe(143);
  });

  it('prints the console', async () => {
    const { status, stdout, stderr } = await wrenn(['logs', id]);
    expect(status).toBe(0);
    expect(stdout + stderr).not.toBe('');
  });

  it('removes several, by the beginning of their ids, and tells of those that are not there', async () => {
    const made = await Promise.all([wrenn(['create']), wrenn(['create'])]);
    const [first = '', second = ''] = made.map(({ stdout }) => stdout.trim());
    const none = await wrenn(['rm', first.slice(0, 14), 'zzzzzzzz']);
    expect(none.status).toBe(1);
    expect(await listIds()).toEqual(expect.arrayContaining([first, second]));
    const both = await wrenn(['rm', first.slice(0, 14), second]);
    expect(both.stdout.split('\n').filter(Boolean).sort()).toEqual([first, second].sort());
    expect(await listIds()).toEqual([id]);
  });
});
