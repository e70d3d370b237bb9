import { Code } from '@connectrpc/connect';
import type { StartResponse } from '@wrenn/protocol/gen/process/process_pb';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { processExists, readProcess, startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';

let envd: TestEnvd;

beforeAll(async () => {
  envd = await startTestEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

const byPid = (pid: number) => ({ selector: { case: 'pid', value: pid } }) as const;

/** A shell on a terminal, and what it has shown so far. */
async function openTerminal(command: string[], size?: { cols: number; rows: number }) {
  const [cmd = '', ...args] = command;
  const disconnect = new AbortController();
  const stream: AsyncIterable<StartResponse> = envd.process.start(
    { process: { cmd, args, envs: { PS1: '$ ' } }, pty: size ? { size } : {}, tag: 'terminal' },
    { signal: disconnect.signal },
  );
  const terminal = { pid: 0, screen: '', end: undefined as { exitCode: number; status: string } | undefined };
  const finished = (async () => {
    for await (const { event } of stream) {
      if (event?.event.case === 'start') terminal.pid = event.event.value.pid;
      if (event?.event.case === 'data') terminal.screen += Buffer.from(event.event.value.output.value ?? []).toString();
      if (event?.event.case === 'end') terminal.end = event.event.value;
    }
  })().catch(() => {});
  await until('the terminal is open', () => terminal.pid);
  return {
    ...{ terminal, finished, disconnect: () => disconnect.abort() },
    type: (text: string) =>
      envd.process.sendInput({
        process: byPid(terminal.pid),
        input: { input: { case: 'pty', value: Buffer.from(text) } },
      }),
    shows: (text: string | RegExp) =>
      until(`the terminal shows ${text}`, () =>
        typeof text === 'string' ? terminal.screen.includes(text) : text.test(terminal.screen),
      ),
  };
}

describe('a terminal', () => {
  it('has the size that was asked for, and a new one after Update', async () => {
    const { terminal, finished, type, shows } = await openTerminal(['/bin/sh'], { cols: 100, rows: 30 });
    await type('stty size\n');
    await shows('30 100');
    await envd.process.update({ process: byPid(terminal.pid), pty: { size: { cols: 132, rows: 50 } } });
    await type('stty size\n');
    await shows('50 132');
    await type('exit 7\n');
    await finished;
    expect(terminal.end).toMatchObject({ exitCode: 7, status: 'exit status 7' });
  });

  it('is a controlling terminal with TERM set, 80 by 24 where no size is given', async () => {
    const { terminal, finished } = await openTerminal([
      '/bin/sh',
      '-c',
      'test -t 0 && stty size && echo $TERM && tty && echo by name > /dev/tty',
    ]);
    await finished;
    expect(terminal.screen).toMatch(/24 80\r\nxterm-256color\r\n\/dev\/pts\/\d+\r\nby name\r\n/);
    expect(terminal.end).toMatchObject({ exitCode: 0 });
  });

  it('passes Ctrl-C to the foreground job and not to the shell', async () => {
    const { finished, type, shows } = await openTerminal(['/bin/bash', '--norc', '-i']);
    // What is typed shows before there is a job.
    await type('sh -c \'echo "job $$"; exec sleep 1000\'\n');
    await shows(/job \d+\r\n/);
    await type('\x03');
    await type('echo "now $((40+2))"\n');
    await shows('now 42');
    await type('exit\n');
    await finished;
  });

  it('keeps a scrollback that a later client gets whole', async () => {
    const { terminal, type, shows, disconnect } = await openTerminal(['/bin/sh']);
    await type('echo first-$((1+1))\n');
    await shows('first-2');
    disconnect();
    const again = readProcess(
      envd.process.connect({ process: { selector: { case: 'tag', value: 'terminal' } }, fromOffset: 0n }),
    );
    await type('echo second-$((2+2)); exit\n');
    const report = await again;
    expect(report.pty).toContain('first-2');
    expect(report.pty).toContain('second-4');
    expect(report).toMatchObject({ pid: terminal.pid, stdout: '', contiguous: true, end: { exitCode: 0 } });
  });

  it('is killed with its foreground job', async () => {
    const { terminal, finished, type, shows } = await openTerminal(['/bin/bash', '--norc', '-i']);
    await type('sh -c \'echo "job $$"; exec sleep 1000\'\n');
    await shows(/job \d+\r\n/);
    const job = Number(/job (\d+)\r\n/.exec(terminal.screen)?.[1]);
    await envd.process.sendSignal({ process: byPid(terminal.pid), signal: 9 });
    await finished;
    expect(terminal.end).toMatchObject({ exitCode: -1, status: 'signal: SIGKILL' });
    await until('the job is gone', () => !processExists(job));
  });

  it('loses nothing of what is written just before the end', async () => {
    for (let round = 0; round < 5; round++) {
      const { terminal, finished } = await openTerminal(['/bin/sh', '-c', 'seq 1 3000; exit 3']);
      await finished;
      expect(terminal.end?.exitCode).toBe(3);
      expect(terminal.screen.endsWith('2999\r\n3000\r\n')).toBe(true);
      expect(terminal.screen.startsWith('1\r\n2\r\n')).toBe(true);
    }
  });

  it('refuses what only pipes have, and pipes refuse what only it has', async () => {
    const { terminal, finished, type } = await openTerminal(['/bin/sh']);
    await expect(envd.process.closeStdin({ process: byPid(terminal.pid) })).rejects.toMatchObject({
      code: Code.FailedPrecondition,
      message: expect.stringContaining('Ctrl-D'),
    });
    await type('\x04');
    await finished;
    const events = envd.process.start({ process: { cmd: 'sleep', args: ['1000'] } })[Symbol.asyncIterator]();
    const { value } = await events.next();
    const pid = value?.event?.event.case === 'start' ? value.event.event.value.pid : 0;
    await expect(
      envd.process.update({ process: byPid(pid), pty: { size: { cols: 1, rows: 1 } } }),
    ).rejects.toMatchObject({
      code: Code.InvalidArgument,
    });
    await envd.process.sendSignal({ process: byPid(pid), signal: 9 });
  });

  it('refuses a command that is not there', async () => {
    const start = envd.process.start({ process: { cmd: '/no/such/shell' }, pty: {} });
    await expect(readProcess(start)).rejects.toMatchObject({ code: Code.NotFound });
  });
});
