import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import { Signal } from '@wrenn/protocol/gen/process/process_pb';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createClients,
  type Protocol,
  processExists,
  readProcess,
  shell,
  startTestEnvd,
  type TestEnvd,
} from '../testing/test-envd.ts';

let envd: TestEnvd;

beforeAll(async () => {
  envd = await startTestEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

const run = (command: string) => readProcess(envd.process.start(shell(command)));

/** Starts a command, and returns what its stream tells once it has told its pid. */
async function background(command: string, options: { timeoutMs?: number; tag?: string } = {}) {
  const disconnect = new AbortController();
  const stream = envd.process.start(
    { ...shell(command), ...(options.tag === undefined ? {} : { tag: options.tag }) },
    { signal: disconnect.signal, ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }) },
  );
  const events = stream[Symbol.asyncIterator]();
  const first = await events.next();
  const event = first.value?.event?.event;
  if (event?.case !== 'start') throw new Error('the first event is not the start');
  return {
    pid: event.value.pid,
    events: { [Symbol.asyncIterator]: () => events },
    disconnect: () => disconnect.abort(),
  };
}

const byPid = (pid: number) => ({ selector: { case: 'pid', value: pid } }) as const;
const byTag = (tag: string) => ({ selector: { case: 'tag', value: tag } }) as const;

describe('starting', () => {
  it.each<Protocol>(['connect-json', 'connect-binary', 'grpc-web'])(
    'streams output and the end over %s',
    async (protocol) => {
      const client = createClients(envd.url, protocol).process;
      const report = await readProcess(client.start(shell('printf out; printf err >&2; exit 3')));
      expect(report).toMatchObject({ stdout: 'out', stderr: 'err', offset: 0, contiguous: true });
      expect(report.end).toMatchObject({ exitCode: 3, exited: true, status: 'exit status 3', outputOffset: 6n });
    },
  );

  it('does not lose the end or the output of commands that end at once', async () => {
    const reports = await Promise.all(Array.from({ length: 40 }, (_, index) => run(`printf ${index}; exit ${index}`)));
    expect(reports.map((report) => report.stdout)).toEqual(reports.map((_, index) => String(index)));
    expect(reports.map((report) => report.end?.exitCode)).toEqual(reports.map((_, index) => index));
  });

  it('gives real pipes, which programs can open by name', async () => {
    const report = await run('echo one > /dev/stdout; echo two > /dev/stderr; stat -L -c %F /dev/fd/1');
    expect(report).toMatchObject({ stdout: 'one\nfifo\n', stderr: 'two\n' });
  });

  it('gives a login environment, the defaults of /init, and the request last', async () => {
    await using own = await startTestEnvd();
    await own.init({ envVars: { FROM_INIT: 'init', BOTH: 'init' } });
    const report = await readProcess(
      own.process.start({ process: { cmd: '/usr/bin/env', envs: { BOTH: 'request' } } }),
    );
    const environment = new Map(
      report.stdout
        .trim()
        .split('\n')
        .map((line) => line.split('=', 2) as [string, string]),
    );
    expect(environment.get('HOME')).toBe('/root');
    expect(environment.get('USER')).toBe('root');
    expect(environment.get('LOGNAME')).toBe('root');
    expect(environment.get('SHELL')).toMatch(/sh$/);
    expect(environment.get('PATH')).toContain('/bin');
    expect(environment.get('FROM_INIT')).toBe('init');
    expect(environment.get('BOTH')).toBe('request');
    expect(environment.has('TERM')).toBe(false);
  });

  it('starts in the request’s directory, else the default one, else home', async () => {
    await using own = await startTestEnvd();
    const pwd = (cwd?: string) =>
      readProcess(own.process.start({ process: { cmd: 'pwd', ...(cwd === undefined ? {} : { cwd }) } }));
    expect((await pwd()).stdout).toBe('/root\n');
    await own.init({ defaultWorkdir: '/usr' });
    expect((await pwd()).stdout).toBe('/usr\n');
    expect((await pwd('/etc')).stdout).toBe('/etc\n');
    await own.init({ defaultWorkdir: '/var' });
    expect((await pwd()).stdout).toBe('/var\n');
  });

  it('gives EOF as stdin where none is wanted', async () => {
    const report = await readProcess(envd.process.start({ ...shell('cat; echo done'), stdin: false }));
    expect(report.stdout).toBe('done\n');
  });

  it('runs with niceness 0, in a session and group of its own', async () => {
    const { stdout } = await run('nice; cut -d" " -f1,5,6 /proc/self/stat; echo $$');
    const [niceness, ids, pid] = stdout.split('\n');
    expect(niceness).toBe('0');
    expect(ids?.split(' ').slice(1)).toEqual([pid, pid]);
  });

  it.each([
    ['a command that is not there', { cmd: 'no-such-command-here' }, Code.NotFound, 'command_not_found', 'not in PATH'],
    ['a path that is not there', { cmd: '/no/such/file' }, Code.NotFound, 'command_not_found', 'no such file'],
    ['a directory', { cmd: '/usr' }, Code.NotFound, 'command_not_found', 'is a directory'],
    ['a file that is not executable', { cmd: '/etc/passwd' }, Code.NotFound, 'command_not_found', 'may not execute'],
    [
      'a missing directory',
      { cmd: 'true', cwd: '/no/such' },
      Code.InvalidArgument,
      'invalid_request',
      'does not exist',
    ],
    ['a file as directory', { cmd: 'true', cwd: '/etc/passwd' }, Code.InvalidArgument, 'wrong_file_type', 'directory'],
    ['a NUL character', { cmd: 'true', args: ['a\0b'] }, Code.InvalidArgument, 'invalid_request', 'NUL'],
    ['an impossible variable', { cmd: 'true', envs: { 'A=B': 'c' } }, Code.InvalidArgument, 'invalid_request', 'A=B'],
    ['no command', { cmd: '' }, Code.NotFound, 'command_not_found', 'empty'],
  ])('refuses %s clearly', async (_what, process, code, name, text) => {
    const error = await readProcess(envd.process.start({ process })).catch(ConnectError.from);
    expect(error).toBeInstanceOf(ConnectError);
    expect((error as ConnectError).code).toBe(code);
    expect((error as ConnectError).message).toContain(text);
    expect(fromConnectError(error as ConnectError).code).toBe(name);
  });

  it('refuses a script whose interpreter is missing', async () => {
    const script = join(envd.directory, 'script');
    await writeFile(script, '#!/no/such/interpreter\n', { mode: 0o755 });
    const error = await readProcess(envd.process.start({ process: { cmd: script } })).catch(ConnectError.from);
    expect((error as ConnectError).message).toContain('/no/such/interpreter does not exist');
  });

  it('leaves no descriptor behind when starts fail', async () => {
    const open = () => readdirSync('/proc/self/fd').length;
    await readProcess(envd.process.start({ process: { cmd: '/no/such/file' } })).catch(() => {});
    const before = open();
    for (let round = 0; round < 20; round++) {
      await readProcess(
        envd.process.start({ process: { cmd: 'true', cwd: '/root', args: ['x'.repeat(3_000_000)] } }),
      ).catch(() => {});
    }
    expect(open()).toBeLessThan(before + 10);
  });
});

describe('ending', () => {
  it('tells the signal that ended a process', async () => {
    const report = await run('kill -TERM $$');
    expect(report.end).toMatchObject({ exitCode: -1, exited: false, status: 'signal: SIGTERM', signal: 15 });
  });

  it('reaches the whole process group', async () => {
    const { pid, events } = await background('sleep 1000 & one=$!; sleep 1000 & echo $one $!; wait');
    const parent = await until('the children have started', async () => {
      const process = await find(pid);
      return process && process.outputOffset > 0n ? process : undefined;
    });
    expect(parent.config?.cmd).toBe('/bin/sh');
    await envd.process.sendSignal({ process: byPid(pid), signal: Signal.SIGKILL });
    const report = await readProcess(events);
    expect(report.end).toMatchObject({ status: 'signal: SIGKILL' });
    const pids = report.stdout.trim().split(' ').map(Number);
    expect(pids).toHaveLength(2);
    for (const child of pids) await until(`child ${child} is gone`, () => !isAlive(child));
  });

  it('sends any signal by its number, and refuses what is none', async () => {
    const { pid, events } = await background('trap "echo usr1; exit 5" USR1; echo ready; while :; do sleep 0.05; done');
    await until('the trap is set', async () => (await find(pid))?.outputOffset === 6n);
    await expect(envd.process.sendSignal({ process: byPid(pid), signal: 65 as Signal })).rejects.toThrow(
      'between 1 and 64',
    );
    await envd.process.sendSignal({ process: byPid(pid), signal: 10 as Signal });
    expect(await readProcess(events)).toMatchObject({ stdout: 'ready\nusr1\n', end: { exitCode: 5 } });
  });

  it('is not held up by a background program that keeps the pipe, and does not kill that', async () => {
    const [goOn, alive] = [join(envd.directory, 'go-on'), join(envd.directory, 'alive')];
    const report = await run(
      `(until [ -e ${goOn} ]; do sleep 0.05; done; echo late; echo alive > ${alive}) & echo now`,
    );
    await writeFile(goOn, '');
    expect(report).toMatchObject({ stdout: 'now\n', end: { exitCode: 0, outputOffset: 4n } });
    await until('the background program has outlived its output', () => existsSync(alive));
  });

  it('is not held up by a background program that never stops writing', async () => {
    const report = await run('(while :; do echo x; done) & echo $!; exit 4');
    process.kill(Number(report.stdout.split('\n').find((line) => /^\d+$/.test(line))), 'SIGKILL');
    expect(report.end?.exitCode).toBe(4);
  });

  it('kills the group at the deadline, and the end says so', async () => {
    const received: string[] = [];
    let end: unknown;
    const start = envd.process.start(shell('echo begun; sleep 1000'), { headers: { 'Connect-Timeout-Ms': '300' } });
    const failure = await (async () => {
      for await (const { event } of start) {
        received.push(event?.event.case ?? '');
        if (event?.event.case === 'end') end = event.event.value;
      }
    })().catch(ConnectError.from);
    // The time runs from the request on, so that it may be over before the echo.
    expect(received.filter((name) => name !== 'data')).toEqual(['start', 'end']);
    expect(end).toMatchObject({ exited: false, signal: 9, error: expect.stringContaining('deadline exceeded') });
    expect((failure as ConnectError).code).toBe(Code.DeadlineExceeded);
  });

  it('takes a timeout of 0 as none', async () => {
    const start = envd.process.start(shell('sleep 0.1; echo fine'), { headers: { 'Connect-Timeout-Ms': '0' } });
    expect(await readProcess(start)).toMatchObject({ stdout: 'fine\n', end: { exitCode: 0 } });
  });

  it('is not caused by a client that goes away', async () => {
    const { pid, disconnect } = await background('sleep 0.3; echo survived');
    disconnect();
    await until('the process has ended by itself', async () => !(await find(pid)));
    const report = await readProcess(envd.process.connect({ process: byPid(pid), fromOffset: 0n }));
    expect(report).toMatchObject({ stdout: 'survived\n', end: { exitCode: 0 } });
  });
});

describe('connecting again', () => {
  it('gives the output from any byte, then goes on live', async () => {
    const { pid, disconnect } = await background('printf 0123456789; read line; printf "$line"', { tag: 'again' });
    await until('the first output is there', async () => (await find(pid))?.outputOffset === 10n);
    disconnect();
    const fromFour = readProcess(envd.process.connect({ process: byTag('again'), fromOffset: 4n }));
    const liveEvents = envd.process.connect({ process: byPid(pid) })[Symbol.asyncIterator]();
    expect((await liveEvents.next()).value?.event?.event).toMatchObject({ case: 'start', value: { offset: 10n } });
    await envd.process.sendInput({
      process: byPid(pid),
      input: { input: { case: 'stdin', value: Buffer.from('abc\n') } },
    });
    expect(await fromFour).toMatchObject({
      offset: 4,
      stdout: '456789abc',
      contiguous: true,
      end: { outputOffset: 13n },
    });
    expect(await readProcess({ [Symbol.asyncIterator]: () => liveEvents })).toMatchObject({
      stdout: 'abc',
      end: { exitCode: 0 },
    });
  });

  it('tells the end of a process that ended while nobody was there, by pid and by tag', async () => {
    const { pid, events } = await background('echo hello; exit 9', { tag: 'ended' });
    await readProcess(events);
    for (const process of [byPid(pid), byTag('ended')]) {
      expect(await readProcess(envd.process.connect({ process }))).toMatchObject({ stdout: '', end: { exitCode: 9 } });
      expect(await readProcess(envd.process.connect({ process, fromOffset: 2n }))).toMatchObject({
        offset: 2,
        stdout: 'llo\n',
      });
    }
  });

  it('tells nobody who has a new token what ended for the one before; what runs goes on', async () => {
    await using fresh = await startTestEnvd();
    const withToken = (token: string) => ({ headers: { 'X-Access-Token': token } });
    await fresh.init({ accessToken: 'one' });
    const { pid } = await readProcess(fresh.process.start(shell('echo secret'), withToken('one')));
    const connect = (token: string) =>
      readProcess(fresh.process.connect({ process: byPid(pid), fromOffset: 0n }, withToken(token)));
    await fresh.init({ accessToken: 'one', envVars: { A: 'b' } }, 'one');
    expect(await connect('one')).toMatchObject({ stdout: 'secret\n' });
    const running = fresh.process.start(shell('read line; echo $line'), withToken('one'))[Symbol.asyncIterator]();
    const started = (await running.next()).value?.event?.event;
    if (started?.case !== 'start') throw new Error('the first event is not the start');
    await fresh.init({ accessToken: 'two' }, 'one');
    const refusal = await connect('two').catch((error: unknown) => fromConnectError(ConnectError.from(error)).code);
    expect(refusal).toBe('process_not_found');
    const { processes } = await fresh.process.list({}, withToken('two'));
    expect(processes.map((process) => process.pid)).toEqual([started.value.pid]);
    await fresh.process.sendSignal({ process: byPid(started.value.pid), signal: Signal.SIGKILL }, withToken('two'));
    await readProcess({ [Symbol.asyncIterator]: () => running });
  });

  it('lets a tag mean the newest process that has it', async () => {
    await readProcess((await background('exit 1', { tag: 'reused' })).events);
    await readProcess((await background('exit 2', { tag: 'reused' })).events);
    expect(await readProcess(envd.process.connect({ process: byTag('reused') }))).toMatchObject({
      end: { exitCode: 2 },
    });
  });

  it('refuses an offset that is beyond the end', async () => {
    const { pid, events } = await background('printf four');
    await readProcess(events);
    await expect(readProcess(envd.process.connect({ process: byPid(pid), fromOffset: 5n }))).rejects.toThrow(
      'from_offset 5 is beyond the 4 bytes',
    );
  });

  it('shows as a gap what is no longer kept', async () => {
    const BYTES = 90 * 1024 * 1024;
    const { pid, disconnect } = await background(`head -c ${BYTES} /dev/zero | tr '\\0' x; printf end`);
    disconnect();
    await until('the process has ended', 60_000, async () => !(await find(pid)));
    const report = await readProcess(envd.process.connect({ process: byPid(pid), fromOffset: 5n }));
    expect(report.offset).toBeGreaterThan(BYTES - 80 * 1024 * 1024);
    expect(report.offset).toBeLessThan(BYTES - 40 * 1024 * 1024);
    expect(report.contiguous).toBe(true);
    expect(report.offset + report.outputBytes).toBe(BYTES + 3);
    expect(report.stdout.endsWith('xend')).toBe(true);
  }, 90_000);

  it('refuses processes that are not there', async () => {
    const process = byPid(2 ** 22 + 1);
    await expect(readProcess(envd.process.connect({ process }))).rejects.toMatchObject({ code: Code.NotFound });
    await expect(readProcess(envd.process.connect({ process: byTag('nobody') }))).rejects.toMatchObject({
      code: Code.NotFound,
    });
    await expect(envd.process.sendSignal({ process, signal: 9 })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(readProcess(envd.process.connect({}))).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe('input', () => {
  it('keeps the order of a stream, and closes after it', async () => {
    const { pid, events } = await background('cat');
    const lines = Array.from({ length: 500 }, (_, index) => `${index}\n`);
    await envd.process.streamInput(
      (async function* () {
        yield { event: { case: 'start', value: { process: byPid(pid) } } } as const;
        for (const line of lines) {
          yield {
            event: { case: 'data', value: { input: { input: { case: 'stdin', value: Buffer.from(line) } } } },
          } as const;
        }
      })(),
    );
    await envd.process.closeStdin({ process: byPid(pid) });
    expect(await readProcess(events)).toMatchObject({ stdout: lines.join(''), end: { exitCode: 0 } });
  });

  it('waits for a process that does not read, and refuses more than it may hold', async () => {
    execFileSync('mkfifo', [`${envd.directory}/go`]);
    const { pid, events } = await background('read go < "$0/go"; wc -c'.replace('$0', envd.directory));
    const block = Buffer.alloc(6 * 1024 * 1024);
    const send = () =>
      envd.process.sendInput({ process: byPid(pid), input: { input: { case: 'stdin', value: block } } });
    const writes = [send(), send(), send()].map((write) =>
      write.then(() => 'taken').catch((error: ConnectError) => error.code),
    );
    expect(await Promise.race(writes)).toBe(Code.ResourceExhausted);
    // A named pipe without a writer has kept the process from reading so far.
    await writeFile(`${envd.directory}/go`, 'go\n');
    await envd.process.closeStdin({ process: byPid(pid) }).catch(() => {});
    const report = await readProcess(events);
    expect((await Promise.all(writes)).filter((outcome) => outcome === 'taken').length).toBeGreaterThan(0);
    expect(Number(report.stdout)).toBeGreaterThanOrEqual(block.length);
  });

  it('writes the input of a writer who repeats a call once', async () => {
    const { pid } = await background('head -c 12; sleep 1000', { tag: 'once' });
    const send = (writer: string, offset: bigint, text: string) =>
      envd.process.sendInput({
        process: byPid(pid),
        input: { input: { case: 'stdin', value: Buffer.from(text) } },
        ...{ writer, offset },
      });
    await send('one', 0n, 'abc');
    await send('one', 0n, 'abc');
    await send('one', 1n, 'bcdef');
    await send('other', 0n, 'uvw');
    await send('one', 3n, 'def');
    await expect(send('one', 7n, 'h')).rejects.toMatchObject({ code: Code.InvalidArgument });
    await send('one', 6n, 'ghi');
    await until('it has echoed', async () => (await find(pid))?.outputOffset === 12n);
    const events = readProcess(envd.process.connect({ process: byPid(pid), fromOffset: 0n }));
    await envd.process.sendSignal({ process: byPid(pid), signal: 9 });
    expect((await events).stdout).toBe('abcdefuvwghi');
  });

  it('is refused where there is none', async () => {
    const stream = envd.process.start({ ...shell('sleep 1000'), stdin: false });
    const events = stream[Symbol.asyncIterator]();
    const { value } = await events.next();
    const pid = value?.event?.event.case === 'start' ? value.event.event.value.pid : 0;
    const sendTo = (input: 'stdin' | 'pty') =>
      envd.process.sendInput({ process: byPid(pid), input: { input: { case: input, value: Buffer.from('x') } } });
    await expect(sendTo('stdin')).rejects.toMatchObject({ code: Code.FailedPrecondition });
    await expect(sendTo('pty')).rejects.toMatchObject({ code: Code.FailedPrecondition });
    await envd.process.sendSignal({ process: byPid(pid), signal: 9 });
    await events.return?.();
  });

  it('is refused after the process has closed it', async () => {
    const { pid, events } = await background('exec 0<&-; echo closed; sleep 1000');
    await until('stdin is closed', async () => (await find(pid))?.outputOffset === 7n);
    const send = () =>
      envd.process.sendInput({ process: byPid(pid), input: { input: { case: 'stdin', value: Buffer.from('x') } } });
    await expect(send()).rejects.toMatchObject({ code: Code.FailedPrecondition });
    await envd.process.sendSignal({ process: byPid(pid), signal: 9 });
    await readProcess(events);
  });
});

describe('List', () => {
  it('has the running processes only, as they were asked for', async () => {
    const { pid, events } = await background('sleep 1000', { tag: 'listed' });
    expect(await find(pid)).toMatchObject({ tag: 'listed', config: { cmd: '/bin/sh', args: ['-c', 'sleep 1000'] } });
    await envd.process.sendSignal({ process: byTag('listed'), signal: Signal.SIGTERM });
    await readProcess(events);
    expect(await find(pid)).toBeUndefined();
  });
});

describe('keepalive', () => {
  it('comes after the silence that the client names', async () => {
    const seen: string[] = [];
    let pid = 0;
    const start = envd.process.start(shell('read go'), { headers: { 'Keepalive-Ping-Interval': '0.1' } });
    for await (const { event } of start) {
      seen.push(event?.event.case ?? '');
      if (event?.event.case === 'start') pid = event.event.value.pid;
      if (seen.length === 3) {
        const input = { input: { case: 'stdin', value: Buffer.from('go\n') } } as const;
        await envd.process.sendInput({ process: byPid(pid), input });
      }
    }
    expect(seen.slice(0, 3)).toEqual(['start', 'keepalive', 'keepalive']);
    expect(seen.at(-1)).toBe('end');
  });
});

describe('malformed requests', () => {
  it('answers malformed JSON with a clear error', async () => {
    const response = await fetch(`${envd.url}/process.Process/List`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{"unfinished',
    });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'invalid_argument', message: expect.stringContaining('JSON') });
  });

  it('refuses a process that is missing', async () => {
    await expect(readProcess(envd.process.start({}))).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

async function find(pid: number) {
  return (await envd.process.list({})).processes.find((process) => process.pid === pid);
}

function isAlive(pid: number): boolean {
  // A zombie whose parent is gone waits for init to collect it.
  return processExists(pid) && !/^State:\tZ/m.test(statusOf(pid));
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return 'State:\tZ';
  }
}
