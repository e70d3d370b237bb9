import { describe, expect, it } from 'vitest';
import { createGuestState } from '../guest-state.ts';
import { startTestEnvd } from '../testing/test-envd.ts';
import { addEntropy } from './entropy.ts';
import { hostsWithName } from './host-name.ts';
import { type GuestSystem, initialize } from './init.ts';
import { parseTimestamp } from './init-request.ts';

/** A machine that notes what is done to it, because tests must not change the one that they run on. */
function recordingSystem(now = 0): GuestSystem & { done: string[] } {
  const done: string[] = [];
  return {
    done,
    now: () => now,
    addEntropy: (entropy) => done.push(`entropy ${entropy.length}`),
    setHostName: (name) => done.push(`name ${name}`),
    setMachineId: (id) => done.push(`machine ${id}`),
    setWallClock: (unixMs) => done.push(`clock ${unixMs}`),
  };
}

describe('initialize', () => {
  it('changes the machine, then the state', () => {
    const state = createGuestState(true);
    const system = recordingSystem();
    const entropy = Buffer.alloc(32, 1).toString('base64');
    const skipped = initialize(
      {
        accessToken: 'secret',
        defaultUser: 'user',
        defaultWorkdir: '/work',
        envVars: { A: '1' },
        timestamp: '2026-01-02T03:04:05.678901Z',
        hostname: 'capsule-1',
        entropy,
        unknownField: true,
      },
      state,
      system,
    );
    expect(skipped).toEqual([]);
    expect(system.done).toEqual([
      'entropy 32',
      'name capsule-1',
      `clock ${Date.parse('2026-01-02T03:04:05.678Z') + 0.901}`,
    ]);
    expect(state).toMatchObject({ accessToken: 'secret', defaultUser: 'user', defaultWorkdir: '/work' });
    expect(Object.fromEntries(state.environment)).toEqual({ WRENN_SANDBOX: 'true', E2B_SANDBOX: 'true', A: '1' });
    initialize({ envVars: { B: '2' } }, state, system);
    expect(state).toMatchObject({ accessToken: 'secret', defaultUser: 'user' });
    expect(state.environment.get('A')).toBe('1');
  });

  it('changes no state when the machine refuses', () => {
    const state = createGuestState(true);
    const system = {
      ...recordingSystem(),
      setMachineId: () => undefined,
      setHostName: () => {
        throw new Error('refused');
      },
    };
    expect(() => initialize({ accessToken: 'secret', hostname: 'x', envVars: { A: '1' } }, state, system)).toThrow(
      'refused',
    );
    expect(state.accessToken).toBeUndefined();
    expect(state.environment.has('A')).toBe(false);
  });

  it('leaves a clock alone that is right', () => {
    const system = recordingSystem(Date.parse('2026-01-02T03:04:05.000Z'));
    initialize({ timestamp: '2026-01-02T03:04:05.030Z' }, createGuestState(true), system);
    expect(system.done).toEqual([]);
    initialize({ timestamp: '2026-01-02T03:04:04.900Z' }, createGuestState(true), system);
    expect(system.done).toHaveLength(1);
  });

  it.each([
    ['a list', [1]],
    ['an empty token', { accessToken: '' }],
    ['a token that no header carries', { accessToken: 'a\nb' }],
    ['a token that is a number', { accessToken: 5 }],
    ['a variable that is no text', { envVars: { A: 1 } }],
    ['an impossible variable', { envVars: { 'A=B': '1' } }],
    ['a timestamp in words', { timestamp: 'yesterday' }],
    ['an impossible day', { timestamp: '2026-13-01T00:00:00Z' }],
    ['a host name with a line break', { hostname: 'a\nb' }],
    ['a host name that is too long', { hostname: 'a'.repeat(65) }],
    ['entropy that is not base64', { entropy: '***' }],
    ['mounts, which there are none of', { volumeMounts: [{ nfs_target: 'x', path: '/y' }] }],
    ['certificates, which are not installed', { caBundle: '-----BEGIN' }],
  ])('refuses %s and changes nothing', (_what, body) => {
    const state = createGuestState(true);
    const system = recordingSystem();
    expect(() => initialize(body, state, system)).toThrow('The request is not valid');
    expect(system.done).toEqual([]);
    expect(state).toEqual(createGuestState(true));
  });
});

describe('POST /init', () => {
  it('says what it skips on a machine that is no guest', async () => {
    await using envd = await startTestEnvd();
    const before = Date.now();
    const response = await envd.init({
      timestamp: '2001-01-01T00:00:00Z',
      hostname: 'never',
      entropy: 'AAAA',
      envVars: { A: 'b' },
    });
    expect(response.status).toBe(204);
    expect(response.headers.get('wrenn-skipped')).toBe('entropy, hostname, timestamp');
    expect(Date.now()).toBeGreaterThanOrEqual(before);
    expect(await (await fetch(`${envd.url}/envs`)).json()).toMatchObject({ A: 'b', WRENN_SANDBOX: 'false' });
  });

  it('answers malformed JSON and what is too large with clear errors', async () => {
    await using envd = await startTestEnvd();
    const send = (body: string) => fetch(`${envd.url}/init`, { method: 'POST', body });
    const malformed = await send('{"accessToken":');
    expect(malformed.status).toBe(400);
    expect(await malformed.json()).toEqual({
      code: 400,
      message: 'The request is not valid: the body is not valid JSON',
    });
    expect((await send(JSON.stringify({ envVars: { A: 'x'.repeat(2_000_000) } }))).status).toBe(413);
  });

  it('is confirmed with an error only when nothing was set', async () => {
    const system = {
      ...recordingSystem(),
      setWallClock: () => {
        throw new Error('EPERM');
      },
    };
    await using envd = await startTestEnvd({ system });
    const response = await envd.init({ accessToken: 'never-set', timestamp: '2026-01-01T00:00:00Z' });
    expect(response.status).toBe(500);
    expect(await response.json()).toMatchObject({ code: 500 });
    expect((await fetch(`${envd.url}/envs`)).status).toBe(200);
  });
});

describe('the parts', () => {
  it('reads timestamps to the microsecond, in any zone', () => {
    expect(parseTimestamp('1970-01-01T01:00:00.123456+01:00')).toBeCloseTo(123.456, 6);
    expect(parseTimestamp('2026-01-01 00:00:00Z')).toBe(Date.parse('2026-01-01T00:00:00Z'));
  });

  it('puts one line for the name into /etc/hosts', () => {
    expect(hostsWithName('', 'a')).toBe('127.0.0.1 localhost\n::1 localhost\n127.0.1.1 a\n');
    expect(hostsWithName('127.0.0.1 localhost\n127.0.1.1 old\n10.0.0.1 x\n\n', 'new')).toBe(
      '127.0.0.1 localhost\n10.0.0.1 x\n127.0.1.1 new\n',
    );
  });

  it.runIf(process.getuid?.() === 0)('adds entropy to the kernel’s pool', () => {
    addEntropy(Buffer.alloc(32, 5));
  });
});
