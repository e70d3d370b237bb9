import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from './qmp-client.ts';
import { QmpCommandError, QmpConnectionError, type QmpEvent, QmpTimeoutError } from './qmp-protocol.ts';

const CONTROL_FD = 3;
const inTime = { timeoutMs: 10_000 };

let dir: string;
let socketPath: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-qmp-'));
  socketPath = join(dir, 'qmp.sock');
});
afterEach(() => rmSync(dir, { recursive: true }));

it('hears that a connection has ended before it was taken over', async () => {
  const ended = spawn('true', { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
  await once(ended, 'close');
  const control = ended.stdio[CONTROL_FD];
  if (!(control instanceof Duplex)) throw new Error('no control connection');
  const opening = QmpClient.open(control, AbortSignal.timeout(20_000));
  await expect(opening).rejects.toBeInstanceOf(QmpConnectionError);
});

describe('with a QEMU', () => {
  let qemu: ChildProcess;
  let client: QmpClient;

  beforeEach(async () => {
    const args = [
      ...['-no-user-config', '-nodefaults', '-display', 'none', '-machine', 'none', '-S'],
      ...['-chardev', `socket,id=a,fd=${CONTROL_FD}`, '-mon', 'chardev=a,mode=control'],
      ...['-chardev', `socket,id=b,path=${socketPath},server=on,wait=off`, '-mon', 'chardev=b,mode=control'],
    ];
    qemu = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] });
    const control = qemu.stdio[CONTROL_FD];
    if (!(control instanceof Duplex)) throw new Error('no control connection');
    client = await QmpClient.open(control, AbortSignal.timeout(20_000));
  });

  afterEach(async () => {
    client.close();
    qemu.kill('SIGKILL');
    if (qemu.exitCode === null && qemu.signalCode === null) await once(qemu, 'exit');
  });

  it('answers commands that are in flight together', async () => {
    const answers = await Promise.all([
      client.execute('query-status', undefined, inTime),
      client.execute('human-monitor-command', { 'command-line': 'info status' }, inTime),
    ]);
    expect(answers).toEqual([expect.objectContaining({ status: 'prelaunch' }), expect.stringContaining('prelaunch')]);
  });

  it('rejects what QEMU refuses with what QEMU says', async () => {
    const refused = client.execute('xen-save-devices-state', { filename: '/no/such/folder/f', live: true }, inTime);
    const error = await refused.catch((e: unknown) => e);
    expect(error).toBeInstanceOf(QmpCommandError);
    expect(error).toMatchObject({ errorClass: 'GenericError', message: expect.stringContaining('No such file') });
  });

  it('tells events', async () => {
    const events: QmpEvent[] = [];
    const unsubscribe = client.subscribe((event) => events.push(event));
    await client.execute('cont', undefined, inTime);
    await client.execute('stop', undefined, inTime);
    unsubscribe();
    await client.execute('cont', undefined, inTime);
    expect(events).toEqual([{ event: 'RESUME' }, { event: 'STOP' }]);
    await client.execute('quit', undefined, inTime);
    await client.closed;
    expect(client.shutdown).toEqual({ guest: false, reason: 'host-qmp-quit' });
  });

  it('gives up at the deadline and at the signal, and stays usable', async () => {
    qemu.kill('SIGSTOP');
    await expect(client.execute('query-status', undefined, { timeoutMs: 50 })).rejects.toThrow(QmpTimeoutError);
    const stopped = client.execute('query-status', undefined, { ...inTime, signal: AbortSignal.timeout(50) });
    await expect(stopped).rejects.toMatchObject({ name: 'TimeoutError' });
    qemu.kill('SIGCONT');
    expect(await client.execute('query-status', undefined, inTime)).toMatchObject({ status: 'prelaunch' });
  });

  it('rejects everything that is pending when QEMU dies', async () => {
    qemu.kill('SIGSTOP');
    const pending = client.execute('query-status', undefined, inTime).catch((e: unknown) => e);
    qemu.kill('SIGKILL');
    expect(await pending).toBeInstanceOf(QmpConnectionError);
    expect(await client.closed).toBeInstanceOf(QmpConnectionError);
    await expect(client.execute('query-status', undefined, inTime)).rejects.toThrow(QmpConnectionError);
  });

  it('can be joined, left and joined again by another client', async () => {
    for (const _ of [1, 2]) {
      const other = await QmpClient.connect(socketPath, AbortSignal.timeout(10_000));
      expect(await other.execute('query-status', undefined, inTime)).toMatchObject({ status: 'prelaunch' });
      other.close();
      await expect(other.execute('query-status', undefined, inTime)).rejects.toThrow(/closed on this side/);
    }
    expect(await client.execute('query-status', undefined, inTime)).toMatchObject({ status: 'prelaunch' });
  });
});

describe('with something else', () => {
  let server: Server | undefined;
  afterEach(() => server?.close());

  async function serve(text: string): Promise<void> {
    server = createServer((socket) => {
      socket.on('error', () => {});
      socket.write(text);
    });
    server.listen(socketPath);
    await once(server, 'listening');
  }

  it('fails where nobody listens', async () => {
    await expect(QmpClient.connect(socketPath, AbortSignal.timeout(5000))).rejects.toThrow(/ENOENT/);
  });

  it('fails on what is not QMP', async () => {
    await serve('SSH-2.0-OpenSSH\r\n');
    await expect(QmpClient.connect(socketPath, AbortSignal.timeout(5000))).rejects.toThrow(/not JSON/);
  });

  it('fails on a line that has no end', async () => {
    await serve('x'.repeat(2 * 1024 * 1024));
    await expect(QmpClient.connect(socketPath, AbortSignal.timeout(5000))).rejects.toThrow(/without an end/);
  });

  it('fails at the signal where nothing comes', async () => {
    await serve('');
    const connecting = QmpClient.connect(socketPath, AbortSignal.timeout(50));
    await expect(connecting).rejects.toMatchObject({ name: 'TimeoutError' });
  });
});
