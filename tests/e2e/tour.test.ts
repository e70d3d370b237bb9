import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { freePorts } from '@wrenn/config/free-port';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { temporaryWrennDir } from './support/platform.ts';
import { WRENN, wrenn } from './support/wrenn.ts';

const TOUR = join(import.meta.dirname, '..', '..', 'docs', 'tour.md');

/** One command of the tour, and what it prints. */
interface Step {
  readonly who: string;
  readonly command: string;
  /** Lines in which `…` stands for anything; a line that is only `…` for any number of lines. */
  readonly output: readonly string[];
}

const steps = readSteps(await readFile(TOUR, 'utf8'));
let dir: string;
let work: string;
let env: Record<string, string>;
let up: ChildProcessWithoutNullStreams | undefined;
const shells = new Map<string, Shell>();

beforeAll(async () => {
  dir = await temporaryWrennDir();
  work = await mkdtemp(join(tmpdir(), 'wrenn-tour-'));
  const [apiPort, agentPort] = await freePorts(2);
  env = {
    PATH: `${dirname(WRENN)}:${process.env.PATH}`,
    HOME: work,
    WRENN_DIR: dir,
    WRENN_CP_LISTEN_ADDR: `127.0.0.1:${apiPort}`,
    WRENN_HOST_LISTEN_ADDR: `127.0.0.1:${agentPort}`,
    WRENN_WARM_POOL_MAX_MB: '0',
    COLUMNS: '200',
  };
});

afterAll(async () => {
  for (const shell of shells.values()) await shell.end();
  if (up) {
    await wrenn(['down', '--destroy'], { ...env, WRENN_API_KEY: '', WRENN_BASE_URL: '' });
    up.kill('SIGTERM');
    if (up.exitCode === null) await once(up, 'exit');
  }
  for (const folder of [dir, work]) if (folder) await rm(folder, { recursive: true, force: true });
});

it('works as it is written', async () => {
  expect(steps.length).toBeGreaterThan(15);
  for (const { who, command, output } of steps) {
    if (who === 'up') {
      await startPlatform(command);
      continue;
    }
    const shell = shells.get(who) ?? startShell(who);
    shells.set(who, shell);
    const printed = await shell.run(command);
    expect(printed, `${who}: ${command}`).toMatch(toPattern(output));
  }
});

/** Commands and outputs of the blocks that are marked as a console of somebody. */
function readSteps(text: string): Step[] {
  return [...text.matchAll(/^```console (\w+)\n([\s\S]*?)^```$/gm)].flatMap(([, who = '', block = '']) => {
    const parts: { who: string; command: string; output: string[] }[] = [];
    for (const line of block.trimEnd().split('\n')) {
      if (line.startsWith('$ ')) parts.push({ who, command: line.slice(2), output: [] });
      else parts.at(-1)?.output.push(line);
    }
    return parts;
  });
}

/** `!` begins a line of a failed command. */
function toPattern(output: readonly string[]): RegExp {
  const lines = output.map((line) => {
    if (line === '…') return '[\\s\\S]*';
    const escaped = line.replace(/^! /, 'wrenn: ').replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
    // Columns are as wide as their widest cell.
    return `${escaped.replaceAll('…', '[^\\n]*').replaceAll(/(?<=\S) {2,}(?=\S)/g, ' +')} *`;
  });
  return output.length === 0
    ? /^\s*$/
    : new RegExp(`^${lines.join('\\n')}${output.some(isFailure) ? '(\\n {2}→[^\\n]*)?' : ''}\\s*$`);
}

function isFailure(line: string): boolean {
  return line.startsWith('! ');
}

async function startPlatform(command: string): Promise<void> {
  let said = '';
  const child = spawn('bash', ['-c', `exec ${command}`], { cwd: work, env });
  up = child;
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      said += data;
    });
  }
  await until('the platform is ready', 170_000, () => said.includes('Ctrl-C stops') || child.exitCode !== null);
  expect(child.exitCode, said).toBeNull();
}

/** The shell of one person, in which each command sees what the ones before it set. */
interface Shell {
  /** What the command printed: its result, and why it failed where it did. */
  run(command: string): Promise<string>;
  end(): Promise<void>;
}

function startShell(who: string): Shell {
  const child = spawn('bash', ['--noprofile', '--norc'], {
    cwd: work,
    env: { ...env, XDG_CONFIG_HOME: join(work, who) },
  });
  let out = '';
  child.stdout.on('data', (data: Buffer) => {
    out += data;
  });
  let count = 0;
  return {
    run: async (command) => {
      count += 1;
      const marker = `--- ${who} ${count} ---`;
      out = '';
      // Remarks beside a result are for people; of a failure they are all there is.
      child.stdin.write(`{ ${command}\n} 2>stderr.${who} || cat stderr.${who}; echo; echo '${marker}'\n`);
      await until(`"${command}" ends`, 240_000, () => out.includes(marker) || child.exitCode !== null);
      expect(child.exitCode, out).toBeNull();
      return out.slice(0, out.indexOf(marker)).trimEnd();
    },
    end: async () => {
      child.stdin.end();
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}
