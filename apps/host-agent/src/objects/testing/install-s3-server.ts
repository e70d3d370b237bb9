import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** An S3 server of its own, by the makers of an archive for S3; it keeps objects as files, so tests can damage them. */
const MODULE = 'github.com/versity/versitygw/cmd/versitygw';
const VERSION = 'v1.8.0';
const BUILD_TIMEOUT_MS = 900_000;
/** Where the Go project's own installer puts it, which is not on every PATH. */
const GO_FOLDER = '/usr/local/go/bin';

const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'wrenn');

export const S3_SERVER_PROGRAM = join(cache, `versitygw-${VERSION}`);

/** Why tests cannot have an S3 server here; undefined where they can. */
export function s3ServerProblem(): string | undefined {
  return existsSync(S3_SERVER_PROGRAM) ? undefined : 'no S3 server: make check builds one where Go is installed';
}

/**
 * Builds the S3 server of the tests with Go, where that is not done yet. It lies in the user's cache folder, outside
 * WRENN_DIR and the repository.
 *
 * @returns what happened, for people.
 */
export async function installS3Server(): Promise<string> {
  if (!s3ServerProblem()) return S3_SERVER_PROGRAM;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.versitygw-'));
  try {
    await promisify(execFile)('go', ['install', '-trimpath', '-ldflags=-s -w', `${MODULE}@${VERSION}`], {
      env: { ...process.env, PATH: `${process.env.PATH}:${GO_FOLDER}`, GOBIN: work },
      timeout: BUILD_TIMEOUT_MS,
    });
    await rename(join(work, 'versitygw'), S3_SERVER_PROGRAM);
    return S3_SERVER_PROGRAM;
  } catch (error) {
    return `not built, tests that need it are skipped: ${reasonOf(error)}`;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function reasonOf(error: unknown): string {
  const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
  if (code === 'ENOENT') return `Go is not installed in ${GO_FOLDER} or on PATH`;
  return stderr?.trim().split('\n').at(-1) || message;
}

if (import.meta.main) process.stdout.write(`S3 server: ${await installS3Server()}\n`);
