import { randomUUID } from 'node:crypto';
import { makeSigningRequest } from '@wrenn/pki/signing-request';
import type { TestPlatform } from './test-platform.ts';

type Answer = Awaited<ReturnType<TestPlatform['call']>>;

/** What an agent sends about its machine when it registers. */
export async function registrationBody(token: string, more: object = {}): Promise<Record<string, unknown>> {
  const { csrPem } = await makeSigningRequest();
  return {
    ...{ token, arch: 'amd64', cpu_cores: 8, memory_mb: 16_384, disk_gb: 100, address: '10.0.0.5:50051', csr: csrPem },
    ...more,
  };
}

/** A heartbeat of a new agent that has nothing, unless told. */
export function heartbeatBody(more: object = {}): Record<string, unknown> {
  return {
    ...{ sent_at: new Date().toISOString(), boot_id: randomUUID(), sequence: 1, agent_version: '0.1.0' },
    ...{ cpu_cores: 8, memory_mb: 16_384, memory_free_mb: 8000, disk_mb: 100_000, disk_free_mb: 50_000 },
    ...{ load_1m: 0.5, templates: ['minimal'], vms: [], samples: [] },
    ...more,
  };
}

/** The requests of agents, which carry nothing but what a host has. */
export class TestHosts {
  readonly #platform: TestPlatform;

  constructor(platform: TestPlatform) {
    this.#platform = platform;
  }

  async register(token: string, more: object = {}): Promise<Answer> {
    return this.#ask('/v1/hosts/register', await registrationBody(token, more));
  }

  async refresh(refreshToken: string, more: object = {}): Promise<Answer> {
    const { csrPem } = await makeSigningRequest();
    return this.#ask('/v1/hosts/auth/refresh', { refresh_token: refreshToken, csr: csrPem, ...more });
  }

  heartbeat(id: string, token: string, more: object = {}): Promise<Answer> {
    return this.#ask(`/v1/hosts/${id}/heartbeat`, heartbeatBody(more), { 'x-host-token': token });
  }

  async #ask(path: string, json: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    const answer = await fetch(`${this.#platform.baseUrl}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(json),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) };
  }
}
