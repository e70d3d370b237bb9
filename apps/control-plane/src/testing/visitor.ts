import { dirname } from 'node:path';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import { desc, eq, sql } from 'drizzle-orm';
import { mails } from '../database/mail-schema.ts';
import { contentOf } from '../mail/mails.ts';
import { openSecrets } from '../secrets/secrets.ts';
import type { TestPeople } from './test-people.ts';
import type { TestPlatform } from './test-platform.ts';

export const PASSWORD = 'correct horse battery';

type Answer = Awaited<ReturnType<TestPlatform['call']>>;

/** Uses a platform as a person does, from the outside, and reads the mail of its addresses. */
export class Visitor {
  readonly #platform: TestPlatform;
  readonly #people: TestPeople;

  constructor(platform: TestPlatform, people: TestPeople) {
    this.#platform = platform;
    this.#people = people;
  }

  /** A request without a credential, or with a token. */
  async call(
    path: string,
    init: { json?: unknown; method?: string; token?: string; headers?: Record<string, string> } = {},
  ): Promise<Answer & { readonly headers: Headers }> {
    const { json, token, headers, method = json === undefined ? 'GET' : 'POST' } = init;
    const answer = await fetch(`${this.#platform.baseUrl}${path}`, {
      method,
      headers: {
        ...(json === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    });
    const text = await answer.text();
    return { status: answer.status, body: text === '' ? undefined : JSON.parse(text), headers: answer.headers };
  }

  signUp(email: string, more: object = {}): Promise<Answer> {
    return this.call('/v1/auth/signup', { json: { email, password: PASSWORD, name: 'Ada Lovelace', ...more } });
  }

  logIn(email: string, password = PASSWORD): Promise<Answer> {
    return this.call('/v1/auth/login', { json: { email, password } });
  }

  /** Signs up, activates, and is logged in. */
  async arrive(email: string, more: object = {}): Promise<AuthBody> {
    await this.signUp(email, more);
    const { status, body } = await this.call('/v1/auth/activate', { json: { token: await this.tokenFrom(email) } });
    if (status !== 200) throw new Error(`the activation was answered with ${status}: ${JSON.stringify(body)}`);
    return body;
  }

  /** Kinds of the mails to an address, the oldest first. */
  async mailsTo(email: string): Promise<string[]> {
    const rows = await this.#people.db.select().from(mails).where(toAddress(email)).orderBy(mails.createdAt, mails.id);
    return rows.map(({ kind }) => kind);
  }

  /** The token in the link of the newest mail to an address. */
  async tokenFrom(email: string): Promise<string> {
    const [mail] = await this.#people.db
      .select()
      .from(mails)
      .where(toAddress(email))
      .orderBy(desc(mails.createdAt), desc(mails.id))
      .limit(1);
    const given = { jwtSecret: undefined, encryptionKeys: undefined };
    const { keyRing } = await openSecrets(dirname(this.#platform.apiKeyFile), given);
    const token = /[?&]token=([\w-]+)/.exec((mail && contentOf(mail, keyRing)?.link) ?? '')?.[1];
    if (token === undefined) throw new Error(`no link was mailed to ${email}`);
    return token;
  }
}

const toAddress = (email: string) => eq(sql`lower(${mails.toAddress})`, email.toLowerCase());
