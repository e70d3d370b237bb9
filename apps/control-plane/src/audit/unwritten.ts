import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { insertEntries, type StampedEntry } from './record.ts';

const NAME = /^audit-unwritten-[0-9a-f]+\.ndjson$/;
const BATCH = 250;

/** Entries that the database did not take before the program ended, one in each line. */
export class UnwrittenEntries {
  readonly #dir: string;
  readonly file: string;

  /** @param dir WRENN_DIR */
  constructor(dir: string) {
    this.#dir = dir;
    this.file = join(dir, `audit-unwritten-${randomBytes(8).toString('hex')}.ndjson`);
  }

  /** Synchronous: what comes last must not be lost to the end of the program. */
  keep(entries: readonly StampedEntry[]): void {
    const lines = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('');
    const handle = openSync(this.file, 'a', 0o600);
    try {
      writeSync(handle, lines);
      fsyncSync(handle);
    } finally {
      closeSync(handle);
    }
  }

  /** Writes what earlier programs kept. Of several that do so at once each entry is written once. */
  async writeAll(db: Db, log: Logger): Promise<void> {
    for (const name of (await readdir(this.#dir)).filter((file) => NAME.test(file))) {
      const path = join(this.#dir, name);
      const entries = parse(await readFile(path, 'utf8').catch(emptyIfGone), path, log);
      for (let from = 0; from < entries.length; from += BATCH) {
        await insertEntries(db, entries.slice(from, from + BATCH));
      }
      await rm(path, { force: true });
      log.info({ entries: entries.length, file: path }, 'wrote audit entries that an earlier program kept');
    }
  }
}

function parse(text: string, path: string, log: Logger): StampedEntry[] {
  return text.split('\n').flatMap((line) => {
    if (line === '') return [];
    try {
      const entry = JSON.parse(line) as StampedEntry;
      return [{ ...entry, createdAt: new Date(entry.createdAt) }];
    } catch {
      // The machine stopped in the middle of this line.
      log.error({ line, path }, 'a kept audit entry is cut off');
      return [];
    }
  });
}

function emptyIfGone(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return '';
  throw error;
}
