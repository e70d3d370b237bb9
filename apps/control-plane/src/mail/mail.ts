/** What a mail is about. */
export type MailKind =
  | 'activation'
  | 'sign_up_existing'
  | 'password_reset'
  | 'password_changed'
  | 'password_added'
  | 'reset_completed'
  | 'team_created'
  | 'invitation'
  | 'added_to_team'
  | 'deletion_scheduled'
  | 'account_deleted'
  | 'two_factor_changed'
  | 'owner_changed'
  | 'channel';

/** A mail to be written: facts; its words are in words.ts. */
export interface NewMail {
  /** One address. */
  readonly to: string;
  readonly kind: MailKind;
  /** Of the one who gets it. */
  readonly name?: string | undefined;
  /** Where its button leads: a path such as `/activate?token=…`, before which the public URL is put, or a URL. */
  readonly link?: string | undefined;
  readonly teamName?: string | undefined;
  /** Who did what it tells of. */
  readonly actorName?: string | undefined;
  /** When its link stops to work, or what it announces happens. A mail with a link is not sent after it. */
  readonly expiresAt?: Date | undefined;
  /** Only for `channel`: what happened, in one line. */
  readonly subject?: string | undefined;
  /** Only for `channel`: the paragraphs of its text. */
  readonly paragraphs?: readonly string[] | undefined;
}

/** What is kept of a mail, encrypted, until it was sent. */
export type MailContent = Omit<NewMail, 'to' | 'kind' | 'expiresAt'> & { readonly expiresAt?: string | undefined };
