import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import { type CommandResult, runCommand } from './run-command.ts';

/** What a client asked. */
export interface FakeRequest {
  /** Method, path and query: `POST /v1/capsules/cl-1/pause`. */
  readonly line: string;
  readonly body: unknown;
}

export interface FakeAnswer {
  readonly status?: number;
  readonly json?: unknown;
  /** In place of JSON. */
  readonly text?: string;
}

/** An API whose answers a test gives, and the command line in this process against it. */
export interface FakeApi extends AsyncDisposable {
  readonly requests: FakeRequest[];
  run(...args: string[]): Promise<CommandResult>;
}

export async function startFakeApi(answer: (request: FakeRequest) => FakeAnswer): Promise<FakeApi> {
  const requests: FakeRequest[] = [];
  const server = createServer(async (request, response) => {
    const content = await text(request);
    const asked = { line: `${request.method} ${request.url}`, body: content === '' ? undefined : JSON.parse(content) };
    requests.push(asked);
    const { status = 200, json, text: plain } = answer(asked);
    response
      .writeHead(status, { 'content-type': 'application/json' })
      .end(plain ?? (json === undefined ? '' : JSON.stringify(json)));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  return {
    requests,
    run: (...args) =>
      runCommand({ baseUrl: `http://127.0.0.1:${port}`, apiKey: 'wrn_test', loginToken: 'login-token' }, args),
    [Symbol.asyncDispose]: async () => {
      server.close().closeAllConnections();
    },
  };
}

/** A capsule as the API shows it. */
export function capsuleBody(changes: Partial<CapsuleBody> = {}): CapsuleBody {
  const now = new Date().toISOString();
  return {
    id: `cl-${'a'.repeat(25)}`,
    status: 'running',
    status_reason: null,
    template: 'minimal',
    vcpus: 1,
    memory_mb: 512,
    disk_mb: 1024,
    timeout_sec: 0,
    on_timeout: 'pause',
    auto_resume: false,
    deadline_at: null,
    generation: 0,
    slept_at: null,
    snapshot_bytes: null,
    snapshot_problem: null,
    snapshot_id: null,
    memory: 'kept',
    forked_from: null,
    guest_ip: null,
    host_ip: null,
    created_at: now,
    started_at: now,
    last_active_at: now,
    last_updated: now,
    metadata: {},
    ...changes,
  };
}
