import { stopTestServer } from './test-database.ts';

/** Vitest calls it when all tests of a run have ended. */
export async function teardown(): Promise<void> {
  await stopTestServer();
}
