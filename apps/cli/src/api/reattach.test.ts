import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { TestPlatform } from '@wrenn/control-plane/testing/test-platform';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { createApiClient } from './client.ts';
import { execStreaming, followProcess } from './exec-stream.ts';
import { openPty } from './pty.ts';

let platform: TestPlatform;
let id: string;
const sockets = new Set<WebSocket>();

beforeAll(async () => {
  platform = await TestPlatform.start();
  id = await platform.createCapsule();
});
afterAll(() => platform[Symbol.asyncDispose]());

/** The platform's address changes with each start of its control plane; in between nothing listens at it. */
const connection = {
  get baseUrl() {
    return platform.baseUrl.replace('undefined', '1');
  },
  get credential() {
    return platform.apiKey;
  },
};
const api = createApiClient(connection);
const never = new AbortController().signal;

/** Numbered lines of odd lengths on both outputs, for a few seconds; then the exit code 7. */
const LINES = 6000;
const WRITER = `
let i = 0;
const timer = setInterval(() => {
  for (let k = 0; k < 20; k++, i++) {
    if (i === ${LINES}) { clearInterval(timer); process.exitCode = 7; return; }
    (i % 3 ? process.stdout : process.stderr).write(i + ' ' + 'x'.repeat(i * 7919 % 300) + '\\n');
  }
}, 10);`;

function expectedLines(isStderr: boolean): string {
  const lines = Array.from({ length: LINES }, (_, i) => [i, `${i} ${'x'.repeat((i * 7919) % 300)}\n`] as const);
  return lines.flatMap(([i, line]) => ((i % 3 === 0) === isStderr ? [line] : [])).join('');
}

const pause = () => platform.call(`/v1/capsules/${id}/pause`, { method: 'POST' });
const resume = () => platform.call(`/v1/capsules/${id}/resume`, { method: 'POST' });

/** What may happen to a stream. */
const DISTURBANCES: Record<string, () => Promise<unknown>> = {
  'the connection of the client breaks': async () => {
    for (const socket of sockets) socket.terminate();
  },
  'the tunnels break': async () => {
    await platform.host.goSilent();
    await delay(100);
    await platform.host.listen();
  },
  'the control plane is restarted': async () => {
    await platform.stopControlPlane();
    await platform.startControlPlane();
  },
  'the capsule sleeps': async () => {
    await until('it is paused', async () => (await pause()).status === 200);
    await delay(200);
    expect((await resume()).status).toBe(200);
  },
};

/** Disturbs at random moments until told to stop; each disturbance at least once. */
async function disturb(isOver: () => boolean): Promise<string[]> {
  const done: string[] = [];
  const names = Object.keys(DISTURBANCES);
  for (let i = 0; i < names.length || !isOver(); i++) {
    const name = names[i % names.length] ?? '';
    await delay(Math.random() * 300);
    await DISTURBANCES[name]?.();
    done.push(name);
  }
  return done;
}

beforeAll(() => {
  // The sockets of the client, which a test cannot reach otherwise.
  const { emit } = WebSocket.prototype;
  WebSocket.prototype.emit = function (this: WebSocket, event: string | symbol, ...args: unknown[]): boolean {
    if (event === 'open') sockets.add(this);
    if (event === 'close') sockets.delete(this);
    return emit.call(this, event, ...args);
  };
  return () => {
    WebSocket.prototype.emit = emit;
  };
});

describe('a disturbed stream', () => {
  it('gives the output of a command byte for byte', async () => {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()];
    const [out, err] = [buffer(stdout), buffer(stderr)];
    const notices: string[] = [];
    let over = false;
    const started = Promise.withResolvers<void>();
    const onStarted = () => started.resolve();
    const running = execStreaming(
      api,
      id,
      {
        cmd: process.execPath,
        args: ['-e', WRITER],
        stdout,
        stderr,
        onStarted,
        onNotice: (notice) => notices.push(notice),
      },
      never,
    ).finally(() => {
      over = true;
      stdout.end();
      stderr.end();
    });
    running.catch(() => undefined);
    await started.promise;
    const disturbed = await disturb(() => over);
    expect(await running).toEqual({ exitCode: 7, signal: null });
    expect((await out).toString() === expectedLines(false)).toBe(true);
    expect((await err).toString() === expectedLines(true)).toBe(true);
    expect(new Set(disturbed).size).toBe(Object.keys(DISTURBANCES).length);
    expect(notices.every((notice) => /Attaching again/.test(notice))).toBe(true);
    expect(notices.length).toBeGreaterThan(0);
  }, 180_000);

  it('carries the input of a command byte for byte', async () => {
    const text = expectedLines(false);
    async function* slowly() {
      for (let at = 0; at < text.length; at += 2048) {
        yield Buffer.from(text.slice(at, at + 2048));
        await delay(10);
      }
    }
    const stdout = new PassThrough();
    const out = buffer(stdout);
    let over = false;
    const started = Promise.withResolvers<void>();
    const onStarted = () => started.resolve();
    const running = execStreaming(
      api,
      id,
      { cmd: 'cat', stdin: Readable.from(slowly()), stdout, onStarted, stderr: new PassThrough().resume() },
      never,
    ).finally(() => {
      over = true;
      stdout.end();
    });
    running.catch(() => undefined);
    await started.promise;
    await disturb(() => over);
    expect(await running).toEqual({ exitCode: 0, signal: null });
    expect((await out).toString() === text).toBe(true);
  }, 180_000);

  it('loses and doubles nothing of a terminal, in either direction', async () => {
    let shown = '';
    using pty = await openPty(
      api,
      id,
      {
        program: { cmd: '/bin/sh', args: ['-c', 'stty raw -echo; echo ready; exec cat'] },
        ...{ cols: 80, rows: 24 },
        onOutput: (data) => {
          shown += Buffer.from(data);
          return true;
        },
        onNotice: () => undefined,
      },
      never,
    );
    await until('it is ready', () => shown.includes('ready\n'));
    const before = shown.length;
    let typed = '';
    let over = false;
    const typing = (async () => {
      for (let i = 0; i < 400; i++) {
        const keys = `key ${i};`;
        typed += keys;
        pty.write(Buffer.from(keys));
        await delay(10);
      }
      over = true;
    })();
    await disturb(() => over);
    await typing;
    await until('all has come back', 60_000, () => shown.length - before >= typed.length);
    expect(shown.slice(before) === typed).toBe(true);
    pty.kill();
    expect(await pty.exited).toBe(137);
  }, 180_000);
});

it('goes back to a command that was left, from the oldest byte that is kept', async () => {
  const left = new AbortController();
  const exec = {
    cmd: '/bin/sh',
    args: ['-c', 'echo before; sleep 2; echo after >&2; exit 3'],
    tag: 'left',
    background: true,
  };
  expect((await platform.call(`/v1/capsules/${id}/exec`, { json: exec })).status).toBe(202);
  const sink = () => new PassThrough().resume();
  const following = followProcess(api, id, 'left', { stdout: sink(), stderr: sink() }, left.signal);
  left.abort(new Error('left'));
  await expect(following).rejects.toThrow('left');
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  expect(await followProcess(api, id, 'left', { stdout, stderr }, never)).toEqual({ exitCode: 3, signal: null });
  expect([String(stdout.read()), String(stderr.read())]).toEqual(['before\n', 'after\n']);
});

describe('who leaves', () => {
  const running = async () => (await platform.call(`/v1/capsules/${id}/processes`)).body.processes.length;

  it('ends his terminal also where its connection has just been lost', async () => {
    const program = { cmd: 'sleep', args: ['4251'] };
    const options = { program, cols: 80, rows: 24, onOutput: () => true, onNotice: () => undefined };
    using pty = await openPty(api, id, options, never);
    for (const socket of sockets) socket.terminate();
    pty.kill();
    expect(await pty.exited).toBe(137);
  });

  it('takes his command along', async () => {
    const leave = new AbortController();
    const sink = () => new PassThrough().resume();
    const onStarted = () => leave.abort(new Error('left'));
    const options = { cmd: 'sleep', args: ['4249'], stdout: sink(), stderr: sink(), onStarted };
    await expect(execStreaming(api, id, options, leave.signal)).rejects.toThrow('left');
    await until('it is gone', async () => (await running()) === 0);
  });

  it('takes his command along also where nothing answers at that moment', async () => {
    const leave = new AbortController();
    const lost = Promise.withResolvers<void>();
    const sink = () => new PassThrough().resume();
    const options = { cmd: 'sleep', args: ['4252'], stdout: sink(), stderr: sink(), onNotice: () => lost.resolve() };
    const exec = execStreaming(api, id, options, leave.signal);
    const refused = expect(exec).rejects.toThrow('left');
    await until('it runs', async () => (await running()) === 1);
    await platform.stopControlPlane();
    await lost.promise;
    leave.abort(new Error('left'));
    await delay(200);
    await platform.startControlPlane();
    await refused;
    await until('it is gone', async () => (await running()) === 0);
  });

  it('can end the program of his terminal', async () => {
    const leave = new AbortController();
    const program = { cmd: 'sleep', args: ['4250'] };
    const options = { program, cols: 80, rows: 24, onOutput: () => true, onNotice: () => undefined };
    using pty = await openPty(api, id, options, leave.signal);
    expect(await running()).toBe(1);
    leave.abort(new Error('left'));
    await expect(pty.exited).rejects.toThrow('left');
    pty.kill();
    pty[Symbol.dispose]();
    await until('it is gone', async () => (await running()) === 0);
  });
});

it('tells of a process that is not there, and of a capsule that has gone meanwhile', async () => {
  const streams = () => ({ stdout: new PassThrough().resume(), stderr: new PassThrough().resume() });
  await expect(followProcess(api, id, 'nobody', streams(), never)).rejects.toMatchObject({
    reason: 'process_not_found',
  });
  const other = await platform.createCapsule();
  const started = Promise.withResolvers<void>();
  const running = execStreaming(
    api,
    other,
    { cmd: 'sleep', args: ['4247'], ...streams(), onStarted: () => started.resolve() },
    never,
  );
  running.catch(() => undefined);
  await started.promise;
  await platform.fetch(`/v1/capsules/${other}`, { method: 'DELETE' });
  await expect(running).rejects.toMatchObject({ reason: 'invalid_state' });
});
