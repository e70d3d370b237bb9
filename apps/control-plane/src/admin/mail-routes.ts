import { adminMailPageSchema, adminMailQuerySchema } from '@wrenn/protocol/rest/admin';
import { actorOf } from '../access/actor.ts';
import { decodeCursor, encodeCursor } from '../http/cursor.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { type ListedMail, listMails, publicUrlOf } from '../mail/mails.ts';
import { recordAdminAct } from './admin-audit.ts';

/** Mails and their links, for administrators of a platform without a mail server. */
export function adminMailRoutes(app: Server, { db, secrets, settings }: RouteDeps): void {
  app.get(
    '/admin/mails',
    {
      // Recorded below, with whose links were shown.
      config: { permission: 'platform', audit: false },
      schema: {
        operationId: 'adminListMails',
        tags: ['admin'],
        summary: 'Mails, newest first; held ones with the link to pass on',
        querystring: adminMailQuerySchema,
        response: { 200: adminMailPageSchema, ...errorResponses },
      },
    },
    async (request) => {
      const { status, limit, cursor } = request.query;
      const after = cursor === undefined ? undefined : decodeCursor(cursor);
      const found = await listMails(
        { db, keyRing: secrets.keyRing, publicUrl: publicUrlOf(settings) },
        {
          statuses: status && [status],
          limit: limit + 1,
          after: after && { createdAt: new Date(after.at), id: after.id },
        },
      );
      const mails = found.slice(0, limit);
      const shown = mails.filter(({ link }) => link !== undefined);
      if (shown.length > 0) {
        // A link can be all that it takes to log in as somebody.
        const metadata = { mails: shown.map(({ id }) => id) };
        await recordAdminAct(db, { actor: actorOf(request), resource: 'mail', action: 'read_links', metadata });
      }
      const last = mails.at(-1);
      return {
        items: mails.map(toMailBody),
        next_cursor: last && found.length > limit ? encodeCursor(positionOf(last)) : null,
      };
    },
  );
}

/** Mails are dated in whole milliseconds. */
function positionOf({ createdAt, id }: ListedMail) {
  return { at: createdAt.toISOString().replace('Z', '000Z'), id };
}

function toMailBody(mail: ListedMail) {
  return {
    id: mail.id,
    to: mail.toAddress,
    kind: mail.kind,
    subject: mail.subject,
    status: mail.status,
    attempts: mail.attempts,
    error: mail.error,
    link: mail.link ?? null,
    created_at: mail.createdAt.toISOString(),
    expires_at: mail.expiresAt?.toISOString() ?? null,
    sent_at: mail.sentAt?.toISOString() ?? null,
  };
}
