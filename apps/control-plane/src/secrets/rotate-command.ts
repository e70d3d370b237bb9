import { pino } from 'pino';
import { openDatabase } from '../database/database.ts';
import { readSettings } from '../settings.ts';
import { rotateSecrets } from './rotate.ts';
import { openSecrets } from './secrets.ts';

// `wrenn-cp rotate-secrets`: with the new key before the old one in WRENN_ENCRYPTION_KEY.
const settings = readSettings();
const log = pino({ name: 'wrenn-rotate-secrets', level: settings.logLevel });
const { keyRing } = await openSecrets(settings.wrennDir, settings);
await using database = await openDatabase({ url: settings.databaseUrl, dir: settings.wrennDir, log });
const rotated = await rotateSecrets(database.db, keyRing, log);
for (const { column, renewed, unreadable } of rotated) {
  process.stdout.write(`${column}: ${renewed} encrypted anew${unreadable > 0 ? `, ${unreadable} unreadable` : ''}\n`);
}
if (rotated.some(({ unreadable }) => unreadable > 0)) {
  process.stdout.write('Keep every key: what is unreadable needs one that WRENN_ENCRYPTION_KEY lacks.\n');
  process.exitCode = 1;
}
