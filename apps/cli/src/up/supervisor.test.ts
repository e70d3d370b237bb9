import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openLogFile } from './log-file.ts';
import { type SupervisedProgram, supervise } from './supervisor.ts';

const QUICK = { firstMs: 10, maxMs: 25, healthyAfterMs: 60_000 };

let dir: string;
let program: SupervisedProgram | undefined;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-supervise-'));
});
afterEach(async () => {
  await program?.stop(0);
  program = undefined;
  rmSync(dir, { recursive: true });
});

function superviseShell(script: string, backoff = QUICK) {
  const log = openLogFile(join(dir, 'program.log'));
  const events: { description: string; restartInMs: number }[] = [];
  program = supervise({
    name: 'program',
    command: ['/bin/sh', '-c', script],
    env: { GREETING: 'hello' },
    log,
    onEnded: (event) => events.push(event),
    backoff,
  });
  return { log, events, program };
}

describe('supervise', () => {
  it('starts a program again, each time after a longer wait up to a limit', async () => {
    const { events, log } = superviseShell('echo "$GREETING"; exit 3');
    await until('it has ended four times', () => events.length >= 4);
    expect(events.slice(0, 4).map(({ restartInMs }) => restartInMs)).toEqual([10, 20, 25, 25]);
    expect(events[0]?.description).toBe('ended with code 3');
    expect(readFileSync(log.path, 'utf8')).toMatch(/^hello\nhello\n/);
  });

  it('says when a signal ended it', async () => {
    const { events } = superviseShell('kill -9 $$');
    await until('it has ended', () => events.length >= 1);
    expect(events[0]?.description).toBe('was ended by SIGKILL');
  });

  it('asks it to end, and waits until it has', async () => {
    const { log, events, program } = superviseShell(
      "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
    );
    await until('it is up', () => log.tail().includes('up'));
    await program.stop(60_000);
    expect(readFileSync(log.path, 'utf8')).toBe('up\nbye\n');
    expect(events).toEqual([]);
  });

  it('ends by force what does not end when asked', async () => {
    const { log, program } = superviseShell("trap '' TERM; echo up; while :; do sleep 0.01; done");
    await until('it is up', () => log.tail().includes('up'));
    const pid = program.pid ?? 0;
    await program.stop(50);
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });

  it('does not wait for the next start when it is stopped', async () => {
    const { events, program } = superviseShell('exit 1', { ...QUICK, firstMs: 3_600_000 });
    await until('it has ended', () => events.length >= 1);
    await program.stop(1000);
    expect(events).toEqual([{ description: 'ended with code 1', restartInMs: 3_600_000 }]);
  });
});
