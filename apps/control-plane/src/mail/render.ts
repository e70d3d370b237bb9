import type { MailContent, MailKind } from './mail.ts';
import { givenName, wordsFor } from './words.ts';

export interface RenderedMail {
  readonly subject: string;
  readonly text: string;
  readonly html: string;
}

/** @param publicUrl without a slash at its end; stands before links that are paths */
export function renderMail(kind: MailKind, content: MailContent, publicUrl: string): RenderedMail {
  const words = wordsFor(kind, content);
  const name = givenName(content.name);
  const link = content.link === undefined ? undefined : resolveLink(content.link, publicUrl);
  const token = link && words.command ? tokenOf(link) : undefined;
  const command = token && words.command?.(token);
  const time = content.expiresAt && words.until?.(formatTime(content.expiresAt));
  const greeting = kind === 'channel' ? undefined : name ? `Hello ${name},` : 'Hello,';
  const foot = `Sent by Wrenn at ${publicUrl}`;

  const text = [
    ...(greeting ? [greeting] : []),
    ...words.paragraphs,
    ...(link ? [`${words.button ?? 'Open'}: ${link}`] : []),
    ...(command ? [`Or in a terminal:\n\n    ${command}`] : []),
    ...(time ? [time] : []),
    `-- \n${foot}`,
  ].join('\n\n');
  const html = page(words.subject, [
    ...(greeting ? [paragraph(greeting)] : []),
    ...words.paragraphs.map(paragraph),
    ...(link ? [button(words.button ?? 'Open', link)] : []),
    ...(command ? [paragraph('Or in a terminal:'), `<pre style="${PRE}">${escapeHtml(command)}</pre>`] : []),
    ...(time ? [paragraph(time)] : []),
    `<p style="${FOOT}">${escapeHtml(foot)}</p>`,
  ]);
  return { subject: words.subject, text: `${text}\n`, html };
}

/** Where a mail's link leads. */
export function resolveLink(link: string, publicUrl: string): string {
  return link.startsWith('/') ? `${publicUrl}${link}` : link;
}

/** The token in a link: its `token`, else the last part of its path. */
function tokenOf(link: string): string | undefined {
  const url = URL.parse(link);
  const token = url?.searchParams.get('token') ?? url?.pathname.split('/').at(-1);
  return token && /^[\w.~-]+$/.test(token) ? token : undefined;
}

function formatTime(iso: string): string {
  return `${new Date(iso).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

// No colour of text or page is set, so that light and dark readers both use their own.
const BODY =
  'font:16px/1.5 system-ui,-apple-system,Segoe UI,Roboto,sans-serif;max-width:34em;margin:0 auto;padding:24px';
const BUTTON =
  'display:inline-block;padding:12px 20px;border-radius:6px;background:#2457d6;color:#ffffff;text-decoration:none;font-weight:600';
const PRE = 'font:14px/1.5 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;word-break:break-all';
const FOOT = 'font-size:13px;opacity:0.7;margin-top:32px';

function page(title: string, parts: readonly string[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>${escapeHtml(title)}</title>
</head>
<body style="${BODY}">
${parts.join('\n')}
</body>
</html>
`;
}

function paragraph(text: string): string {
  return `<p>${escapeHtml(text)}</p>`;
}

function button(label: string, link: string): string {
  if (!/^https?:\/\//.test(link)) throw new Error('the link of a mail is neither a path nor a URL of the web');
  const url = escapeHtml(link);
  return `<p><a href="${url}" style="${BUTTON}">${escapeHtml(label)}</a></p>
<p style="font-size:13px;word-break:break-all">${url}</p>`;
}

function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
