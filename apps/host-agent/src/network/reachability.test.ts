import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../processes/run-command.ts';
import { CLAIMS_DIR, claimOwner } from './claims.ts';
import { applyHostRules } from './host-rules.ts';
import { settleSlots } from './leftovers.ts';
import { GUEST, type Slot } from './slot.ts';
import { SlotPool } from './slot-pool.ts';

const PORT = 4711;
/** A neighbour network of the host, with one address of every kind that matters. */
const OUTSIDE = {
  namespace: `wrenn-test-out-${process.pid}`,
  veth: `wrt${process.pid}`,
  /** TEST-NET-2 and 3 (RFC 5737) stand for the internet. */
  host: '198.51.100.1',
  public: '198.51.100.2',
  blocked: ['169.254.169.254', '10.99.0.1', '172.16.99.1', '192.168.99.1', '100.64.99.1', '198.18.99.1'],
} as const;

const log = pino({ level: 'silent' });
let dir: string;
let pool: SlotPool;
let slots: [Slot, Slot];
let guests: [string, string];
const children: ChildProcess[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-net-'));
  await applyHostRules();
  pool = new SlotPool({ owner: claimOwner(dir), size: () => 0, log });
  const signal = AbortSignal.timeout(30_000);
  slots = [await pool.acquire(signal), await pool.acquire(signal)];
  guests = [await plugGuest(slots[0]), await plugGuest(slots[1])];
  await makeOutside();
  for (const namespace of [undefined, ...guests, OUTSIDE.namespace]) await listenIn(namespace);
});

afterAll(async () => {
  for (const child of children) {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
  }
  await runCommand('ip', ['-force', '-batch', '-'], {
    input: [
      ...guests.map((name) => `netns del ${name}`),
      `link del ${OUTSIDE.veth}`,
      `netns del ${OUTSIDE.namespace}`,
    ].join('\n'),
  });
  for (const slot of slots) await pool.release(slot);
  await pool[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

describe('what a guest reaches', () => {
  it('reaches the internet under the address of the host', async () => {
    expect(await answerFrom(guests[0], OUTSIDE.public)).toBe(OUTSIDE.host);
  });

  it.each(OUTSIDE.blocked)('does not reach %s', async (address) => {
    // The host itself does.
    await answerFrom(undefined, address);
    expect(await askFrom(guests[0], address)).toBeUndefined();
  });

  it('does not reach the host by any of its addresses', async () => {
    for (const address of [slots[0].hostSide, slots[1].hostSide, OUTSIDE.host, GUEST.gateway, slots[0].namespaceSide]) {
      expect(await askFrom(guests[0], address), address).toBeUndefined();
    }
    expect(await answerFrom(undefined, OUTSIDE.host), 'the server is there').toBe(OUTSIDE.host);
  });

  it('does not reach another guest, nor itself through the host', async () => {
    for (const slot of slots) {
      for (const address of [slot.hostIp, slot.namespaceSide]) {
        expect(await askFrom(guests[0], address), address).toBeUndefined();
      }
    }
  });

  it('gets nothing past its gateway with an address that is not its own', async () => {
    const other = '169.254.77.7';
    await runCommand('ip', ['-n', guests[0], 'addr', 'add', `${other}/32`, 'dev', 'eth0']);
    expect(await askFrom(guests[0], OUTSIDE.public, `,bind=${other}`)).toBeUndefined();
    expect(await answerFrom(guests[0], OUTSIDE.public)).toBe(OUTSIDE.host);
  });
});

describe('who reaches a guest', () => {
  it('is the host, which the guest sees as its gateway', async () => {
    for (const slot of slots) expect(await answerFrom(undefined, slot.hostIp)).toBe(GUEST.gateway);
  });

  it('is nobody outside, even with a route', async () => {
    await runCommand('ip', ['-n', OUTSIDE.namespace, 'route', 'add', '10.8.0.0/13', 'via', OUTSIDE.host]);
    for (const address of [slots[0].hostIp, slots[0].namespaceSide]) {
      expect(await askFrom(OUTSIDE.namespace, address), address).toBeUndefined();
    }
  });
});

describe('a slot', () => {
  it('has a TAP of its own user and no IPv6', async () => {
    const inside = (command: string) => runCommand('nsenter', [`--net=${slots[0].namespacePath}`, 'sh', '-c', command]);
    expect(await inside('ip -d link show tap0')).toContain(`user ${slots[0].uid} group ${slots[0].gid}`);
    expect(await inside('ip -6 addr')).toBe('');
    expect(await runCommand('ip', ['-6', 'addr', 'show', 'dev', slots[0].veth])).toBe('');
  });

  it('leaves nothing when it is given back', async () => {
    const signal = AbortSignal.timeout(30_000);
    const slot = await pool.acquire(signal);
    const claim = join(CLAIMS_DIR, String(slot.index));
    expect(JSON.parse(await readFile(claim, 'utf8'))).toMatchObject({ wrennDir: dir, pid: process.pid });
    await pool.release(slot);
    await pool.release(slot);
    for (const path of [claim, slot.namespacePath, `/sys/class/net/${slot.veth}`]) {
      await expect(access(path), path).rejects.toThrow('ENOENT');
    }
    expect(await runCommand('ip', ['route', 'show', slot.hostIp])).toBe('');
  });

  it('is made ahead of need, and given back when nobody took it', async () => {
    const owner = claimOwner(await mkdtemp(join(dir, 'other-')));
    const ahead = new SlotPool({ owner, size: () => 2, log });
    ahead.replenish();
    await until('two are ready', async () => (await claimsOf(owner.wrennDir)).length === 2);
    const slot = await ahead.acquire(AbortSignal.timeout(30_000));
    expect(await claimsOf(owner.wrennDir)).toContain(slot.index);
    await ahead[Symbol.asyncDispose]();
    expect(await claimsOf(owner.wrennDir)).toEqual([slot.index]);
    await ahead.release(slot);
  });

  it('is made ahead of need only in quiet times, as many as are wanted by then', async () => {
    const owner = claimOwner(await mkdtemp(join(dir, 'quiet-')));
    const quiet = Promise.withResolvers<void>();
    let size = 1;
    await using ahead = new SlotPool({ owner, size: () => size, quiet: () => quiet.promise, log });
    ahead.replenish();
    // Somebody who needs one does not wait for a quiet time.
    const slot = await ahead.acquire(AbortSignal.timeout(30_000));
    expect(await claimsOf(owner.wrennDir)).toEqual([slot.index]);
    await ahead.release(slot);
    size = 3;
    quiet.resolve();
    await until('three are ready', async () => (await claimsOf(owner.wrennDir)).length === 3);
    size = 1;
    await until('one is left', async () => {
      ahead.replenish();
      return (await claimsOf(owner.wrennDir)).length === 1;
    });
  });
});

describe('settleSlots', () => {
  it('removes what an earlier agent of this WRENN_DIR left, with what runs in it, and keeps what VMs use', async () => {
    const owner = claimOwner(await mkdtemp(join(dir, 'left-')));
    const earlier = new SlotPool({ owner: { ...owner, startTicks: '1' }, size: () => 0, log });
    const signal = AbortSignal.timeout(30_000);
    const [used, unused] = [await earlier.acquire(signal), await earlier.acquire(signal)];
    const stray = start('nsenter', [`--net=${unused.namespacePath}`, 'sleep', '600']);
    await once(stray, 'spawn');
    const ended = once(stray, 'close');
    await until('the stray program runs', async () => {
      const text = await readFile(`/proc/${stray.pid}/cmdline`, 'utf8');
      return text.startsWith('sleep');
    });
    await settleSlots({ owner, inUse: new Set([used.index]), log, signal });
    await ended;
    expect(await claimsOf(owner.wrennDir)).toEqual([used.index]);
    await expect(access(unused.namespacePath)).rejects.toThrow('ENOENT');
    const claim = JSON.parse(await readFile(join(CLAIMS_DIR, String(used.index)), 'utf8'));
    expect(claim.startTicks).toBe(owner.startTicks);
    await earlier.release(used);
  });

  it('takes slots of other agents that are gone, but none in which something runs', async () => {
    const owner = claimOwner(await mkdtemp(join(dir, 'gone-')));
    const vanished = new SlotPool({ owner: { ...owner, startTicks: '1' }, size: () => 0, log });
    const signal = AbortSignal.timeout(30_000);
    const [busy, idle] = [await vanished.acquire(signal), await vanished.acquire(signal)];
    const resident = start('nsenter', [`--net=${busy.namespacePath}`, 'sleep', '600']);
    await until('the resident runs', async () =>
      (await readFile(`/proc/${resident.pid}/cmdline`, 'utf8')).startsWith('sleep'),
    );
    await settleSlots({ owner: claimOwner(dir), inUse: new Set(slots.map((slot) => slot.index)), log, signal });
    expect(await claimsOf(owner.wrennDir)).toEqual([busy.index]);
    await expect(access(idle.namespacePath)).rejects.toThrow('ENOENT');
    resident.kill('SIGKILL');
    await once(resident, 'close');
    await vanished.release(busy);
  });
});

async function claimsOf(wrennDir: string): Promise<number[]> {
  const names = (await readdir(CLAIMS_DIR)).filter((name) => /^\d+$/.test(name));
  const owners = await Promise.all(names.map((name) => readFile(join(CLAIMS_DIR, name), 'utf8').catch(() => '')));
  return names.filter((_, i) => owners[i]?.includes(`"${wrennDir}"`)).map(Number);
}

function start(program: string, args: string[]): ChildProcess {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  children.push(child);
  return child;
}

/** Puts a namespace in the guest's place: two processes carry frames between its interface and the slot's TAP. */
async function plugGuest(slot: Slot): Promise<string> {
  const name = `wrenn-test-guest-${process.pid}-${slot.index}`;
  const cable = join(dir, `cable-${slot.index}`);
  await runCommand('ip', ['netns', 'add', name]);
  const tun = 'tun-type=tap,iff-no-pi';
  start('nsenter', [`--net=${slot.namespacePath}`, 'socat', `UNIX-LISTEN:${cable},type=5`, `TUN,${tun},tun-name=tap0`]);
  await until('the cable is there', async () => (await readdir(dir)).includes(`cable-${slot.index}`));
  // Its file is there a moment before it can be connected to.
  const plug = `UNIX-CONNECT:${cable},type=5,retry=100,interval=0.1`;
  start('nsenter', [`--net=/run/netns/${name}`, 'socat', plug, `TUN,${tun},tun-name=eth0`]);
  await until('it is plugged in', async () => (await runCommand('ip', ['-n', name, 'link'])).includes('eth0'));
  await runCommand('ip', ['-n', name, '-batch', '-'], {
    input: `
link set lo up
link set eth0 address ${GUEST.mac}
addr add ${GUEST.address}/${GUEST.prefixLength} dev eth0
link set eth0 up
route add default via ${GUEST.gateway}`,
  });
  return name;
}

async function makeOutside(): Promise<void> {
  const { namespace, veth, host, public: internet, blocked } = OUTSIDE;
  const input = [
    `netns add ${namespace}`,
    `link add ${veth} type veth peer name eth0 netns ${namespace}`,
    `addr add ${host}/30 dev ${veth}`,
    `link set ${veth} up`,
  ].join('\n');
  await runCommand('ip', ['-batch', '-'], { input });
  const addresses = [`${internet}/30`, ...blocked.map((address) => `${address}/32`)];
  const inside = ['link set lo up', ...addresses.map((address) => `addr add ${address} dev eth0`), 'link set eth0 up'];
  await runCommand('ip', ['-n', namespace, '-batch', '-'], { input: inside.join('\n') });
  const routes = blocked.map((address) => `route add ${address}/32 via ${internet}`);
  await runCommand('ip', ['-batch', '-'], { input: routes.join('\n') });
}

/** A server that answers with the address from which it is asked. */
async function listenIn(namespace: string | undefined): Promise<void> {
  const [program, ...args] = enter(
    namespace,
    'socat',
    `TCP-LISTEN:${PORT},fork,reuseaddr`,
    'SYSTEM:echo $SOCAT_PEERADDR',
  );
  start(program, args);
  await until(
    'it listens',
    async () => (await runCommand(...command(enter(namespace, 'ss', '-ltnH', `sport = ${PORT}`)))) !== '',
  );
}

/** What the server at `address` answers, where it is sure to: a busy machine may need more than one connection. */
function answerFrom(namespace: string | undefined, address: string): Promise<string> {
  return until(`${address} answers`, () => askFrom(namespace, address));
}

/** What the server at `address` answers; undefined when there is no connection to it soon. */
async function askFrom(namespace: string | undefined, address: string, options = ''): Promise<string | undefined> {
  const target = `TCP:${address}:${PORT},connect-timeout=0.7${options}`;
  const answer = await runCommand(...command(enter(namespace, 'socat', '-u', target, '-'))).catch(() => '');
  return answer.trim() || undefined;
}

function enter(namespace: string | undefined, program: string, ...args: string[]): [string, ...string[]] {
  return namespace ? ['nsenter', `--net=/run/netns/${namespace}`, program, ...args] : [program, ...args];
}

function command([program, ...args]: [string, ...string[]]): [string, string[]] {
  return [program, args];
}
