import { describe, expect, it } from 'vitest';
import type { MailContent, MailKind } from './mail.ts';
import { renderMail } from './render.ts';

const PUBLIC = 'https://wrenn.example';
const KINDS: readonly MailKind[] = [
  'activation',
  'sign_up_existing',
  'password_reset',
  'password_changed',
  'password_added',
  'reset_completed',
  'team_created',
  'invitation',
  'added_to_team',
  'deletion_scheduled',
  'account_deleted',
  'two_factor_changed',
  'owner_changed',
  'channel',
];

function render(kind: MailKind, content: MailContent = {}) {
  return renderMail(kind, content, PUBLIC);
}

describe('renderMail', () => {
  it('has own words for every kind', () => {
    const subjects = KINDS.map((kind) => render(kind, { teamName: 'Blue', actorName: 'Ada' }).subject);
    expect(new Set(subjects).size).toBe(KINDS.length);
    for (const subject of subjects) expect(subject).toMatch(/Wrenn|team Blue/);
  });

  it.each([
    ['activation', '/activate?token=t0k-en_1', 'wrenn activate t0k-en_1'],
    ['password_reset', '/reset-password?token=t0k-en_1', 'wrenn account reset-password --token=t0k-en_1'],
    ['invitation', '/invite?token=t0k-en_1', 'wrenn team join t0k-en_1'],
    ['invitation', '/invitations/-0k-en_1', 'wrenn team join -- -0k-en_1'],
  ] as const)('gives the link of %s, when it ends, and the command that takes its token', (kind, link, command) => {
    const { text, html } = render(kind, { link, expiresAt: '2026-01-02T03:04:05.678Z' });
    for (const body of [text, html]) {
      expect(body).toContain(`${PUBLIC}${link}`);
      expect(body).toContain(command);
      expect(body).toContain('2026-01-02 03:04 UTC');
    }
  });

  it('escapes what people chose', () => {
    const { html, text } = render('invitation', {
      name: '<b>Eve</b>',
      teamName: `"'><script>alert(1)</script>`,
      link: '/i?token=a&x="><img>',
    });
    expect(html).not.toMatch(/<script|<b>|<img/);
    expect(html).toContain('&#60;b&#62;Eve');
    expect(text).toContain('Hello <b>Eve</b>,');
  });

  it.each(['line\r\nBcc: all@example.com', 'a\u2028b', 'a\u0000b', '\u202Egnp.exe'])(
    'keeps a subject one line: %j',
    (teamName) => {
      const { subject } = render('added_to_team', { teamName });
      expect(subject).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    },
  );

  it.each(['Win a prize at https://evil.example', 'www.evil.example', 'evil.example/x', 'call me@evil.example'])(
    'leaves out a name that would become a link: %s',
    (name) => {
      const { subject, text, html } = render('invitation', { name, teamName: name, actorName: name });
      for (const part of [subject, text, html]) expect(part).not.toContain('evil');
    },
  );

  it('cuts a name that is very long', () => {
    const { subject } = render('added_to_team', { teamName: '🦜'.repeat(1000) });
    expect([...subject].length).toBeLessThan(150);
    expect(subject).not.toMatch(/[\ud800-\udbff](?![\udc00-\udfff])/);
  });

  it('refuses links that are none of the web', () => {
    expect(() => render('team_created', { link: 'javascript:alert(1)' })).toThrow('neither a path');
  });
});
