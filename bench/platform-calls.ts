import type { Platform } from '../tests/e2e/support/platform.ts';

async function expectStatus(
  platform: Platform,
  expected: number,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const answer = await platform.call(method, path, body);
  if (answer.status !== expected) {
    throw new Error(`${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body)}`);
  }
  return answer.body;
}

/** Creates a capsule, of the default shape unless told, and resolves with its id once it runs. */
export async function createCapsule(platform: Platform, body: { memory_mb?: number } = {}): Promise<string> {
  const { id } = (await expectStatus(platform, 201, 'POST', '/v1/capsules', body)) as { id: string };
  return id;
}

export async function destroyCapsule(platform: Platform, id: string): Promise<void> {
  await expectStatus(platform, 204, 'DELETE', `/v1/capsules/${id}`);
}

const EXEC_TIMEOUT_SEC = 120;

/** Runs a program without arguments and resolves when it has ended. */
export async function exec(platform: Platform, id: string, cmd: string): Promise<void> {
  await expectStatus(platform, 200, 'POST', `/v1/capsules/${id}/exec`, { cmd, timeout_sec: EXEC_TIMEOUT_SEC });
}

export async function pauseCapsule(platform: Platform, id: string): Promise<void> {
  await expectStatus(platform, 200, 'POST', `/v1/capsules/${id}/pause`);
}

/** Wakes a capsule, paused or hibernated. */
export async function resumeCapsule(platform: Platform, id: string): Promise<void> {
  await expectStatus(platform, 200, 'POST', `/v1/capsules/${id}/resume`);
}

export async function hibernateCapsule(platform: Platform, id: string): Promise<void> {
  await expectStatus(platform, 200, 'POST', `/v1/capsules/${id}/hibernate`);
}

/** Resolves with the ids of the children once they run. */
export async function forkCapsule(platform: Platform, id: string, count: number): Promise<string[]> {
  const body = await expectStatus(platform, 201, 'POST', `/v1/capsules/${id}/fork`, { count });
  return (body as { capsules: { id: string }[] }).capsules.map((child) => child.id);
}

/** Bytes on the host's disk that the last sleep of a paused capsule holds. */
export async function snapshotBytes(platform: Platform, id: string): Promise<number> {
  const body = (await expectStatus(platform, 200, 'GET', `/v1/capsules/${id}`)) as { snapshot_bytes: number | null };
  if (body.snapshot_bytes === null) throw new Error(`${id} does not sleep`);
  return body.snapshot_bytes;
}
