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

/** Creates a capsule of the default shape and resolves with its id once it runs. */
export async function createCapsule(platform: Platform): Promise<string> {
  const { id } = (await expectStatus(platform, 201, 'POST', '/v1/capsules', {})) as { id: string };
  return id;
}

export async function destroyCapsule(platform: Platform, id: string): Promise<void> {
  await expectStatus(platform, 204, 'DELETE', `/v1/capsules/${id}`);
}

/** Runs a program without arguments and resolves when it has ended. */
export async function exec(platform: Platform, id: string, cmd: string): Promise<void> {
  await expectStatus(platform, 200, 'POST', `/v1/capsules/${id}/exec`, { cmd });
}
