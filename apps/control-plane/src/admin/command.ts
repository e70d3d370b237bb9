import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { parseArgs } from 'node:util';
import { EnvironmentError } from '@wrenn/config/environment';
import { WrennError } from '@wrenn/protocol/errors';
import { emailSchema, passwordSchema, userNameSchema } from '@wrenn/protocol/rest/auth';
import { pino } from 'pino';
import { z } from 'zod';
import type { Actor } from '../access/actor.ts';
import { type Db, openDatabase } from '../database/database.ts';
import { Passwords } from '../identity/passwords.ts';
import { publicUrlOf } from '../mail/mails.ts';
import { readSettings, type Settings } from '../settings.ts';
import { putToken } from '../tokens/one-time-tokens.ts';
import { listAdmins } from './admin-store.ts';
import { createAdmin, grantAdminByEmail, revokeAdminByEmail } from './administrators.ts';

const USAGE = `Usage: wrenn-cp admin <command>

  create <email> [--name <name>] [--password-stdin]   make an account that is an administrator of the platform;
                                                      without a password it prints a link to set one, for a day
  grant <email>                                       make somebody with an account an administrator
  revoke <email>                                      make an administrator an ordinary user; never the last one
  list                                                show the administrators
`;

const LINK_MS = 24 * 3_600_000;
/** Whoever may run this can write to the database anyway. */
const AT_THE_MACHINE: Actor = { type: 'system', name: 'wrenn-cp admin' };

export interface CommandIo {
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** Default: that of the process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/**
 * `wrenn-cp admin …`: makes the first administrator of a platform, and more, where its database can be reached.
 *
 * @returns the exit code: 0; 1 when it was refused or failed; 2 when it was asked wrongly
 */
export async function runAdminCommand(args: readonly string[], io: CommandIo): Promise<number> {
  try {
    const { positionals, values } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { name: { type: 'string' }, 'password-stdin': { type: 'boolean' }, help: { type: 'boolean' } },
    });
    if (values.help) {
      io.stdout.write(USAGE);
      return 0;
    }
    const settings = readSettings(io.env);
    const log = pino({ level: 'silent' });
    const [command, email, ...rest] = positionals;
    if (rest.length > 0 || (email === undefined) !== (command === 'list')) return misused(io);
    const password = values['password-stdin'] ? passwordSchema.parse(await firstLine(io.stdin)) : undefined;
    const address = email === undefined ? '' : emailSchema.parse(email);
    await using database = await openDatabase({ url: settings.databaseUrl, dir: settings.wrennDir, log });
    const { db } = database;
    switch (command) {
      case 'create':
        await create(db, settings, io, { email: address, name: values.name, password });
        return 0;
      case 'grant':
        await grantAdminByEmail(db, address, AT_THE_MACHINE);
        io.stdout.write(`${address} is an administrator\n`);
        return 0;
      case 'revoke':
        await revokeAdminByEmail(db, address, AT_THE_MACHINE);
        io.stdout.write(`${address} is no administrator any more\n`);
        return 0;
      case 'list':
        for (const admin of await listAdmins(db)) io.stdout.write(`${admin.email}\t${admin.name}\t${admin.status}\n`);
        return 0;
      default:
        return misused(io);
    }
  } catch (error) {
    return explain(error, io);
  }
}

interface NewAccount {
  readonly email: string;
  readonly name: string | undefined;
  readonly password: string | undefined;
}

async function create(db: Db, settings: Settings, io: CommandIo, { email, name, password }: NewAccount): Promise<void> {
  const shown = userNameSchema.parse(name ?? email.split('@')[0]);
  const passwordHash = password === undefined ? null : await new Passwords().hash(password);
  const user = await createAdmin(db, { email, name: shown, passwordHash }, AT_THE_MACHINE);
  if (passwordHash !== null) {
    io.stdout.write(`${user.email} is an administrator\n`);
    return;
  }
  const token = await putToken(db, { purpose: 'password_reset', subject: user.id, lifetimeMs: LINK_MS });
  io.stderr.write(`${user.email} is an administrator, whose password this link sets within a day:\n`);
  io.stdout.write(`${publicUrlOf(settings)}/reset-password?token=${token}\n`);
}

async function firstLine(stdin: Readable): Promise<string> {
  for await (const line of createInterface({ input: stdin })) return line;
  return '';
}

function misused({ stderr }: CommandIo): number {
  stderr.write(USAGE);
  return 2;
}

function explain(error: unknown, { stderr }: CommandIo): number {
  if (error instanceof WrennError) {
    stderr.write(`${error.message}\n${error.remedy}\n`);
    return 1;
  }
  if (error instanceof z.ZodError) {
    stderr.write(`${error.issues.map(({ message }) => message).join('\n')}\n`);
    return 2;
  }
  const isMisuse = (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  return isMisuse || error instanceof EnvironmentError ? 2 : 1;
}
