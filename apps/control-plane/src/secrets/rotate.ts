import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { ENCRYPTED_COLUMNS, type EncryptedColumn, type SealedRow } from './encrypted-columns.ts';
import type { KeyRing } from './key-ring.ts';

/** What became of the values of a column that another key than the first had encrypted. */
export interface RotatedColumn {
  readonly column: string;
  /** Rows that are encrypted with the first key now. */
  readonly renewed: number;
  /** Rows that could not be read: their key is missing. They stay as they are. */
  readonly unreadable: number;
}

/** How often a row is looked at again that somebody else writes at the same time. */
const ROUNDS = 5;

/**
 * Encrypts everything with the first key of the ring that another one encrypted. Afterwards, where nothing was
 * unreadable and no control plane writes with another first key, the others can be dropped.
 */
export async function rotateSecrets(db: Db, keyRing: KeyRing, log: Logger): Promise<RotatedColumn[]> {
  const rotated: RotatedColumn[] = [];
  for (const column of ENCRYPTED_COLUMNS) rotated.push(await rotateColumn(db, keyRing, column, log));
  return rotated;
}

async function rotateColumn(db: Db, keyRing: KeyRing, column: EncryptedColumn, log: Logger): Promise<RotatedColumn> {
  let renewed = 0;
  let unreadable = 0;
  for (let round = 0; round < ROUNDS; round++) {
    let disturbed = 0;
    unreadable = 0;
    for (let after = ''; ; ) {
      const { rows, last } = await column.page(db, after);
      for (const row of rows) {
        const outcome = await rotateRow(keyRing, row, log);
        if (outcome === 'renewed') renewed++;
        if (outcome === 'unreadable') unreadable++;
        if (outcome === 'disturbed') disturbed++;
      }
      if (rows.length === 0) break;
      after = last;
    }
    if (disturbed === 0) return { column: column.name, renewed, unreadable };
  }
  throw new Error(`${column.name} is written all the time: run it again when there is less to do`);
}

async function rotateRow(
  keyRing: KeyRing,
  { values, write }: SealedRow,
  log: Logger,
): Promise<'fresh' | 'renewed' | 'unreadable' | 'disturbed'> {
  if (!values.some(({ sealed }) => keyRing.isStale(sealed))) return 'fresh';
  let texts: string[];
  try {
    texts = values.map(({ sealed, place }) => keyRing.decrypt(sealed, place));
  } catch (err) {
    log.error({ err, places: values.map(({ place }) => place) }, 'cannot be decrypted');
    return 'unreadable';
  }
  const anew = texts.map((text, index) => keyRing.encrypt(text, values[index]?.place ?? ''));
  return (await write(anew)) ? 'renewed' : 'disturbed';
}
