import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { LastUse } from '../database/last-use.ts';

/** When sessions were last seen. */
export class SessionUse extends LastUse {
  constructor(db: Db, log: Logger, intervalMs?: number) {
    super(db, log, { table: 'sessions', column: 'last_seen_at' }, intervalMs);
  }
}
