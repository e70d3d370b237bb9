import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import { Writable } from 'node:stream';
import type { ApiClient } from '../api/client.ts';
import { execStreaming } from '../api/exec-stream.ts';
import { note } from '../cli.ts';
import { CliError, messageOf } from '../cli-error.ts';

/** The files of one capsule as one of its users sees them, for a copy. */
export interface Guest {
  readonly api: ApiClient;
  readonly capsuleId: string;
  readonly user: string | undefined;
  readonly signal: AbortSignal;
}

/** A path in the guest and what is there. */
export interface GuestPath {
  /** Absolute. */
  readonly path: string;
  readonly found:
    | { readonly kind: 'file' | 'directory' | 'other'; readonly sizeBytes: number; readonly mode: number }
    | undefined;
}

/** `stat -L` follows links; %f is st_mode in hex. Both GNU's and busybox's stat know these. */
const LOOK = 'cd 2>/dev/null; pwd; if [ -e "$1" ]; then stat -L -c "%f %s" -- "$1"; fi';

const S_IFMT = 0o170_000;
const S_IFDIR = 0o040_000;
const S_IFREG = 0o100_000;

/** Looks at a path. A relative one starts at the user's home directory. */
export async function lookAt(guest: Guest, path: string): Promise<GuestPath> {
  const output = await guestShell(guest, LOOK, [path], `look at ${path}`);
  const [home = '/', stat] = output.split('\n');
  const absolute = posix.resolve(home, path);
  const [modeHex, size] = stat?.split(' ') ?? [];
  if (!modeHex || size === undefined) return { path: absolute, found: undefined };
  const mode = Number.parseInt(modeHex, 16);
  const type = mode & S_IFMT;
  const kind = type === S_IFDIR ? 'directory' : type === S_IFREG ? 'file' : 'other';
  return { path: absolute, found: { kind, sizeBytes: Number(size), mode: mode & 0o7777 } };
}

/** Sets the permission bits of a guest's file. */
export async function setMode(guest: Guest, path: string, mode: number): Promise<void> {
  await guestShell(guest, 'chmod "$1" "$2"', [mode.toString(8), path], `set the mode of ${path}`);
}

const REMOVE_TIMEOUT_MS = 15_000;

/**
 * A name for an archive in the guest for as long as `use` runs. Folders travel as one file, because the guest takes and
 * gives files many times faster than the input and output of a program.
 */
export async function withGuestArchive<T>(guest: Guest, use: (archive: string) => Promise<T>): Promise<T> {
  const archive = `/tmp/.wrenn-cp-${randomBytes(6).toString('hex')}.tar`;
  try {
    return await use(archive);
  } finally {
    try {
      const signal = AbortSignal.timeout(REMOVE_TIMEOUT_MS);
      await guestShell({ ...guest, signal }, 'rm -f "$1"', [archive], 'remove the archive');
    } catch (error) {
      note(`${archive} may be left in the capsule: ${messageOf(error)}`);
    }
  }
}

/** Unpacks an archive into a folder of the guest, which is made. */
export async function unpackInGuest(guest: Guest, archive: string, folder: string): Promise<void> {
  // -o: the files belong to the guest's user, not to our numbers.
  const script = 'mkdir -p "$1" && exec tar -C "$1" -x -o -f "$2"';
  await guestShell(guest, script, [folder, archive], `unpack into ${folder}`);
}

/** Packs what is in a folder of the guest. Answers the size of the archive in bytes. */
export async function packInGuest(guest: Guest, folder: string, archive: string): Promise<number> {
  const script = 'umask 077; tar -C "$1" -c -f "$2" . && stat -c %s "$2"';
  return Number(await guestShell(guest, script, [folder, archive], `pack ${folder}`));
}

/** Runs a script and answers its output. @throws CliError with what it wrote to stderr when it fails. */
async function guestShell(
  { api, capsuleId, user, signal }: Guest,
  script: string,
  args: readonly string[],
  purpose: string,
): Promise<string> {
  const out = collector(64 * 1024);
  const err = collector(64 * 1024);
  const { exitCode } = await execStreaming(
    api,
    capsuleId,
    { cmd: '/bin/sh', args: ['-c', script, 'sh', ...args], user, stdout: out.stream, stderr: err.stream },
    signal,
  );
  if (exitCode === 0) return out.text();
  const reason = err.text().trim() || `exit code ${exitCode}`;
  throw new CliError(`The capsule could not ${purpose}: ${reason}`, 'Check the path, or give --user root.');
}

/** Keeps the beginning of what is written to it. */
function collector(maxBytes: number): { stream: Writable; text: () => string } {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (sizeBytes < maxBytes) chunks.push(chunk.subarray(0, maxBytes - sizeBytes));
      sizeBytes += chunk.length;
      done();
    },
  });
  return { stream, text: () => Buffer.concat(chunks).toString() };
}
