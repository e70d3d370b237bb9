import type { MailContent, MailKind } from './mail.ts';

/** What a mail says. */
export interface Words {
  readonly subject: string;
  readonly paragraphs: readonly string[];
  /** Where there is a link: what its button says. */
  readonly button?: string;
  /** For a link that holds a token: the command of the CLI that takes it instead. */
  readonly command?: (token: string) => string;
  /** How the time that is given is to be understood. */
  readonly until?: (time: string) => string;
}

type Write = (facts: { readonly team: string; readonly actor: string; readonly content: MailContent }) => Words;

/** A token may begin with a hyphen, and is no option then. */
const positional = (token: string) => (token.startsWith('-') ? `-- ${token}` : token);
const NOT_YOU = 'If that was not you, reset your password now and look at your sessions.';
const validUntil = (time: string) => `The link works until ${time}, and once.`;

const WORDS: Readonly<Record<MailKind, Write>> = {
  activation: () => ({
    subject: 'Activate your Wrenn account',
    paragraphs: [
      'Welcome to Wrenn. One step is left: tell us that this address is yours.',
      'If you did not sign up, do nothing; without this step there is no account.',
    ],
    button: 'Activate account',
    command: (token) => `wrenn activate ${positional(token)}`,
    until: validUntil,
  }),
  sign_up_existing: () => ({
    subject: 'You have a Wrenn account already',
    paragraphs: [
      'Somebody, probably you, signed up to Wrenn with this address. It has an account already, so nothing was changed.',
      'Log in as before. If you forgot the password, ask for a new one.',
    ],
    button: 'Log in',
  }),
  password_reset: () => ({
    subject: 'Choose a new password for Wrenn',
    paragraphs: [
      'Somebody, probably you, asked for a new password for your account.',
      'If you did not ask, do nothing: your password stays as it is.',
    ],
    button: 'Choose a new password',
    command: (token) => `wrenn account reset-password --token=${token}`,
    until: validUntil,
  }),
  password_changed: () => ({
    subject: 'Your Wrenn password was changed',
    paragraphs: ['The password of your account was changed, and your other sessions were ended.', NOT_YOU],
  }),
  password_added: () => ({
    subject: 'Your Wrenn account has a password now',
    paragraphs: ['A password was added to your account, so you can log in with it as well.', NOT_YOU],
  }),
  reset_completed: () => ({
    subject: 'Your Wrenn password was reset',
    paragraphs: ['A new password was chosen by a link that we mailed to you. All sessions were ended.', NOT_YOU],
  }),
  team_created: ({ team }) => ({
    subject: `The team ${team} is ready`,
    paragraphs: [`You made the team ${team} and own it. Invite others, make a key, start a capsule.`],
    button: 'Open the team',
  }),
  invitation: ({ team, actor }) => ({
    subject: `Invitation to the team ${team}`,
    paragraphs: [
      `${actor} invites you to the team ${team} on Wrenn.`,
      'If you do not know what this is about, do nothing.',
    ],
    button: 'Look at the invitation',
    command: (token) => `wrenn team join ${positional(token)}`,
    until: validUntil,
  }),
  added_to_team: ({ team, actor }) => ({
    subject: `You are in the team ${team} now`,
    paragraphs: [`${actor} added you to the team ${team} on Wrenn.`],
    button: 'Open the team',
  }),
  deletion_scheduled: () => ({
    subject: 'Your Wrenn account will be deleted',
    paragraphs: ['You asked us to delete your account. It is closed now, and its data will be erased.'],
    until: (time) => `It is erased on ${time}. Until then an administrator can bring it back.`,
  }),
  account_deleted: () => ({
    subject: 'Your Wrenn account was deleted',
    paragraphs: ['Your account and its data were erased. This is the last mail that you get about it.'],
  }),
  two_factor_changed: ({ content }) => ({
    subject: 'How you log in to Wrenn was changed',
    paragraphs: [
      ...(content.paragraphs ?? ['Two-factor login or the passkeys of your account were changed.']),
      NOT_YOU,
    ],
  }),
  owner_changed: ({ team, actor }) => ({
    subject: `The team ${team} has a new owner`,
    paragraphs: [`${actor} owns the team ${team} now. Who owned it before is an admin of it.`],
    button: 'Open the team',
  }),
  channel: ({ content }) => ({
    subject: content.subject ?? 'A message from Wrenn',
    paragraphs: content.paragraphs ?? [],
    button: 'Open in Wrenn',
  }),
};

/** What a mail of that kind says. */
export function wordsFor(kind: MailKind, content: MailContent): Words {
  const words = WORDS[kind]({
    team: givenName(content.teamName) ?? 'of yours',
    actor: givenName(content.actorName) ?? 'Somebody',
    content,
  });
  return { ...words, subject: oneLine(words.subject, 150) };
}

/**
 * A name that somebody chose, as it may stand in a mail to somebody else: one short line, and nothing that a mail
 * program makes a link of.
 */
export function givenName(name: string | undefined): string | undefined {
  const line = oneLine(name ?? '', 60);
  if (line === '' || /:\/\/|www\.|\.[a-z]{2,}\/|@/i.test(line)) return undefined;
  return line;
}

/** Without control and direction characters, and not longer than `limit`. */
function oneLine(text: string, limit: number): string {
  const line = text
    .replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim();
  return [...line].length <= limit ? line : `${[...line].slice(0, limit - 1).join('')}…`;
}
