import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { newId } from '@wrenn/protocol/ids';
import type { KeyScope } from '@wrenn/protocol/rest/api-keys';
import type { TeamRole } from '@wrenn/protocol/rest/teams';
import { drizzle } from 'drizzle-orm/node-postgres';
import { makeKey } from '../api-keys/new-key.ts';
import { ConnectionPool } from '../database/connection-pool.ts';
import type { Db } from '../database/database.ts';
import { apiKeys, teamMembers, teams, users } from '../database/people-schema.ts';
import * as schema from '../database/schema.ts';
import { signSessionToken } from '../identity/session-token.ts';
import { beginSession, SESSION_LIFETIME_MS } from '../identity/sessions.ts';
import { newSlug } from '../teams/slug.ts';
import type { TestPlatform } from './test-platform.ts';

export interface TestUser {
  readonly id: string;
  readonly email: string;
  readonly name: string;
}

/** Puts people, teams, tokens and keys into the database of a platform. */
export class TestPeople implements AsyncDisposable {
  readonly db: Db;
  readonly #pool: ConnectionPool;
  readonly #jwtSecret: Uint8Array;

  private constructor(pool: ConnectionPool, jwtSecret: Uint8Array) {
    this.#pool = pool;
    this.db = drizzle(pool, { schema });
    this.#jwtSecret = jwtSecret;
  }

  static async of({ databaseUrl, apiKeyFile }: TestPlatform): Promise<TestPeople> {
    const secret = await readFile(join(dirname(apiKeyFile), 'secrets/jwt-secret'), 'utf8');
    // What it breaks in the middle of, fails.
    const pool = new ConnectionPool({ connectionString: databaseUrl, max: 2 }, () => undefined);
    return new TestPeople(pool, Buffer.from(secret.trim()));
  }

  async addUser(fields: Partial<typeof users.$inferInsert> = {}): Promise<TestUser> {
    const id = newId('usr');
    const user = { id, email: `${id}@example.com`, name: 'Ada', status: 'active' as const, ...fields };
    await this.db.insert(users).values(user);
    return user;
  }

  /** @returns id of a team with these members */
  async addTeam(members: readonly { readonly user: TestUser; readonly role: TeamRole }[] = []): Promise<string> {
    const id = newId('team');
    await this.db.insert(teams).values({ id, name: 'a team', slug: newSlug() });
    for (const { user, role } of members) await this.addMember(id, user, role);
    return id;
  }

  async addMember(teamId: string, { id }: TestUser, role: TeamRole): Promise<void> {
    await this.db.insert(teamMembers).values({ teamId, userId: id, role });
  }

  /** A member of a team and their token. */
  async logInNew(teamId: string, role: TeamRole): Promise<{ readonly user: TestUser; readonly token: string }> {
    const user = await this.addUser();
    await this.addMember(teamId, user, role);
    return { user, token: await this.logIn(user, teamId) };
  }

  /** A token of a new session. */
  async logIn(user: TestUser, teamId: string | undefined): Promise<string> {
    const { id: sessionId } = await beginSession(this.db, user.id, 'password', {
      address: undefined,
      userAgent: undefined,
    });
    const shown = { name: user.name, email: user.email, role: undefined, isAdmin: false };
    const expiresAt = new Date(Date.now() + SESSION_LIFETIME_MS);
    return signSessionToken(this.#jwtSecret, { userId: user.id, sessionId, teamId }, shown, expiresAt);
  }

  async addKey(
    teamId: string,
    fields: Partial<Omit<typeof apiKeys.$inferInsert, 'scopes'>> & { readonly scopes?: KeyScope[] | null } = {},
  ): Promise<{ readonly id: string; readonly key: string }> {
    const { key, kept } = makeKey();
    const id = newId('key');
    await this.db.insert(apiKeys).values({ id, teamId, name: 'a key', ...kept, ...fields });
    return { id, key };
  }

  /** For tokens that are wrong in one thing. */
  get jwtSecret(): Uint8Array {
    return this.#jwtSecret;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
  }
}
