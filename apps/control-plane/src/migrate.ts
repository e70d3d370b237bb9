import { pino } from 'pino';
import { openDatabase } from './database/database.ts';
import { readSettings } from './settings.ts';

// Opening the database brings it to the newest schema.
const { databaseUrl, wrennDir, logLevel } = readSettings();
const log = pino({ name: 'wrenn-migrate', level: logLevel });
await using _database = await openDatabase({ url: databaseUrl, dir: wrennDir, log });
log.info('the database has the newest schema');
