import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPlatform, type TestSocket } from '../testing/test-platform.ts';

let platform: TestPlatform;
let capsule: string;
beforeAll(async () => {
  platform = await TestPlatform.start();
  capsule = `/v1/capsules/${await platform.createCapsule()}`;
});
afterAll(() => platform[Symbol.asyncDispose]());

const openPty = async (first: object) => {
  const socket = await platform.connect(`${capsule}/pty`);
  socket.send(first);
  return socket;
};
const type = (socket: TestSocket, text: string) =>
  socket.send({ type: 'input', data: Buffer.from(text).toString('base64') });
/** Output up to and with a text. */
const readTo = async (socket: TestSocket, wanted: string | RegExp) => {
  let text = '';
  await socket.takeUntil((frame) => {
    if (frame.type === 'output') text += Buffer.from(frame.data, 'base64');
    return typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text);
  });
  return text;
};
// Without a prompt, because it would come before or after the echo of what is typed.
const start = { type: 'start', cmd: '/bin/sh', envs: { PS1: '' } };

describe('pty', () => {
  it('is a terminal of the size that was asked for, and of the one it is resized to', async () => {
    const socket = await openPty({ ...start, cols: 91, rows: 31 });
    expect(await socket.next()).toMatchObject({ type: 'started', tag: expect.stringMatching(/^pty-/), offset: 0 });
    type(socket, 'tty >/dev/null && stty size\n');
    await readTo(socket, '31 91');
    socket.send({ type: 'resize', cols: 120, rows: 40 });
    type(socket, 'stty size\n');
    await readTo(socket, '40 120');
    type(socket, 'exit 5\n');
    expect((await socket.takeUntil((frame) => frame.type === 'exit')).at(-1)).toMatchObject({ exit_code: 5 });
    expect(await socket.closed()).toBe(1000);
  });

  it('takes Ctrl-C', async () => {
    const socket = await openPty(start);
    // One job, which says that it is in the foreground.
    type(socket, 'sh -c "echo go; exec sleep 4246"\n');
    await readTo(socket, /\ngo\r/);
    type(socket, '\u0003');
    type(socket, 'echo "code $?"\n');
    await readTo(socket, /code 130/);
    socket.send({ type: 'kill' });
    expect((await socket.takeUntil((frame) => frame.type === 'exit')).at(-1)).toMatchObject({ signal: 9 });
  });

  it('drops none of much input, in order', async () => {
    const socket = await openPty({
      ...start,
      cmd: '/bin/sh',
      args: ['-c', 'stty -echo; echo ready; cat > typed; echo done'],
    });
    await readTo(socket, 'ready');
    const lines = Array.from({ length: 3000 }, (_, i) => `line ${i} ${'x'.repeat(40)}\n`);
    for (const line of lines) type(socket, line);
    type(socket, '\u0004');
    await readTo(socket, 'done');
    const { body } = await platform.call(`${capsule}/exec`, { json: { cmd: 'cat', args: ['typed'] } });
    expect(body.stdout).toBe(lines.join(''));
  });

  it('leaves the shell running when its socket closes, and replays it to the next', async () => {
    const first = await openPty({ ...start, tag: 'mine' });
    type(first, 'echo remember\n');
    await readTo(first, /\nremember/);
    first.socket.terminate();
    const second = await openPty({ type: 'connect', tag: 'mine', cols: 100, rows: 20 });
    expect(await second.next()).toMatchObject({ type: 'started', tag: 'mine', offset: 0 });
    await readTo(second, /\nremember/);
    type(second, 'stty size; echo still here\n');
    expect(await readTo(second, /\nstill here/)).toContain('20 100');
    type(second, 'exit\n');
    await second.takeUntil((frame) => frame.type === 'exit');
  });

  it('speaks in binary frames with clients that do', async () => {
    const socket = await openPty({ ...start, binary: true });
    await socket.next();
    socket.send(Buffer.from('echo bytes\n'));
    await until('output comes', () => /\nbytes/.test(Buffer.concat(socket.binary).toString()));
    socket.send({ type: 'kill' });
    await socket.closed();
  });

  it('answers nonsense and goes on', async () => {
    const socket = await openPty(start);
    await socket.next();
    socket.send({ type: 'dance' });
    expect((await socket.takeUntil((frame) => frame.type === 'error')).at(-1)).toMatchObject({
      fatal: false,
      error: { reason: 'invalid_request' },
    });
    type(socket, 'echo alive\n');
    await readTo(socket, /\nalive/);
    socket.send({ type: 'kill' });
    await socket.closed();
  });

  it('tells of a tag that nobody has', async () => {
    const socket = await openPty({ type: 'connect', tag: 'nobody' });
    expect(await socket.next()).toMatchObject({ type: 'error', fatal: true, error: { reason: 'process_not_found' } });
    expect(await socket.closed()).toBe(1011);
  });
});
