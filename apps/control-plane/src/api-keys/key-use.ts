import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { LastUse } from '../database/last-use.ts';

/** When keys were last used. */
export class KeyUse extends LastUse {
  constructor(db: Db, log: Logger, intervalMs?: number) {
    super(db, log, { table: 'api_keys', column: 'last_used_at' }, intervalMs);
  }
}
