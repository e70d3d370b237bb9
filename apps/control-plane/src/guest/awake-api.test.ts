import { WrennError } from '@wrenn/protocol/errors';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());

const verb = (id: string, name: string) => platform.call(`/v1/capsules/${id}/${name}`, { method: 'POST' });
const echo = (id: string) => platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'echo', args: ['awake'] } });
const read = async (id: string) => (await platform.call(`/v1/capsules/${id}`)).body;

async function createPaused(json: object): Promise<string> {
  const id = await platform.createCapsule(json);
  expect((await verb(id, 'pause')).status).toBe(200);
  return id;
}

describe('a call to a capsule that sleeps', () => {
  it('wakes one that may wake by itself, once for many calls', async () => {
    const id = await createPaused({ auto_resume: true });
    const calls = [
      ...Array.from({ length: 8 }, () => echo(id)),
      platform.call(`/v1/capsules/${id}/files/list`, { json: { path: '/' } }),
      platform.call(`/v1/capsules/${id}/processes`),
    ];
    expect((await Promise.all(calls)).map(({ status }) => status)).toEqual(Array(10).fill(200));
    const pty = await platform.connect(`/v1/capsules/${id}/pty`);
    expect((await verb(id, 'pause')).status).toBe(200);
    pty.send({ type: 'start', cmd: '/bin/sh' });
    expect(await pty.next()).toMatchObject({ type: 'started' });
    pty.send({ type: 'kill' });
    await pty.closed();
    expect(await read(id)).toMatchObject({ status: 'running', generation: 2 });
  });

  it('says how to resume another', async () => {
    const id = await createPaused({});
    const { status, body } = await echo(id);
    expect(status).toBe(409);
    expect(body.error).toMatchObject({ reason: 'invalid_state', retryable: true, details: { status: 'paused' } });
    expect(body.error.message).toContain(`/v1/capsules/${id}/resume`);
    expect(await read(id)).toMatchObject({ status: 'paused' });
    expect((await verb(id, 'resume')).status).toBe(200);
    expect((await echo(id)).body).toMatchObject({ stdout: 'awake\n' });
  });

  it.each(['pause', 'resume'] as const)('waits for the end of a %s', async (name) => {
    const id = await platform.createCapsule({ auto_resume: name === 'pause' });
    if (name === 'resume') await verb(id, 'pause');
    const held = Promise.withResolvers<void>();
    platform.host.before[name] = () => held.promise;
    const done = verb(id, name);
    await until('it is under way', async () => (await read(id)).status === `${name.slice(0, -1)}ing`);
    let isAnswered = false;
    const called = echo(id).finally(() => {
      isAnswered = true;
    });
    // A call to another capsule takes as long as this one would without waiting.
    expect((await platform.call('/v1/capsules')).status).toBe(200);
    expect(isAnswered).toBe(false);
    held.resolve();
    platform.host.before[name] = async () => undefined;
    expect((await done).status).toBe(200);
    expect((await called).body).toMatchObject({ stdout: 'awake\n' });
  });

  it('tells all who wait why it cannot wake, after one attempt', async () => {
    const id = await createPaused({ auto_resume: true });
    const held = Promise.withResolvers<void>();
    const attempts = () => platform.host.requests.filter(({ verb: name }) => name === 'resume').length;
    const before = attempts();
    platform.host.before.resume = async () => {
      await held.promise;
      throw new WrennError('snapshot_damaged', { id, problem: 'a file is missing' });
    };
    const calls = Array.from({ length: 5 }, () => echo(id));
    await until('it is tried', () => attempts() > before);
    // Nothing shows from outside who waits already, and a call that comes after the failure rightly tries anew: these
    // take far longer than any of the calls to come so far.
    for (let n = 0; n < 20; n += 1) await read(id);
    held.resolve();
    for (const { status, body } of await Promise.all(calls)) {
      expect([status, body.error.reason]).toEqual([409, 'snapshot_damaged']);
    }
    expect(attempts() - before).toBe(1);
    platform.host.before.resume = async () => undefined;
    expect((await echo(id)).status).toBe(200);
  });
});

describe('a call that is under way when its capsule goes to sleep', () => {
  it('ends with the state as its error', async () => {
    const id = await platform.createCapsule();
    const sleeping = platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'sleep', args: ['4253'] } });
    await until(
      'it runs',
      async () => (await platform.call(`/v1/capsules/${id}/processes`)).body.processes.length === 1,
    );
    expect((await verb(id, 'pause')).status).toBe(200);
    const { status, body } = await sleeping;
    expect(status).toBe(409);
    expect(body.error).toMatchObject({ reason: 'invalid_state', retryable: true });
    expect(body.error.details.status).toMatch(/^paus(ing|ed)$/);
  });
});

describe('an open stream of a capsule that goes to sleep', () => {
  it('does not wake it, and goes on when somebody does', async () => {
    const id = await platform.createCapsule({ auto_resume: true });
    const socket = await platform.connect(`/v1/capsules/${id}/exec/stream`);
    socket.send({ type: 'start', cmd: '/bin/sh', args: ['-c', 'echo one; read line; echo "two $line"'], stdin: true });
    await socket.takeUntil(({ type }) => type === 'stdout');
    expect((await verb(id, 'pause')).status).toBe(200);
    expect(await read(id)).toMatchObject({ status: 'paused' });
    // Input is use, and is not lost.
    socket.send({ type: 'stdin', data: 'words\n' });
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    expect(frames).toMatchObject([
      { type: 'stdout', data: 'two words\n', offset: 4 },
      { type: 'exit', exit_code: 0, offset: 14 },
    ]);
    expect(await read(id)).toMatchObject({ status: 'running', generation: 1 });
  });

  it('keeps input for one that somebody else must wake', async () => {
    const id = await platform.createCapsule();
    const socket = await platform.connect(`/v1/capsules/${id}/exec/stream`);
    socket.send({ type: 'start', cmd: '/bin/sh', args: ['-c', 'echo one; cat'], stdin: true });
    await socket.takeUntil(({ type }) => type === 'stdout');
    expect((await verb(id, 'pause')).status).toBe(200);
    socket.send({ type: 'stdin', data: 'two' });
    socket.send({ type: 'stdin_end' });
    expect(await read(id)).toMatchObject({ status: 'paused' });
    expect((await verb(id, 'resume')).status).toBe(200);
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    expect(
      frames
        .filter(({ type }) => type === 'stdout')
        .map(({ data }) => data)
        .join(''),
    ).toBe('two');
  });
});
