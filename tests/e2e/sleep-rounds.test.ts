import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import type { Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { newId } from '@wrenn/protocol/ids';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { clockError, runInGuest, TestAgent, vmFolderOf } from './support/host-agent.ts';

const SHAPE = { vcpus: 1, memoryMb: 256 };
const TOKEN = 'token-of-this-test';
const ROUNDS = 50;
/** Base, template, the generations that are merged beyond this many, and the one that a pause adds meanwhile. */
const MAX_LAYERS = 2 + 4 + 4;

let agent: TestAgent;
beforeAll(async () => {
  agent = await TestAgent.create(undefined, { WRENN_WARM_POOL_MAX_MB: '0' });
  await agent.start();
});
afterAll(() => agent[Symbol.asyncDispose]());

/** Holds 8 MiB of random memory, and writes a log in which every line depends on all before it. */
const PROGRAM = `
import hashlib, os, signal, time
memory = os.urandom(8 << 20)
link, count = '', 0
log = open(os.path.expanduser('~/log'), 'a', 1)
def answer(*_):
    with open('/tmp/answer.new', 'w') as file:
        file.write(f'{count} {link} {hashlib.sha256(memory).hexdigest()}')
    os.rename('/tmp/answer.new', '/tmp/answer')
signal.signal(signal.SIGUSR1, answer)
open('/tmp/pid', 'w').write(str(os.getpid()))
while True:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    count += 1
    link = hashlib.sha256(f'{link}{count}'.encode()).hexdigest()
    log.write(f'{count} {link}\\n')
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    time.sleep(0.05)
`;

/** Asks the program what it has in memory, and goes through the whole log. */
const CHECK = `
rm -f /tmp/answer; kill -USR1 $(cat /tmp/pid); while [ ! -e /tmp/answer ]; do sleep 0.02; done
python3 - <<'END'
import hashlib, os
count, link, memory = open('/tmp/answer').read().split()
seen = ''
for number, line in enumerate(open(os.path.expanduser('~/log')), 1):
    seen = hashlib.sha256(f'{seen}{number}'.encode()).hexdigest()
    assert line == f'{number} {seen}\\n', f'line {number} is {line}'
    if number == int(count): assert seen == link, f'{number} differs in memory'
assert number >= int(count), f'{number} lines, {count} in memory'
print(count, memory)
END
`;

async function layers(id: string): Promise<number> {
  const folder = (await vmFolderOf(agent.dir, id)) ?? 'nowhere';
  return JSON.parse(await readFile(join(folder, 'record.json'), 'utf8')).layers.length;
}

describe('a capsule that sleeps again and again', () => {
  it(`keeps its memory and its growing file exact over ${ROUNDS} rounds, on a short chain, with the right clock`, async () => {
    const init = { accessToken: TOKEN, hostname: 'sleeper' };
    const id = newId('cl');
    let vm = (await agent.client.createVm({ id, template: 'minimal', shape: SHAPE, init })).vm as Vm;
    const sh = async (script: string) => ((await runInGuest(vm.hostIp, TOKEN, script)) ?? 'ended').trim();
    await sh(
      `cat > /tmp/program.py <<'END'\n${PROGRAM}\nEND\nsetsid python3 /tmp/program.py >/tmp/program.log 2>&1 </dev/null &`,
    );
    await sh('while [ ! -s /tmp/pid ]; do sleep 0.1; done');
    const [, memory] = (await sh(CHECK)).split(' ');
    expect(memory).toMatch(/^[0-9a-f]{64}$/);
    const chains: number[] = [];
    let last = 0;
    for (let generation = 1; generation <= ROUNDS; generation++) {
      await agent.client.pauseVm({ id, generation });
      vm = (await agent.client.resumeVm({ id, generation, init })).vm as Vm;
      expect(await clockError(vm.hostIp, TOKEN), `the clock in round ${generation}`).toBeLessThan(1);
      const state = await sh(CHECK);
      const [count, sum] = state.split(' ');
      expect(sum, `the memory in round ${generation}: ${state}; ${await sh('cat /tmp/program.log')}`).toBe(memory);
      expect(Number(count), `the program goes on in round ${generation}`).toBeGreaterThan(last);
      last = Number(count);
      chains.push(await layers(id));
    }
    expect(Math.max(...chains), `layers of each round: ${chains.join(' ')}`).toBeLessThanOrEqual(MAX_LAYERS);
    expect(await agent.client.verifyVm({ id }).catch((error: unknown) => String(error))).toContain('running');
    expect(await readdir(join(wrennDir(agent.dir).snapshots, id))).toEqual([String(ROUNDS)]);
  }, 900_000);
});
