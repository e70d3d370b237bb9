import { once } from 'node:events';
import { readdir, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { freePorts } from '@wrenn/config/free-port';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { temporaryWrennDir } from './support/platform.ts';
import { type RunningWrenn, startWrenn, wrenn } from './support/wrenn.ts';

let dir: string;
let env: Record<string, string>;
/** The last `wrenn up`, for the clean-up of a test that failed. */
let last: RunningWrenn | undefined;

beforeAll(async () => {
  dir = await temporaryWrennDir();
  const [apiPort, agentPort] = await freePorts(2);
  env = {
    WRENN_DIR: dir,
    WRENN_CP_LISTEN_ADDR: `127.0.0.1:${apiPort}`,
    WRENN_HOST_LISTEN_ADDR: `127.0.0.1:${agentPort}`,
    // What the machine's own platform may have set for this shell is not meant.
    WRENN_BASE_URL: '',
    WRENN_API_KEY: '',
    CP_HOST_AGENT_ADDR: '',
  };
});

afterAll(async () => {
  if (last) {
    await wrenn(['down', '--destroy'], env);
    last.child.kill('SIGTERM');
    await last.result;
  }
  if (dir) await rm(dir, { recursive: true, force: true });
});

/** Starts `wrenn up` and waits until it says that it is ready. */
async function up(): Promise<RunningWrenn & { said: () => string }> {
  const running = startWrenn(['up'], env);
  last = running;
  let text = '';
  for (const stream of [running.child.stdout, running.child.stderr]) {
    stream.on('data', (data: Buffer) => {
      text += data;
    });
  }
  await until('the platform is ready', 170_000, () => text.includes('Ctrl-C stops') || running.child.exitCode !== null);
  expect(running.child.exitCode, text).toBeNull();
  return { ...running, said: () => text };
}

async function pidOf(script: string): Promise<number> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const [command, environment] = await Promise.all(
      ['cmdline', 'environ'].map((name) => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '')),
    );
    if (command?.includes(script) && environment?.includes(`WRENN_DIR=${dir}\0`)) return Number(pid);
  }
  throw new Error(`${script} does not run`);
}

it('keeps the platform running, and its capsules beyond it', async () => {
  const first = await up();
  expect(first.said()).toContain(`API   http://${env.WRENN_CP_LISTEN_ADDR}`);
  expect(first.said()).toMatch(/Key +wrn_[0-9a-f]{40} /);

  // The other commands find it, without any address or key.
  const id = (await wrenn(['create'], env)).stdout.trim();
  expect(id).toMatch(/^cl-/);
  await wrenn(['exec', id, '--', 'sh', '-c', 'echo kept >/tmp/note'], env);

  const second = await wrenn(['up'], env);
  expect(second.status).toBe(1);
  expect(second.stderr).toMatch(/`wrenn up` \(process \d+\) runs on .* already; its API is at .*\n {2}→ .*wrenn down/);

  // A program that dies is started again, and its VMs are still there.
  process.kill(await pidOf('apps/host-agent/src/main.ts'), 'SIGKILL');
  await until('the agent is started again', 60_000, () =>
    /wrenn-agent was ended by SIGKILL; it starts again/.test(first.said()),
  );
  await until('the capsule answers again', 120_000, async () => {
    return (await wrenn(['exec', id, '--', 'cat', '/tmp/note'], env)).stdout === 'kept\n';
  });

  first.child.kill('SIGINT');
  expect(await first.result).toMatchObject({ status: 0 });
  expect(first.said()).toContain('1 capsule keeps running');
  await expect(pidOf('apps/host-agent/src/main.ts')).rejects.toThrow('does not run');
  await expect(pidOf('apps/control-plane/src/main.ts')).rejects.toThrow('does not run');

  const next = await up();
  expect((await wrenn(['exec', id, '--', 'cat', '/tmp/note'], env)).stdout).toBe('kept\n');
  const doctor = JSON.parse((await wrenn(['doctor', '--json'], env)).stdout) as { name: string; status: string }[];
  for (const name of ['API', 'database', 'host', 'kernel', 'image minimal', 'folder']) {
    expect(doctor.find((finding) => finding.name === name)?.status, name).toBe('ok');
  }

  expect(await wrenn(['down', '--destroy'], env)).toMatchObject({ status: 0, stdout: 'stopped\n' });
  expect(await next.result).toMatchObject({ status: 0 });
  expect(next.said()).not.toContain('keeps running');
}, 600_000);

it('ends its programs when it is killed itself', async () => {
  const { child, result } = await up();
  const programs = [await pidOf('apps/host-agent/src/main.ts'), await pidOf('apps/control-plane/src/main.ts')];
  child.kill('SIGKILL');
  await result;
  await until('both programs are gone', 60_000, () => programs.every((pid) => !isAlive(pid)));
  // Nothing that it left behind keeps the next one from starting.
  const next = await up();
  next.child.kill('SIGTERM');
  expect(await next.result).toMatchObject({ status: 0 });
}, 400_000);

it('says which variable to change when an address is taken', async () => {
  const taken = { ...env, WRENN_HOST_LISTEN_ADDR: env.WRENN_CP_LISTEN_ADDR ?? '' };
  const server = createServer().listen(Number(env.WRENN_CP_LISTEN_ADDR?.split(':')[1]), '127.0.0.1');
  await once(server, 'listening');
  try {
    const { status, stderr } = await wrenn(['up'], taken);
    expect(status).toBe(1);
    expect(stderr).toMatch(/cannot listen on .*: another program listens there\.\n {2}→ .*WRENN_CP_LISTEN_ADDR/);
  } finally {
    server.close();
  }
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
