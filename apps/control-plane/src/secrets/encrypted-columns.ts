import { and, asc, eq, gt, isNotNull, ne, or } from 'drizzle-orm';
import { configPlace } from '../channels/config-secrets.ts';
import { channels } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import { mails } from '../database/mail-schema.ts';
import { users } from '../database/people-schema.ts';
import { idempotentRequests } from '../database/request-schema.ts';
import { placeOf as answerPlace } from '../http/kept-answer.ts';
import { placeOf as mailPlace } from '../mail/mails.ts';
import { totpPlace } from '../two-factor/second-factor.ts';

/** A row with encrypted values. */
export interface SealedRow {
  /** Each value with the place that it is bound to. */
  readonly values: readonly { readonly sealed: string; readonly place: string }[];
  /** Writes them anew, in the same order, unless one was changed meanwhile. @returns whether it did */
  readonly write: (values: readonly string[]) => Promise<boolean>;
}

/** A column whose values are encrypted. */
export interface EncryptedColumn {
  readonly name: string;
  /** Rows after that one, in the order of their keys. @returns with the key of the last of them */
  readonly page: (db: Db, after: string) => Promise<{ readonly rows: readonly SealedRow[]; readonly last: string }>;
}

const PAGE = 200;
/** Between the parts of a key of several columns, in which it cannot stand. */
const SEPARATOR = '\n';

/** All that is encrypted in the database. A column that is missing here cannot be read once its key is gone. */
export const ENCRYPTED_COLUMNS: readonly EncryptedColumn[] = [
  {
    name: 'channels.config',
    page: async (db, after) => {
      const found = await db
        .select({ id: channels.id, config: channels.config })
        .from(channels)
        .where(gt(channels.id, after))
        .orderBy(asc(channels.id))
        .limit(PAGE);
      const rows = found.map(({ id, config }): SealedRow => {
        const fields = Object.keys(config);
        return {
          values: fields.map((field) => ({ sealed: config[field] ?? '', place: configPlace(id, field) })),
          write: async (values) => {
            const renewed = Object.fromEntries(fields.map((field, index) => [field, values[index] ?? '']));
            const isSame = and(eq(channels.id, id), eq(channels.config, config));
            return hasChanged(await db.update(channels).set({ config: renewed }).where(isSame));
          },
        };
      });
      return { rows, last: found.at(-1)?.id ?? '' };
    },
  },
  {
    name: 'users.totp_secret',
    page: async (db, after) => {
      const found = await db
        .select({ id: users.id, sealed: users.totpSecret })
        .from(users)
        .where(and(gt(users.id, after), isNotNull(users.totpSecret)))
        .orderBy(asc(users.id))
        .limit(PAGE);
      const rows = found.map(({ id, sealed }) =>
        single(sealed, totpPlace(id), async (old, totpSecret) =>
          db
            .update(users)
            .set({ totpSecret })
            .where(and(eq(users.id, id), eq(users.totpSecret, old))),
        ),
      );
      return { rows, last: found.at(-1)?.id ?? '' };
    },
  },
  {
    name: 'mails.body',
    page: async (db, after) => {
      const found = await db
        .select({ id: mails.id, sealed: mails.body })
        .from(mails)
        .where(and(gt(mails.id, after), ne(mails.body, '')))
        .orderBy(asc(mails.id))
        .limit(PAGE);
      const rows = found.map(({ id, sealed }) =>
        single(sealed, mailPlace(id), async (old, body) =>
          db
            .update(mails)
            .set({ body })
            .where(and(eq(mails.id, id), eq(mails.body, old))),
        ),
      );
      return { rows, last: found.at(-1)?.id ?? '' };
    },
  },
  {
    name: 'idempotent_requests.answer',
    page: async (db, after) => {
      const { owner, operation, key, answer } = idempotentRequests;
      const [afterOwner = '', afterOperation = '', afterKey = ''] = after.split(SEPARATOR);
      const isAfter = or(
        gt(owner, afterOwner),
        and(eq(owner, afterOwner), gt(operation, afterOperation)),
        and(eq(owner, afterOwner), eq(operation, afterOperation), gt(key, afterKey)),
      );
      const found = await db
        .select({ owner, operation, key, sealed: answer })
        .from(idempotentRequests)
        .where(and(isAfter, isNotNull(answer)))
        .orderBy(asc(owner), asc(operation), asc(key))
        .limit(PAGE);
      const rows = found.map((row) =>
        single(row.sealed, answerPlace(row), async (old, renewed) =>
          db
            .update(idempotentRequests)
            .set({ answer: renewed })
            .where(and(eq(owner, row.owner), eq(operation, row.operation), eq(key, row.key), eq(answer, old))),
        ),
      );
      const last = found.at(-1);
      return { rows, last: last ? [last.owner, last.operation, last.key].join(SEPARATOR) : '' };
    },
  },
];

/** A row with one encrypted value. */
function single(
  sealed: string | null,
  place: string,
  write: (old: string, renewed: string) => Promise<{ rowCount: number | null }>,
): SealedRow {
  const old = sealed ?? '';
  return { values: [{ sealed: old, place }], write: async ([renewed = '']) => hasChanged(await write(old, renewed)) };
}

function hasChanged({ rowCount }: { rowCount: number | null }): boolean {
  return (rowCount ?? 0) > 0;
}
