import type { Db } from '../database/database.ts';
import type { Jobs } from '../jobs/jobs.ts';
import type { NewMail } from '../mail/mail.ts';
import type { Settings } from '../settings.ts';
import type { LoginDeps } from './complete-login.ts';
import type { Passwords } from './passwords.ts';

/** What accounts are kept with. */
export interface AccountDeps extends LoginDeps {
  readonly settings: Pick<Settings, 'publicUrl' | 'signUp' | 'smtp'>;
  readonly passwords: Passwords;
  /** Takes mail in the transaction of what it tells of. */
  readonly mail: { send(tx: Db, mail: NewMail): Promise<unknown> };
  readonly jobs: Pick<Jobs, 'enqueue'>;
}
