import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { issueAuthority, issueLeaf } from '@wrenn/pki/issue';
import { until } from '@wrenn/testing/until';
import { type ParsedMail, simpleParser } from 'mailparser';
import { SMTPServer, type SMTPServerOptions } from 'smtp-server';
import type { SmtpSettings } from '../settings.ts';

export interface ReceivedMail extends ParsedMail {
  /** Whether it came over TLS. */
  readonly overTls: boolean;
  /** Who had logged in. */
  readonly user: string | undefined;
  /** As the envelope said. */
  readonly recipients: readonly string[];
}

/** What the receiver answers to the recipient of a mail; undefined: it takes it. */
export type Refusal = { readonly code: number; readonly text: string } | undefined;

export interface SmtpReceiverOptions {
  readonly login?: { readonly user: string; readonly password: string };
  readonly port?: number;
  /** Asked for each mail before it is taken, by its recipient. */
  readonly onRecipient?: (address: string) => Refusal | Promise<Refusal>;
  /** Runs after a mail came whole and before it is confirmed. */
  readonly beforeConfirm?: (mail: ReceivedMail) => void | Promise<void>;
}

/** A mail server on a loopback port that keeps what it takes. */
export class SmtpReceiver implements AsyncDisposable {
  readonly mails: ReceivedMail[] = [];
  readonly port: number;
  readonly #server: SMTPServer;
  readonly #login: SmtpReceiverOptions['login'];

  private constructor(server: SMTPServer, mails: ReceivedMail[], port: number, login: SmtpReceiverOptions['login']) {
    this.#server = server;
    this.mails = mails;
    this.port = port;
    this.#login = login;
  }

  static async start({ login, port = 0, onRecipient, beforeConfirm }: SmtpReceiverOptions = {}): Promise<SmtpReceiver> {
    const mails: ReceivedMail[] = [];
    const pair = await issueLeaf(await issueAuthority(1), 'control-plane', [{ type: 'dns', value: 'localhost' }], 1);
    const server = new SMTPServer({
      // Idle connections of senders are cut off after this.
      closeTimeout: 200,
      key: pair.keyPem,
      cert: pair.certPem,
      authOptional: login === undefined,
      ...(login ? {} : { disabledCommands: ['AUTH'] }),
      onAuth: ({ username, password }, _session, done) => {
        if (username === login?.user && password === login?.password) done(null, { user: username });
        else done(Object.assign(new Error('wrong password'), { responseCode: 535 }));
      },
      onRcptTo: ({ address }, _session, done) => {
        void (async () => {
          const refusal = await onRecipient?.(address);
          done(refusal ? Object.assign(new Error(refusal.text), { responseCode: refusal.code }) : null);
        })();
      },
      onData: (stream, session, done) => {
        void (async () => {
          const parsed = await simpleParser(stream);
          const mail: ReceivedMail = {
            ...parsed,
            overTls: session.secure,
            user: session.user,
            recipients: session.envelope.rcptTo.map(({ address }) => address),
          };
          await beforeConfirm?.(mail);
          mails.push(mail);
          done();
        })().catch((error: Error) => done(error));
      },
    } satisfies SMTPServerOptions);
    // A client that leaves in the middle is an error of its connection only.
    server.on('error', () => undefined);
    server.listen(port, '127.0.0.1');
    await once(server.server, 'listening');
    return new SmtpReceiver(server, mails, (server.server.address() as AddressInfo).port, login);
  }

  /** Settings of a control plane that sends here. */
  get settings(): SmtpSettings {
    return {
      host: '127.0.0.1',
      port: this.port,
      username: this.#login?.user,
      password: this.#login?.password,
      from: 'Wrenn <wrenn@mail.example>',
    };
  }

  /** The same for a control plane that is set up by its environment. */
  get environment(): Record<string, string> {
    return {
      SMTP_HOST: '127.0.0.1',
      SMTP_PORT: String(this.port),
      SMTP_FROM_EMAIL: this.settings.from,
      ...(this.#login ? { SMTP_USERNAME: this.#login.user, SMTP_PASSWORD: this.#login.password } : {}),
    };
  }

  /** The next mail to an address, once it has come; each is given once. */
  async take(address: string): Promise<ReceivedMail> {
    const index = await until(`a mail to ${address} comes`, () => {
      const at = this.mails.findIndex(({ recipients }) => recipients.includes(address));
      return at === -1 ? undefined : { at };
    });
    const [mail] = this.mails.splice(index.at, 1);
    if (!mail) throw new Error('the mail was taken by somebody else');
    return mail;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
