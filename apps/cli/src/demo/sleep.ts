import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { ApiClient } from '../api/client.ts';
import { CliError } from '../cli-error.ts';
import { formatCapsules } from '../commands/ls.ts';
import { formatBytes } from '../terminal/format.ts';
import { startProgress } from '../terminal/progress.ts';
import { run, say } from './guest.ts';
import { ASK, RANDOM, REMEMBER } from './programs.ts';
import type { Stopwatch } from './stopwatch.ts';
import { commandOf, findVmProcess } from './vm-process.ts';

const FORKS = 2;

export interface SleepDemo {
  readonly api: ApiClient;
  readonly dir: WrennDir;
  readonly capsule: CapsuleBody;
  readonly stopwatch: Stopwatch;
  /** Takes a capsule that is to be destroyed in the end. */
  readonly onMade: (id: string) => void;
  readonly signal: AbortSignal;
}

/** What the program in the capsule says of itself: nothing of it is on the disk. */
interface Memory {
  readonly pid: string;
  readonly secret: string;
  readonly asked: number;
}

/**
 * Shows that a capsule sleeps and wakes with its memory, and that its copies have that memory and random numbers of
 * their own.
 *
 * @throws CliError when it is not so
 */
export async function showSleep(demo: SleepDemo): Promise<void> {
  const { api, capsule, stopwatch, signal } = demo;
  const { id } = capsule;
  const before = await stopwatch.step('start a program that remembers', async () => {
    await api.startCommand(id, REMEMBER, signal);
    return ask(api, id, signal);
  });
  await stopwatch.step('pause: memory and disk to stable storage', () => pause(demo));
  await stopwatch.step('resume', async () => {
    using _ = startProgress('resuming');
    await api.resumeCapsule(id, 'keep', signal);
  });
  const after = await stopwatch.step('ask the program again', () => ask(api, id, signal));
  expectRemembered(before, after, 1);
  const forks = await stopwatch.step(`fork it into ${FORKS}`, () => fork(demo));
  await stopwatch.step('ask the program in each fork, and for random bytes', async () => {
    const random = new Set<string>();
    for (const { id: forkId } of forks) {
      expectRemembered(after, await ask(api, forkId, signal), 1);
      random.add((await run(api, forkId, RANDOM.cmd, RANDOM.args, signal)).text);
    }
    if (random.size !== FORKS) throw new CliError(`Forks gave the same random bytes: ${[...random].join(', ')}.`);
    say('each remembers the same; no two have the same random bytes');
  });
}

async function pause({ api, dir, capsule: { id }, signal }: SleepDemo): Promise<void> {
  const pid = await findVmProcess(dir, id);
  const command = pid === undefined ? undefined : await commandOf(pid);
  if (pid === undefined || command === undefined) throw new CliError(`No process runs the microVM of ${id}.`);
  say(`process ${pid} runs its microVM: ${command.split(' ')[0]}`);
  {
    using _ = startProgress('pausing');
    await api.pauseCapsule(id, signal);
  }
  const [paused] = (await api.listCapsules(signal, 'paused')).filter((capsule) => capsule.id === id);
  if (paused === undefined) throw new CliError(`${id} is not listed as paused.`);
  for (const line of formatCapsules([paused], Date.now()).split('\n')) say(line);
  if ((await commandOf(pid)) === command) throw new CliError(`Process ${pid} still runs the microVM of ${id}.`);
  say(`process ${pid} is gone; ${formatBytes(paused.snapshot_bytes ?? 0)} on the disk are all that is left`);
}

async function fork({ api, capsule: { id }, onMade, signal }: SleepDemo): Promise<CapsuleBody[]> {
  using _ = startProgress('forking');
  // Not cut off by Ctrl-C: the platform would finish it all the same, and nobody would know the ids to remove.
  const forks = await api.forkCapsule(id, { count: FORKS }, new AbortController().signal);
  for (const made of forks) onMade(made.id);
  signal.throwIfAborted();
  for (const made of forks) say(`${made.id}: fork of ${made.forked_from}`);
  return forks;
}

async function ask(api: ApiClient, id: string, signal: AbortSignal): Promise<Memory> {
  const { text } = await run(api, id, ASK.cmd, ASK.args, signal);
  const { pid, secret, asked } = ASK.expected.exec(text)?.groups ?? {};
  if (pid === undefined || secret === undefined) throw new CliError(`The program answers in another way: ${text}`);
  return { pid, secret, asked: Number(asked) };
}

function expectRemembered(before: Memory, after: Memory, questions: number): void {
  const same = before.pid === after.pid && before.secret === after.secret && before.asked + questions === after.asked;
  if (!same) throw new CliError(`The program forgot: ${JSON.stringify(before)} became ${JSON.stringify(after)}.`);
}
