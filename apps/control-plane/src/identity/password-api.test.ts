import { and, eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditLog } from '../database/audit-schema.ts';
import { oneTimeTokens, users } from '../database/people-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { PASSWORD, Visitor } from '../testing/visitor.ts';
import { FAILURES_TO_LOCK } from './lock-out.ts';
import { lockUserByEmail } from './user-store.ts';

const NEW_PASSWORD = 'a new password';

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const change = (token: string, json: object) => visitor.call('/v1/me/password', { json, token });
const requestReset = (email: string) => visitor.call('/v1/me/password/reset', { json: { email } });
const confirmReset = (token: string, password = NEW_PASSWORD) =>
  visitor.call('/v1/me/password/reset/confirm', { json: { token, new_password: password } });
const isLoggedIn = async (token: string) => (await visitor.call('/v1/me', { token })).status === 200;
const actionsOn = async (userId: string) =>
  (await people.db.select().from(auditLog).where(eq(auditLog.resourceId, userId))).map(({ action }) => action);

describe('changing the password', () => {
  it('needs the current one, ends all other sessions, and is told by mail', async () => {
    const auth = await visitor.arrive('ada@example.com');
    const other = await visitor.logIn('ada@example.com');
    const wrong = await change(auth.token, { current_password: 'nonsense', new_password: NEW_PASSWORD });
    expect([wrong.status, wrong.body.error.code]).toEqual([401, 'wrong_password']);
    expect((await change(auth.token, { new_password: NEW_PASSWORD })).body.error.code).toBe('wrong_password');
    expect((await change(auth.token, { current_password: PASSWORD, new_password: 'short' })).status).toBe(400);
    expect(await isLoggedIn(other.body.token)).toBe(true);

    expect((await change(auth.token, { current_password: PASSWORD, new_password: NEW_PASSWORD })).status).toBe(204);
    expect(await isLoggedIn(auth.token)).toBe(true);
    expect(await isLoggedIn(other.body.token)).toBe(false);
    expect((await visitor.logIn('ada@example.com')).status).toBe(401);
    expect((await visitor.logIn('ada@example.com', NEW_PASSWORD)).status).toBe(200);
    expect(await visitor.mailsTo('ada@example.com')).toEqual(['activation', 'password_changed']);
    expect(await actionsOn(auth.user_id)).toContain('password_change');
  });

  it('counts wrong ones for the lock', async () => {
    const auth = await visitor.arrive('guess@example.com');
    for (let times = 0; times < FAILURES_TO_LOCK; times++) {
      await change(auth.token, { current_password: 'nonsense', new_password: NEW_PASSWORD });
    }
    const right = await change(auth.token, { current_password: PASSWORD, new_password: NEW_PASSWORD });
    expect(right.body.error.code).toBe('wrong_password');
    expect((await visitor.logIn('guess@example.com')).status).toBe(401);
  });

  it('of two at once happens once', async () => {
    const auth = await visitor.arrive('race@example.com');
    const answers = await Promise.all(
      ['first password', 'second password'].map((password) =>
        change(auth.token, { current_password: PASSWORD, new_password: password }),
      ),
    );
    expect(answers.map(({ status }) => status).toSorted()).toEqual([204, 401]);
  });

  it('gives the first one to an account that has none', async () => {
    const user = await people.addUser();
    const token = await people.logIn(user, undefined);
    expect((await visitor.call('/v1/me', { token })).body.has_password).toBe(false);
    for (const confirm_password of [undefined, 'another']) {
      expect((await change(token, { new_password: NEW_PASSWORD, confirm_password })).status).toBe(400);
    }
    const added = await change(token, { new_password: NEW_PASSWORD, confirm_password: NEW_PASSWORD });
    expect(added.status).toBe(204);
    expect((await visitor.logIn(user.email, NEW_PASSWORD)).status).toBe(200);
    expect(await visitor.mailsTo(user.email)).toEqual(['password_added']);
  });
});

describe('a reset', () => {
  it('is answered the same for every address, and mailed to accounts that are active', async () => {
    await visitor.arrive('known@example.com');
    await visitor.signUp('waiting@example.com');
    for (const email of ['known@example.com', 'waiting@example.com', 'nobody@example.com']) {
      expect(await requestReset(email)).toMatchObject({ status: 204, body: undefined });
    }
    expect(await visitor.mailsTo('known@example.com')).toEqual(['activation', 'password_reset']);
    expect(await visitor.mailsTo('waiting@example.com')).toEqual(['activation']);
    expect(await visitor.mailsTo('nobody@example.com')).toEqual([]);
  });

  it('sets the password once, ends all sessions and the lock', async () => {
    const auth = await visitor.arrive('forgot@example.com');
    const until = new Date(Date.now() + 3_600_000);
    await people.db.update(users).set({ failedLogins: 20, lockedUntil: until }).where(eq(users.id, auth.user_id));
    await requestReset('Forgot@example.com');
    const token = await visitor.tokenFrom('forgot@example.com');
    const answers = await Promise.all(Array.from({ length: 4 }, () => confirmReset(token)));
    expect(answers.map(({ status }) => status).toSorted()).toEqual([204, 400, 400, 400]);
    expect(await isLoggedIn(auth.token)).toBe(false);
    expect((await visitor.logIn('forgot@example.com')).status).toBe(401);
    expect((await visitor.logIn('forgot@example.com', NEW_PASSWORD)).status).toBe(200);
    expect(await visitor.mailsTo('forgot@example.com')).toEqual(['activation', 'password_reset', 'reset_completed']);
    expect(await actionsOn(auth.user_id)).toEqual(expect.arrayContaining(['password_reset_request', 'password_reset']));
  });

  it('waits for other changes of the account before it takes the token, as they do', async () => {
    const auth = await visitor.arrive('order@example.com');
    await requestReset('order@example.com');
    const token = await visitor.tokenFrom('order@example.com');
    const { answer } = await people.db.transaction(async (tx) => {
      await lockUserByEmail(tx, 'order@example.com');
      const begun = confirmReset(token);
      await untilBlocked(people.db);
      const own = eq(oneTimeTokens.subject, auth.user_id);
      expect(await tx.select().from(oneTimeTokens).where(own).for('update', { noWait: true })).toHaveLength(1);
      return { answer: begun };
    });
    expect((await answer).status).toBe(204);
  });

  it('works with the last token only, as long as it holds, for an account that is active', async () => {
    const auth = await visitor.arrive('several@example.com');
    await requestReset('several@example.com');
    const first = await visitor.tokenFrom('several@example.com');
    await requestReset('several@example.com');
    const second = await visitor.tokenFrom('several@example.com');
    expect((await confirmReset(first)).body.error.code).toBe('invalid_token');
    const held = and(eq(oneTimeTokens.purpose, 'password_reset'), eq(oneTimeTokens.subject, auth.user_id));
    const [{ expiresAt } = { expiresAt: new Date(0) }] = await people.db.select().from(oneTimeTokens).where(held);
    expect(expiresAt.getTime() - Date.now()).toBeGreaterThan(14 * 60_000);
    await people.db
      .update(oneTimeTokens)
      .set({ expiresAt: new Date(Date.now() - 1) })
      .where(held);
    expect((await confirmReset(second)).body.error.code).toBe('invalid_token');
    await people.db.update(oneTimeTokens).set({ expiresAt }).where(held);
    await people.db.update(users).set({ status: 'disabled' }).where(eq(users.id, auth.user_id));
    expect((await confirmReset(second)).body.error.code).toBe('invalid_token');
    expect((await confirmReset('nonsense')).body.error.code).toBe('invalid_token');
    // A token of another kind is none of these.
    await visitor.signUp('other-kind@example.com');
    expect((await confirmReset(await visitor.tokenFrom('other-kind@example.com'))).status).toBe(400);
  });

  it('ends a login that waits for its second factor, and what the old password began', async () => {
    const auth = await visitor.arrive('second@example.com');
    await people.db.update(users).set({ totpConfirmedAt: new Date() }).where(eq(users.id, auth.user_id));
    const { challenge } = (await visitor.logIn('second@example.com')).body.error.details;
    const json = { challenge, code: '123456' };
    expect((await visitor.call('/v1/auth/two-factor', { json })).body.error.code).not.toBe('invalid_token');
    await requestReset('second@example.com');
    await confirmReset(await visitor.tokenFrom('second@example.com'));
    expect((await visitor.call('/v1/auth/two-factor', { json })).body.error.code).toBe('invalid_token');
  });
});
