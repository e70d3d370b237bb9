import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Code, type ConnectError } from '@connectrpc/connect';
import { EventType, type FilesystemEvent } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startChildEnvd } from '../testing/child-envd.ts';
import { createClients, startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';

let envd: TestEnvd;
let count = 0;

beforeAll(async () => {
  envd = await startTestEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

function newDirectory(): string {
  const path = join(envd.directory, `watched-${count++}`);
  mkdirSync(path);
  return path;
}

/** A watch stream, and what it has told so far, as "kind name". */
async function watch(request: { path: string; recursive?: boolean; includeEntry?: boolean }) {
  const abort = new AbortController();
  const stream = envd.files.watchDir(request, { signal: abort.signal })[Symbol.asyncIterator]();
  const first = await stream.next();
  expect(first.value?.event.case).toBe('start');
  const events: FilesystemEvent[] = [];
  const told = () => events.map(describeEvent);
  const failed = (async () => {
    for await (const { event } of { [Symbol.asyncIterator]: () => stream }) {
      if (event.case === 'filesystem') events.push(event.value);
    }
  })().catch((error: ConnectError) => error);
  return {
    ...{ events, told, failed },
    stop: () => abort.abort(),
    tells: (...expected: string[]) =>
      until(`the watch tells ${expected.join(', ')}; it told ${told().join(', ')}`, () =>
        expected.every((one) => told().includes(one)),
      ),
  };
}

function describeEvent({ type, name }: FilesystemEvent): string {
  return `${EventType[type].toLowerCase()} ${name}`;
}

describe('WatchDir', () => {
  it('tells each kind of change, in order', async () => {
    const path = newDirectory();
    const { told, tells, stop } = await watch({ path });
    writeFileSync(join(path, 'a'), 'text');
    chmodSync(join(path, 'a'), 0o600);
    renameSync(join(path, 'a'), join(path, 'b'));
    rmSync(join(path, 'b'));
    await tells('remove b');
    expect(told()).toEqual(['create a', 'write a', 'chmod a', 'rename a', 'create b', 'remove b']);
    stop();
  });

  it('tells nothing of subdirectories unless that is asked for', async () => {
    const path = newDirectory();
    mkdirSync(join(path, 'sub'));
    const { told, tells, stop } = await watch({ path });
    writeFileSync(join(path, 'sub/inner'), 'x');
    writeFileSync(join(path, 'outer'), '');
    await tells('create outer');
    expect(told()).toEqual(['create outer']);
    stop();
  });

  it('watches subdirectories that are there, that come, that are moved in, and no longer those moved out', async () => {
    const path = newDirectory();
    const outside = newDirectory();
    mkdirSync(join(path, 'old/deep'), { recursive: true });
    mkdirSync(join(outside, 'in/deep'), { recursive: true });
    writeFileSync(join(outside, 'in/deep/file'), 'x');
    const { told, tells, stop } = await watch({ path, recursive: true });
    writeFileSync(join(path, 'old/deep/1'), 'x');
    await tells('write old/deep/1');
    mkdirSync(join(path, 'new/deep'), { recursive: true });
    writeFileSync(join(path, 'new/deep/2'), 'x');
    await tells('create new', 'create new/deep', 'create new/deep/2', 'write new/deep/2');
    expect(new Set(told()).size).toBe(told().length);
    renameSync(join(outside, 'in'), join(path, 'in'));
    await tells('create in', 'create in/deep', 'create in/deep/file');
    renameSync(join(path, 'old'), join(path, 'renamed'));
    await tells('rename old', 'create renamed');
    writeFileSync(join(path, 'renamed/deep/3'), 'x');
    await tells('write renamed/deep/3');
    renameSync(join(path, 'renamed'), join(outside, 'renamed'));
    await tells('rename renamed');
    writeFileSync(join(outside, 'renamed/deep/4'), 'x');
    rmSync(join(path, 'new'), { recursive: true });
    await tells('remove new/deep', 'remove new');
    expect(told().some((event) => event.includes('/4'))).toBe(false);
    stop();
  });

  it('tells what is quickly put into new directories once, whoever was first', async () => {
    const path = newDirectory();
    const { told, tells, stop } = await watch({ path, recursive: true });
    for (let index = 0; index < 30; index++) {
      mkdirSync(join(path, `d${index}/e`), { recursive: true });
      writeFileSync(join(path, `d${index}/e/f`), 'x');
    }
    await tells(...Array.from({ length: 30 }, (_, index) => `create d${index}/e/f`));
    const creations = told().filter((event) => event.startsWith('create'));
    expect(creations.length).toBe(90);
    stop();
  });

  it('tells what another program quickly puts into new directories once', async () => {
    const path = newDirectory();
    const { told, tells, stop } = await watch({ path, recursive: true });
    const rounds = 150;
    const script = `for i in $(seq ${rounds}); do mkdir -p d$i/e/f; echo >d$i/e/f/g; done; echo >end`;
    await promisify(execFile)('/bin/sh', ['-c', script], { cwd: path });
    await tells('create end');
    const creations = told().filter((event) => event.startsWith('create'));
    expect(new Set(creations).size).toBe(4 * rounds + 1);
    expect(creations.length).toBe(4 * rounds + 1);
    stop();
  });

  it('carries the entry where that is asked for and it is still there', async () => {
    const path = newDirectory();
    const { events, tells, stop } = await watch({ path, includeEntry: true });
    writeFileSync(join(path, 'a'), 'text');
    await tells('write a');
    rmSync(join(path, 'a'));
    await tells('remove a');
    expect(events.find((event) => event.type === EventType.WRITE)?.entry).toMatchObject({
      path: join(path, 'a'),
      size: 4n,
    });
    expect(events.find((event) => event.type === EventType.REMOVE)?.entry).toBeUndefined();
    stop();
  });

  it('tells an upload as the writing of a file', async () => {
    const path = newDirectory();
    const { told, tells, stop } = await watch({ path });
    const upload = (body: string) =>
      fetch(`${envd.url}/files?path=${path}/up.txt`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/octet-stream' },
        body,
      });
    await upload('one');
    await tells('write up.txt');
    await upload('two');
    await until('the second write is told', () => told().length === 3);
    expect(told()).toEqual(['create up.txt', 'write up.txt', 'write up.txt']);
    stop();
  });

  it('gives every watch of the same directory its own events', async () => {
    const path = newDirectory();
    const one = await watch({ path });
    const two = await watch({ path, recursive: true });
    one.stop();
    await one.failed;
    writeFileSync(join(path, 'a'), '');
    await two.tells('create a');
    two.stop();
  });

  it('tells the end of the watched directory itself', async () => {
    const path = newDirectory();
    const { tells, stop } = await watch({ path });
    rmSync(path, { recursive: true });
    await tells('remove .');
    stop();
  });

  it('refuses files and what is not there', async () => {
    const first = (path: string) => envd.files.watchDir({ path })[Symbol.asyncIterator]().next();
    await expect(first('/etc/passwd')).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(first('/no/such/directory')).rejects.toMatchObject({ code: Code.NotFound });
  });

  it('sends keepalives', async () => {
    const stream = envd.files.watchDir({ path: newDirectory() }, { headers: { 'Keepalive-Ping-Interval': '0.1' } });
    const seen: (string | undefined)[] = [];
    for await (const { event } of stream) {
      seen.push(event.case);
      if (seen.length === 3) break;
    }
    expect(seen).toEqual(['start', 'keepalive', 'keepalive']);
  });
});

describe('watchers that are polled', () => {
  it('give each event once', async () => {
    const path = newDirectory();
    const { watcherId } = await envd.files.createWatcher({ path });
    const poll = async () => (await envd.files.getWatcherEvents({ watcherId })).events.map(describeEvent);
    expect(await poll()).toEqual([]);
    writeFileSync(join(path, 'a'), 'x');
    expect(await poll()).toEqual(['create a', 'write a']);
    expect(await poll()).toEqual([]);
    await envd.files.removeWatcher({ watcherId });
    await expect(poll()).rejects.toMatchObject({ code: Code.NotFound });
    await expect(envd.files.removeWatcher({ watcherId })).rejects.toMatchObject({ code: Code.NotFound });
  });

  it('report that events were lost, and are never silent about it', async () => {
    const path = newDirectory();
    const { watcherId } = await envd.files.createWatcher({ path });
    for (let index = 0; index < 9000; index++) {
      writeFileSync(join(path, 'a'), 'x');
      rmSync(join(path, 'a'));
    }
    const poll = () => envd.files.getWatcherEvents({ watcherId });
    const failure = await until('the loss is reported', () =>
      poll()
        .then(() => undefined)
        .catch((error: ConnectError) => error),
    );
    expect(failure).toMatchObject({ code: Code.DataLoss, message: expect.stringContaining('events were lost') });
    await expect(poll()).rejects.toMatchObject({ code: Code.DataLoss });
  });
});

describe('an envd that watches', () => {
  it('ends when it is told to', async () => {
    await using child = await startChildEnvd();
    const { files } = createClients(child.url);
    await files.createWatcher({ path: envd.directory, recursive: true });
    await child[Symbol.asyncDispose]();
    expect(child.child.exitCode).toBe(0);
  });
});
