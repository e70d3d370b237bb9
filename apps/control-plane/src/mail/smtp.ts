import { setTimeout as delay } from 'node:timers/promises';
import { createTransport } from 'nodemailer';
import type { SmtpSettings } from '../settings.ts';
import type { RenderedMail } from './render.ts';

const CONNECT_TIMEOUT_MS = 15_000;
/** A server may think about a mail for a while before it says whether it takes it. */
const SILENCE_TIMEOUT_MS = 60_000;
const CONNECTIONS = 2;

/** Why a mail was not taken. */
export class MailRefused extends Error {
  override readonly name = 'MailRefused';
  /** Whether the server will not take this mail another time either. */
  readonly isPermanent: boolean;

  constructor(message: string, isPermanent: boolean, options?: ErrorOptions) {
    super(message, options);
    this.isPermanent = isPermanent;
  }
}

export interface OutgoingMail extends RenderedMail {
  readonly to: string;
  /** The same for every attempt, so that a mail that comes twice is one. */
  readonly messageId: string;
  readonly date: Date;
}

/** A connection to the server that takes mail, made when it is needed. */
export interface Smtp extends Disposable {
  /**
   * Resolves when the server has taken the mail.
   *
   * @throws MailRefused; the signal's reason
   */
  send(mail: OutgoingMail, signal: AbortSignal): Promise<void>;
}

/** TLS from the start on port 465, else STARTTLS where the server has it, and always before a password is sent. */
export function openSmtp(settings: SmtpSettings): Smtp {
  const { host, port, username, password, from } = settings;
  const isLocal = /^(localhost|127\.\d+\.\d+\.\d+|::1|\[::1\])$/.test(host);
  const transport = createTransport({
    pool: true,
    maxConnections: CONNECTIONS,
    // Repeating is up to the job.
    maxRequeues: 0,
    host,
    port,
    secure: port === 465,
    requireTLS: username !== undefined && !isLocal,
    // The certificate of a server on this machine says nothing that the address does not.
    tls: { rejectUnauthorized: !isLocal },
    ...(username === undefined ? {} : { auth: { user: username, pass: password ?? '' } }),
    connectionTimeout: CONNECT_TIMEOUT_MS,
    greetingTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: SILENCE_TIMEOUT_MS,
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  // Told to each mail that it concerns as well; without a listener it would end the process.
  transport.on('error', () => undefined);
  return {
    send: async ({ to, subject, text, html, messageId, date }, signal) => {
      const stop = new AbortController();
      const aborted = delay(2 ** 31 - 1, undefined, { signal: AbortSignal.any([signal, stop.signal]) });
      const sending = transport.sendMail({
        from,
        // As an object: nothing in an address can make it two.
        to: { name: '', address: to },
        subject,
        text,
        html,
        messageId,
        date,
        headers: { 'Auto-Submitted': 'auto-generated' },
      });
      try {
        await Promise.race([sending, aborted]);
      } catch (error) {
        if (signal.aborted) throw signal.reason;
        throw toRefusal(error);
      } finally {
        stop.abort();
        sending.catch(() => undefined);
        aborted.catch(() => undefined);
      }
    },
    [Symbol.dispose]: () => transport.close(),
  };
}

/** What nodemailer adds to an error. */
interface SmtpError extends Error {
  readonly code?: string;
  readonly responseCode?: number;
  readonly response?: string;
  /** What the server answered that to. */
  readonly command?: string;
}

function toRefusal(error: unknown): MailRefused {
  const { responseCode = 0, response, command = '', message } = error as SmtpError;
  // Whom it does not know and what it does not like it will not later. Who we are, an administrator can still mend.
  const isAboutMail = /^(RCPT TO|DATA|MAIL FROM)/.test(command);
  const isPermanent = isAboutMail && responseCode >= 500 && responseCode !== 530 && responseCode !== 535;
  return new MailRefused((response ?? message).slice(0, 500), isPermanent, { cause: error });
}
