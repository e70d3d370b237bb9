import type { BudgetBody, PoolBody, UsageBody, UsageFigures } from '@wrenn/protocol/rest/usage';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Me } from '../../api/account.ts';
import type { AdminTeam } from '../../api/admin.ts';
import { type FakeAnswer, type FakeApi, startFakeApi } from '../../testing/fake-api.ts';

const ME: Me = {
  ...{ user_id: 'user-1', team_id: 'team-1', role: 'owner', name: 'Ada', email: 'ada@example.com', is_admin: true },
  ...{ has_password: true, providers: [], two_factor: false, passkeys: 0, created_at: '2026-03-01T00:00:00Z' },
};
const TEAM: AdminTeam = {
  ...{ id: 'team-2', name: 'research', slug: 'research', is_byoc: false, deleted_at: null },
  ...{ owner_name: 'Ada', owner_email: 'ada@example.com', member_count: 1, active_sandbox_count: 0, channel_count: 0 },
  created_at: '2026-03-01T00:00:00Z',
};

let api: FakeApi;
afterEach(() => api[Symbol.asyncDispose]());

async function serve(answers: Readonly<Record<string, FakeAnswer>>): Promise<FakeApi> {
  api = await startFakeApi(({ line }) => answers[line] ?? { status: 404, json: { error: { message: line } } });
  return api;
}

const used = (changes: Partial<UsageFigures> = {}): UsageFigures => ({
  ...{ vcpu_seconds: 5400, memory_mb_seconds: 1024 * 3600 * 2, disk_mb_seconds: 1024, egress_bytes: 1536 },
  ...{ cpu_minutes: 90, ram_mb_minutes: 122_880, cost: 1.234 },
  ...changes,
});
const nothing = used({ vcpu_seconds: 0, memory_mb_seconds: 0, disk_mb_seconds: 0, egress_bytes: 0, cost: 0 });

describe('wrenn usage', () => {
  const days = { from: '2026-03-01', to: '2026-03-02' };
  const usage: UsageBody = {
    ...days,
    points: [
      { date: '2026-03-01', ...used() },
      { date: '2026-03-02', ...nothing },
    ],
    total: { ...used(), currency: 'EUR' },
  };

  it('shows the days on which something was used, and the total', async () => {
    const { run } = await serve({ 'GET /v1/capsules/usage?group_by=day': { json: usage } });
    const lines = (await run('usage')).stdout.trimEnd().split('\n');
    expect(lines).toEqual([
      expect.stringMatching(/^DAY +VCPU TIME +MEMORY +DISK +EGRESS +COST$/),
      expect.stringMatching(/^2026-03-01 +1h 30m +2\.00 GiB·h +<0\.01 GiB·h +1\.50 KiB +1\.23 EUR$/),
      expect.stringMatching(/^total +1h 30m /),
    ]);
  });

  it('groups by what it is told, over the days that it is told', async () => {
    const total = { ...used({ cost: null }), currency: null };
    const points = [
      { label: 'acme', ...used({ cost: null }) },
      { label: null, ...used({ cost: null }) },
    ];
    const line = 'GET /v1/capsules/usage?from=2026-03-01&to=2026-03-02&group_by=label&label=customer';
    const { run } = await serve({ [line]: { json: { ...days, points, total } } });
    const { stdout } = await run('usage', '--from', '2026-03-01', '--to', '2026-03-02', '--label', 'customer');
    expect(stdout).toMatch(/^CUSTOMER .*\nacme .* -\n\(none\) .* -\ntotal .* -\n$/);
  });

  it('is the answer of the API as CSV, byte for byte, or as JSON', async () => {
    const { run } = await serve({
      'GET /v1/capsules/usage?group_by=capsule&format=csv': { text: 'capsule_id,vcpu_seconds\r\n' },
      'GET /v1/capsules/usage?group_by=day': { json: usage },
    });
    expect((await run('usage', '--by', 'capsule', '--csv')).stdout).toBe('capsule_id,vcpu_seconds\r\n');
    expect(JSON.parse((await run('usage', '--json')).stdout)).toEqual(usage);
  });

  it('shows all teams to an administrator', async () => {
    const teams = [{ team_id: 'team-2', team_name: 'research', ...used() }];
    const { run } = await serve({ 'GET /v1/admin/usage': { json: { ...days, teams, total: usage.total } } });
    expect((await run('usage', '--all-teams')).stdout).toMatch(/^TEAM .*\nresearch +1h 30m/);
    await expect(run('usage', '--all-teams', '--by', 'day')).rejects.toThrow('--from and --to only');
  });

  it('refuses what cannot be asked', async () => {
    const { run, requests } = await serve({});
    const mute = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    await expect(run('usage', '--from', '1.3.2026')).rejects.toThrow('Write a day as');
    await expect(run('usage', '--by', 'label')).rejects.toThrow('belong together');
    mute.mockRestore();
    expect(requests).toEqual([]);
  });
});

describe('wrenn pool', () => {
  const pool: PoolBody = {
    team_id: 'team-1',
    limits: { vcpus: 8, memory_mb: 1024, disk_mb: null },
    used: { vcpus: 3, memory_mb: 2048, disk_mb: 10 },
    updated_at: null,
  };

  it('shows what is used, free and bought', async () => {
    const { run } = await serve({ 'GET /v1/me': { json: ME }, 'GET /v1/teams/team-1/pool': { json: pool } });
    const lines = (await run('pool', 'show')).stdout.trimEnd().split('\n').slice(1);
    expect(lines.map((line) => line.split(/ {2,}/))).toEqual([
      ['vCPUs', '3', '5', '8'],
      ['memory', '2048 MiB', '0 MiB', '1024 MiB'],
      ['disk', '10 MiB', '-', 'none'],
    ]);
  });

  it('is set by an administrator for any team, each limit by name', async () => {
    const { run, requests } = await serve({
      'GET /v1/admin/teams?page=1': { json: { teams: [TEAM], total: 1, page: 1, per_page: 50, total_pages: 1 } },
      'PUT /v1/admin/teams/team-2/pool': { json: { ...pool, team_id: 'team-2' } },
    });
    await run('pool', 'set', 'research', '--vcpus', '8', '--memory', '1G', '--disk', 'none');
    expect(requests.at(-1)?.body).toEqual({ vcpus: 8, memory_mb: 1024, disk_mb: null });
  });
});

describe('wrenn budget', () => {
  const budget: BudgetBody = {
    ...{ team_id: 'team-1', monthly: 200, warn_at_pct: 75, on_exceeded: 'warn', currency: 'EUR' },
    ...{ month: '2026-03-01', spent: 50, state: 'ok', updated_at: null },
  };

  it('shows what is spent of it', async () => {
    const { run } = await serve({ 'GET /v1/me': { json: ME }, 'GET /v1/teams/team-1/budget': { json: budget } });
    const { stdout } = await run('budget', 'show');
    expect(stdout).toMatch(/Budget +200\.00 EUR a month\n +Month +2026-03\n +Spent +50\.00 EUR \(25\.0%\)\n/);
  });

  it('keeps what is not named when it is set', async () => {
    const { run, requests } = await serve({
      'GET /v1/me': { json: ME },
      'GET /v1/teams/team-1/budget': { json: budget },
      'PUT /v1/teams/team-1/budget': { json: budget },
    });
    await run('budget', 'set', '49.90');
    expect(requests.at(-1)?.body).toEqual({ monthly: 49.9, warn_at_pct: 75, on_exceeded: 'warn' });
    await run('budget', 'set', 'none', '--warn-at', '90', '--on-exceeded', 'sleep');
    expect(requests.at(-1)?.body).toEqual({ monthly: null, warn_at_pct: 90, on_exceeded: 'sleep' });
  });
});
