import { posix } from 'node:path';
import { type Readable, Writable } from 'node:stream';
import type { ApiClient } from '../api/client.ts';
import { execStreaming } from '../api/exec-stream.ts';
import { CliError } from '../cli-error.ts';

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
  const { stdout } = await guestShell(guest, LOOK, [path], `look at ${path}`);
  const [home = '/', stat] = stdout.split('\n');
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

/** Unpacks a tar stream into a folder of the guest, which is made. */
export async function unpackInGuest(guest: Guest, folder: string, archive: Readable): Promise<void> {
  // -o: the files belong to the guest's user, not to our numbers.
  await guestShell(guest, 'mkdir -p "$1" && exec tar -C "$1" -x -o -f -', [folder], `unpack into ${folder}`, {
    stdin: archive,
  });
}

/** Packs what is in a folder of the guest into `archive`, as tar. */
export async function packInGuest(guest: Guest, folder: string, archive: Writable): Promise<void> {
  await guestShell(guest, 'exec tar -C "$1" -c -f - .', [folder], `pack ${folder}`, { stdout: archive });
}

interface ShellStreams {
  readonly stdin?: Readable;
  readonly stdout?: Writable;
}

async function guestShell(
  { api, capsuleId, user, signal }: Guest,
  script: string,
  args: readonly string[],
  purpose: string,
  { stdin, stdout }: ShellStreams = {},
): Promise<{ stdout: string }> {
  const out = collector(1024 * 1024);
  const err = collector(64 * 1024);
  const { exitCode } = await execStreaming(
    api,
    capsuleId,
    {
      cmd: '/bin/sh',
      args: ['-c', script, 'sh', ...args],
      user,
      stdin,
      stdout: stdout ?? out.stream,
      stderr: err.stream,
    },
    signal,
  );
  if (exitCode === 0) return { stdout: out.text() };
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
