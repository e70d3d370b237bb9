import { chmodSync, constants, mkdirSync, type Stats } from 'node:fs';
import { lstat, open, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../errors.ts';

/** Where programs of a guest hold leases. */
export const GUEST_LEASE_DIRECTORY = '/run/wrenn/leases';

/** A lease lasts at most this long after its file was written. */
const MAX_LEASE_MS = 24 * 3600 * 1000;
/** A shell empties a file a moment before it writes it; a lease that is being renewed must not be taken for a wrong one. */
const BEING_WRITTEN_MS = 5000;
/** By this much a file may be newer than now, because a guest's clock is set after a resume. */
const CLOCK_TOLERANCE_MS = 60_000;
/** Names of the directory that are looked at, and files of it that are read. */
const MAX_ENTRIES = 1024;
const MAX_FILES = 64;
const MAX_FILE_BYTES = 128;
const MAX_NAME_LENGTH = 64;

/** A file by which a program keeps its guest awake. Times are RFC 3339. */
export interface Lease {
  readonly name: string;
  readonly expires_at: string;
  /** When the file was made. */
  readonly since: string;
}

/** A file that was meant as a lease and is none. */
export interface MalformedLease {
  readonly name: string;
  /** Fills "the lease {problem}". */
  readonly problem: string;
}

export interface LeaseReport {
  /** Those that have not expired. */
  readonly leases: Lease[];
  readonly malformed_leases: MalformedLease[];
}

/** Makes the directory, in which every user may make files and nobody remove another's. */
export function makeLeaseDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true });
  // Apart from mkdir, whose mode is cut by the umask.
  chmodSync(directory, 0o1777);
}

/**
 * Reads the leases of a directory, which belongs to whoever runs code in the guest: links are not followed, pipes and
 * devices not opened, and no more is read than bounds allow. Names that begin with a dot are for files on their way to
 * another name.
 */
export async function readLeases(directory: string, now = Date.now()): Promise<LeaseReport> {
  const report: LeaseReport = { leases: [], malformed_leases: [] };
  let device: number;
  try {
    device = (await lstat(directory)).dev;
    let [entries, files] = [0, 0];
    for await (const entry of await opendir(directory)) {
      if (++entries > MAX_ENTRIES || files >= MAX_FILES) break;
      if (entry.name.startsWith('.')) continue;
      files += 1;
      const outcome = entry.isFile()
        ? await readLease(join(directory, entry.name), device, now)
        : { problem: 'is not a regular file' };
      if (outcome === undefined) continue;
      if ('problem' in outcome) report.malformed_leases.push({ name: printable(entry.name), ...outcome });
      else if (outcome.expiresAt > now) report.leases.push(toLease(entry.name, outcome));
    }
  } catch (error) {
    // Whoever is root in the guest may have removed it; then there are none.
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error;
  }
  return report;
}

interface Validity {
  readonly expiresAt: number;
  readonly since: number;
}

type LeaseOutcome = Validity | { readonly problem: string };

/** Undefined when the file has gone meanwhile. */
async function readLease(path: string, device: number, now: number): Promise<LeaseOutcome | undefined> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  try {
    await using file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const stats = await file.stat();
    if (!stats.isFile()) return { problem: 'is not a regular file' };
    if (stats.dev !== device) return { problem: 'is on another file system' };
    const buffer = Buffer.alloc(MAX_FILE_BYTES + 1);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    if (bytesRead > MAX_FILE_BYTES) return { problem: `has more than ${MAX_FILE_BYTES} bytes` };
    return toValidity(buffer.toString('utf8', 0, bytesRead), stats, now);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT') return undefined;
    return { problem: code === 'ELOOP' ? 'is not a regular file' : `cannot be read (${code ?? 'unknown'})` };
  }
}

type Times = Pick<Stats, 'mtimeMs' | 'birthtimeMs'>;

/** What a lease's text says; exported for its tests. */
export function toValidity(text: string, { mtimeMs, birthtimeMs }: Times, now: number): LeaseOutcome {
  if (mtimeMs > now + CLOCK_TOLERANCE_MS) return { problem: 'was changed in the future' };
  // Some file systems know no time of birth.
  const since = birthtimeMs > 0 && birthtimeMs < mtimeMs ? birthtimeMs : mtimeMs;
  const content = text.trim();
  if (content === '' && now - mtimeMs < BEING_WRITTEN_MS) return { expiresAt: mtimeMs + BEING_WRITTEN_MS, since };
  const expiresAt = parseExpiry(content, mtimeMs);
  if (expiresAt === undefined) return { problem: 'holds neither seconds nor an RFC 3339 time' };
  return { expiresAt: Math.min(expiresAt, mtimeMs + MAX_LEASE_MS), since };
}

function parseExpiry(content: string, mtimeMs: number): number | undefined {
  if (/^\d{1,9}(\.\d{1,9})?$/.test(content)) return mtimeMs + Number(content) * 1000;
  // RFC 3339, 5.6, which lets people write a space for the T.
  if (!/^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/.test(content)) return undefined;
  const instant = Date.parse(content.toUpperCase().replace(' ', 'T'));
  return Number.isNaN(instant) ? undefined : instant;
}

function toLease(name: string, { expiresAt, since }: Validity): Lease {
  return {
    name: printable(name),
    expires_at: new Date(expiresAt).toISOString(),
    since: new Date(since).toISOString(),
  };
}

/** Names come from programs and go to terminals. */
function printable(name: string): string {
  return name.replaceAll(/[^\w.@:+-]/g, '?').slice(0, MAX_NAME_LENGTH);
}
