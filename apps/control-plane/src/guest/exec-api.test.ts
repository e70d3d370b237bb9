import { setTimeout as delay } from 'node:timers/promises';
import { execResponseSchema } from '@wrenn/protocol/rest/exec';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let capsule: string;
beforeAll(async () => {
  platform = await TestPlatform.start();
  capsule = `/v1/capsules/${await platform.createCapsule({ envs: { GREETING: 'hello' } })}`;
});
afterAll(() => platform[Symbol.asyncDispose]());

const exec = (json: object) => platform.call(`${capsule}/exec`, { json });
const sh = (script: string, more: object = {}) => exec({ cmd: '/bin/sh', args: ['-c', script], ...more });
const untilNoneOf = (command: string) =>
  until(`no ${command} is left`, async () => (await sh(`pgrep -fc "^${command}" || true`)).body.stdout === '0\n');
const runningPids = async () => {
  const { body } = await platform.call(`${capsule}/processes`);
  return body.processes.map(({ pid }: { pid: number }) => pid);
};

describe('exec', () => {
  it('answers output, exit code and time', async () => {
    const { status, body } = await sh('echo out; echo err >&2; exit 3');
    expect(status).toBe(200);
    expect(execResponseSchema.parse(body)).toMatchObject({
      stdout: 'out\n',
      stderr: 'err\n',
      exit_code: 3,
      signal: null,
      encoding: 'utf-8',
      stdout_truncated_bytes: 0,
    });
    expect(body.sandbox_id).toBe(body.capsule_id);
  });

  it('honours envs, cwd and tag, and the environment of the capsule', async () => {
    const { body } = await sh('echo $GREETING $NAME; pwd', { envs: { NAME: 'you' }, cwd: '/usr', tag: 'mine' });
    expect(body).toMatchObject({ stdout: 'hello you\n/usr\n', tag: 'mine' });
  });

  it('answers bytes that are no text in base64, both streams', async () => {
    const { body } = await sh("printf '\\377\\000'; echo text >&2");
    expect(body.encoding).toBe('base64');
    expect(Buffer.from(body.stdout, 'base64')).toEqual(Buffer.from([255, 0]));
    expect(Buffer.from(body.stderr, 'base64').toString()).toBe('text\n');
  });

  it('tells of the signal that ended a command', async () => {
    expect((await sh('kill -TERM $$')).body).toMatchObject({ exit_code: 143, signal: 15 });
  });

  it('kills the command with its children at its deadline', async () => {
    const { status, body } = await sh('sleep 4242 & sleep 4242', { timeout_sec: 0.5 });
    expect(status).toBe(504);
    expect(body.error).toMatchObject({ reason: 'deadline_exceeded', details: { timeout_ms: 500 } });
    await until('it is gone', async () => (await runningPids()).length === 0);
    await untilNoneOf('sleep 4242');
  });

  it.each([
    [{ cmd: 'no-such-command' }, 400, 'command_not_found'],
    [{ cmd: 'true', cwd: '/no/such/dir' }, 400, 'invalid_request'],
    [{ cmd: 'true', user: 'nobody-by-this-name' }, 400, 'invalid_request'],
    [{ cmd: '' }, 400, 'invalid_request'],
    [{}, 400, 'invalid_request'],
  ])('refuses %j', async (json, status, reason) => {
    expect(await exec(json)).toMatchObject({ status, body: { error: { reason } } });
  });

  it('kills a command whose client is gone, and leaves one with a tag', async () => {
    for (const tag of [undefined, 'kept']) {
      const gone = new AbortController();
      const json = { cmd: 'sleep', args: ['4243'], ...(tag ? { tag } : {}) };
      const request = platform.call(`${capsule}/exec`, { json, signal: gone.signal }).catch(() => undefined);
      await until('it runs', async () => (await runningPids()).length === 1);
      gone.abort();
      await request;
      if (tag === undefined) await until('it is gone', async () => (await runningPids()).length === 0);
    }
    expect((await platform.fetch(`${capsule}/processes/kept`, { method: 'DELETE' })).status).toBe(204);
    await until('it is gone', async () => (await runningPids()).length === 0);
  });

  it('kills a command whose host was lost, as soon as that is back', async () => {
    const request = sh('sleep 4248 & sleep 4248');
    await until('it runs', async () => (await runningPids()).length === 1);
    await platform.host.goSilent();
    const back = delay(500).then(() => platform.host.listen());
    expect((await request).status).toBeOneOf([502, 503]);
    await back;
    await until('it is back', async () => (await platform.fetch('/ready')).ok);
    await untilNoneOf('sleep 4248');
  });

  it('reads all of a large output, keeps its beginning and says how much is missing', async () => {
    const written = 400_000_000;
    const before = process.memoryUsage().rss;
    let highest = before;
    const watching = setInterval(() => {
      highest = Math.max(highest, process.memoryUsage().rss);
    }, 20);
    const answer = await platform.fetch(`${capsule}/exec`, {
      json: { cmd: 'head', args: ['-c', String(written), '/dev/zero'], timeout_sec: 0 },
    });
    let length = 0;
    let tail = '';
    for await (const chunk of answer.body ?? []) {
      length += chunk.length;
      tail = (tail + Buffer.from(chunk).toString('latin1')).slice(-300);
    }
    clearInterval(watching);
    expect(tail).toContain(`"stdout_truncated_bytes":${written - 16 * 1024 * 1024}`);
    // NUL is six characters in JSON.
    expect(length).toBeGreaterThan(6 * 16 * 1024 * 1024);
    // Control plane, host and this reader are one process here. The first alone is measured with real microVMs.
    expect(highest - before).toBeLessThan(0.75 * written);
  }, 120_000);
});

describe('a background command', () => {
  it('answers at once, is listed, and is killed by pid or tag', async () => {
    const { status, body } = await exec({ cmd: 'sleep', args: ['4244'], background: true });
    expect(status).toBe(202);
    expect(body).toMatchObject({ cmd: 'sleep', tag: expect.stringMatching(/^proc-[0-9a-f]{8}$/) });
    expect((await platform.call(`${capsule}/processes`)).body.processes).toEqual([
      { pid: body.pid, tag: body.tag, cmd: 'sleep', args: ['4244'], cwd: null, output_offset: 0 },
    ]);
    const kill = (selector: string, query = '') =>
      platform.call(`${capsule}/processes/${selector}${query}`, { method: 'DELETE' });
    expect((await kill(String(body.pid), '?signal=SIGTERM')).status).toBe(204);
    await until('it is gone', async () => (await runningPids()).length === 0);
    expect(await kill(body.tag)).toMatchObject({
      status: 404,
      body: { error: { code: 'not_found', reason: 'process_not_found' } },
    });
    expect((await kill('1', '?signal=NOISE')).status).toBe(400);
  });
});

describe('exec/stream', () => {
  const open = async (start: object) => {
    const socket = await platform.connect(`${capsule}/exec/stream`);
    socket.send({ type: 'start', ...start });
    return socket;
  };

  it('streams both outputs, then the exit, then closes', async () => {
    const socket = await open({ cmd: '/bin/sh', args: ['-c', 'echo one; sleep 0.2; echo two >&2; exit 4'] });
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    expect(frames).toEqual([
      { type: 'start', pid: expect.any(Number), tag: expect.stringMatching(/^exec-/), offset: 0 },
      { type: 'stdout', data: 'one\n', offset: 0 },
      { type: 'stderr', data: 'two\n', offset: 4 },
      { type: 'exit', exit_code: 4, signal: null, offset: 8 },
    ]);
    expect(await socket.closed()).toBe(1000);
  });

  it('breaks no character over two frames', async () => {
    const script = "printf '\\303'; sleep 0.3; printf '\\244\\342\\202'; sleep 0.3; printf '\\254'";
    const socket = await open({ cmd: '/bin/sh', args: ['-c', script] });
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    const texts = frames.filter(({ type }) => type === 'stdout');
    expect(texts.map(({ data }) => data).join('')).toBe('ä€');
    expect(texts.every(({ data_b64 }) => data_b64 === undefined)).toBe(true);
  });

  it('carries any bytes in base64', async () => {
    const script = "printf '\\303'; sleep 0.2; printf '\\377'";
    const socket = await open({ cmd: '/bin/sh', args: ['-c', script], encoding: 'base64' });
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    const bytes = frames.filter(({ type }) => type === 'stdout').map((frame) => Buffer.from(frame.data_b64, 'base64'));
    expect(Buffer.concat(bytes)).toEqual(Buffer.from([0o303, 0o377]));
  });

  it('gives stdin to the command', async () => {
    const socket = await open({ cmd: 'cat', stdin: true });
    socket.send({ type: 'stdin', data: 'one ' });
    socket.send({ type: 'stdin', data_b64: Buffer.from('two').toString('base64') });
    socket.send({ type: 'stdin_end' });
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    expect(
      frames
        .filter(({ type }) => type === 'stdout')
        .map(({ data }) => data)
        .join(''),
    ).toBe('one two');
    expect(frames.at(-1)).toMatchObject({ exit_code: 0 });
  });

  it('kills the command with its children on stop, and leaves it when the socket is closed', async () => {
    const socket = await open({ cmd: '/bin/sh', args: ['-c', 'sleep 4245 & sleep 4245'] });
    await socket.takeUntil(({ type }) => type === 'start');
    socket.send({ type: 'stop' });
    expect((await socket.takeUntil(({ type }) => type === 'exit')).at(-1)).toMatchObject({ exit_code: 137, signal: 9 });

    await untilNoneOf('sleep 4245');

    const dropped = await open({
      cmd: '/bin/sh',
      args: ['-c', 'echo before; read line; echo "after $line"'],
      stdin: true,
    });
    const [start] = await dropped.takeUntil(({ type }) => type === 'stdout');
    dropped.socket.terminate();
    const again = await platform.connect(`${capsule}/processes/${start.tag}/stream?from_offset=4`);
    again.send({ type: 'stdin', data: 'all\n' });
    const frames = await again.takeUntil(({ type }) => type === 'exit');
    const text = frames.filter(({ type }) => type === 'stdout').map(({ data }) => data);
    expect(text.join('')).toBe('re\nafter all\n');
  });

  it('says how much of the input of a client with a name has arrived, and takes the rest over another socket', async () => {
    const socket = await open({ cmd: 'cat', stdin: true, input_id: 'me', tag: 'named', encoding: 'base64' });
    socket.send({ type: 'stdin', data: 'one ' });
    await socket.takeUntil(({ type, bytes }) => type === 'stdin_ack' && bytes === 4);
    socket.socket.terminate();
    const query = 'from_offset=0&input_id=me&input_offset=2';
    const again = await platform.connect(`${capsule}/processes/named/stream?${query}`);
    // From byte 2 on, as a client sends it that saw an earlier acknowledgement only.
    again.send({ type: 'stdin', data: 'e two' });
    again.send({ type: 'stdin_end' });
    const frames = await again.takeUntil(({ type }) => type === 'exit');
    const text = frames.filter(({ type }) => type === 'stdout').map(({ data }) => data);
    expect(text.join('')).toBe('one two');
    expect(frames.findLast(({ type }) => type === 'stdin_ack')).toEqual({ type: 'stdin_ack', bytes: 7 });
  });

  it('makes the command wait for a client that does not read', async () => {
    const socket = await open({ cmd: 'cat', args: ['/dev/zero'], encoding: 'base64' });
    await socket.takeUntil(({ type }) => type === 'start');
    socket.socket.pause();
    const offset = async () => (await platform.call(`${capsule}/processes`)).body.processes[0].output_offset;
    let before = -1;
    await until('it stands still', async () => {
      const now = await offset();
      const stands = now === before && now > 0;
      before = now;
      return stands;
    });
    // What is on its way in sockets and windows, and no more.
    expect(before).toBeLessThan(64 * 1024 * 1024);
    socket.socket.terminate();
    const [{ pid }] = (await platform.call(`${capsule}/processes`)).body.processes;
    await platform.fetch(`${capsule}/processes/${pid}`, { method: 'DELETE' });
    await until('it is gone', async () => (await runningPids()).length === 0);
  });

  it.each([
    ['{', 'invalid_request'],
    [{ type: 'stop' }, 'invalid_request'],
    [{ type: 'start', cmd: 'no-such-command' }, 'command_not_found'],
  ])('answers %j with an error frame', async (frame, reason) => {
    const socket = await platform.connect(`${capsule}/exec/stream`);
    socket.send(frame);
    expect(await socket.next()).toMatchObject({ type: 'error', data: expect.any(String), error: { reason } });
    expect(await socket.closed()).toBe(1011);
  });

  it('tells of a capsule that is not there, and refuses a wrong key before the upgrade', async () => {
    const socket = await platform.connect('/v1/capsules/cl-0000000000000000000000000/exec/stream');
    socket.send({ type: 'start', cmd: 'true' });
    expect(await socket.next()).toMatchObject({ type: 'error', error: { reason: 'capsule_not_found' } });
    const key = platform.apiKey;
    platform.apiKey = 'wrn_wrong';
    await expect(platform.connect(`${capsule}/exec/stream`)).rejects.toThrow(/401/);
    platform.apiKey = key;
  });
});

describe('processes/{selector}/stream', () => {
  it('replays what is kept and goes on live', async () => {
    const script = 'echo early; read line; echo "late $line"';
    const socket = await platform.connect(`${capsule}/exec/stream`);
    socket.send({ type: 'start', cmd: '/bin/sh', args: ['-c', script], tag: 'followed', stdin: true });
    await socket.takeUntil(({ type }) => type === 'stdout');
    const follower = await platform.connect(`${capsule}/processes/followed/stream?from_offset=0`);
    const seen = await follower.takeUntil(({ type }) => type === 'stdout');
    socket.send({ type: 'stdin', data: 'word\n' });
    seen.push(...(await follower.takeUntil(({ type }) => type === 'exit')));
    expect(seen.map(({ type, data, offset }) => [type, data, offset])).toEqual([
      ['start', undefined, 0],
      ['stdout', 'early\n', 0],
      ['stdout', 'late word\n', 6],
      ['exit', undefined, 16],
    ]);
    expect(await follower.closed()).toBe(1000);
  });
});
