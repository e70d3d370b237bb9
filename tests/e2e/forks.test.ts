import { newId } from '@wrenn/protocol/ids';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runInGuest, TestAgent } from './support/host-agent.ts';

const SHAPE = { vcpus: 1, memoryMb: 256 };
const TOKEN = 'token-of-the-source';
const FORKS = 16;

let agent: TestAgent;
beforeAll(async () => {
  agent = await TestAgent.create(undefined, { WRENN_WARM_POOL_MAX_MB: '0' });
  await agent.start();
});
afterAll(() => agent[Symbol.asyncDispose]());

/** Programs that run at the fork, and read the kernel's random numbers anew whenever they are asked. */
const PROGRAMS = `
cat > /tmp/ask.py <<'END'
import os, secrets, signal, time
def answer(*_):
    open('/tmp/python.new', 'w').write(secrets.token_hex(16)); os.rename('/tmp/python.new', '/tmp/python')
signal.signal(signal.SIGUSR1, answer)
open('/tmp/python.pid', 'w').write(str(os.getpid()))
while True: time.sleep(60)
END
cat > /tmp/ask.sh <<'END'
trap 'head -c 16 /dev/urandom | od -An -tx8 > /tmp/shell.new; mv /tmp/shell.new /tmp/shell' USR1
echo $$ > /tmp/shell.pid
while true; do sleep 1 & wait; done
END
setsid python3 /tmp/ask.py >/dev/null 2>&1 </dev/null &
setsid bash /tmp/ask.sh >/dev/null 2>&1 </dev/null &
while [ ! -s /tmp/python.pid ] || [ ! -s /tmp/shell.pid ]; do sleep 0.1; done
`;

/** One line each; no two guests may give the same. */
const ABOUT = `
hostname
cat /etc/machine-id
head -c 16 /dev/urandom | od -An -tx8
cat /proc/sys/kernel/random/uuid
python3 -c 'import secrets; print(secrets.token_hex(16))'
node -p 'crypto.randomBytes(16).toString("hex")'
kill -USR1 $(cat /tmp/python.pid) $(cat /tmp/shell.pid)
while [ ! -e /tmp/python ] || [ ! -e /tmp/shell ]; do sleep 0.05; done
cat /tmp/python; echo; cat /tmp/shell
`;
const LINES = 8;

it(`gives each of ${FORKS} forks its own name, token and random numbers, and its source notices nothing`, async () => {
  const init = { accessToken: TOKEN, hostname: 'source' };
  const id = newId('cl');
  const { vm: source } = await agent.client.createVm({ id, template: 'minimal', shape: SHAPE, init });
  const hostIp = source?.hostIp ?? '';
  await runInGuest(hostIp, TOKEN, PROGRAMS);
  // Pid and start, counted from the boot: the time of day is set after a fork.
  const running =
    'cat /proc/sys/kernel/random/boot_id; for pid in $(cat /tmp/python.pid /tmp/shell.pid); do cut -d" " -f1,22 /proc/$pid/stat; done';
  const before = await runInGuest(hostIp, TOKEN, running);
  const children = Array.from({ length: FORKS }, (_, index) => {
    return { id: newId('cl'), init: { accessToken: `token-${index}`, hostname: `fork-${index}` } };
  });
  const { vms } = await agent.client.forkVm({ id, children });
  expect(vms).toHaveLength(FORKS);
  const guests = [
    { ip: hostIp, token: TOKEN },
    ...vms.map((vm, index) => ({ ip: vm.hostIp, token: `token-${index}` })),
  ];
  const answers: string[][] = [];
  for (const { ip, token } of guests) {
    const lines = ((await runInGuest(ip, token, ABOUT)) ?? '').trim().split('\n');
    answers.push(lines.map((line) => line.trim()).filter(Boolean));
  }
  for (const lines of answers) expect(lines).toHaveLength(LINES);
  for (let line = 0; line < LINES; line++) {
    const values = answers.map((lines) => lines[line]);
    expect(new Set(values).size, `line ${line}: ${values.join(' ')}`).toBe(FORKS + 1);
  }
  for (const [index, { ip }] of guests.entries()) {
    const foreign = guests[(index + 1) % guests.length]?.token ?? '';
    await expect(runInGuest(ip, foreign, 'true')).rejects.toThrow(/unauthenticated/);
  }
  expect(await runInGuest(hostIp, TOKEN, running)).toBe(before);
}, 600_000);
