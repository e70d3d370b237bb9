import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ERROR_CATALOGUE, type ErrorCode, WrennError } from '@wrenn/protocol/errors';
import { toRestError } from '@wrenn/protocol/rest/error';

export const ERRORS_DOCUMENT = join(import.meta.dirname, '..', 'docs', 'errors.md');

const INTRODUCTION = `# Errors

Every error of the API, of WebSockets, of the CLI and of the SDKs is one of these. This page is made of the catalogue,
\`libs/protocol/src/errors.ts\`, by \`make generate\`.

\`reason\` is the exact code, and stable. \`code\` is its family, by which clients choose their exception; it is the reason
itself where nothing else is named. *Retryable* means that the same request can succeed later without a change; where the
answer has \`Retry-After\`, after that many seconds. Words in braces are filled in, and are in \`details\`.
`;

/** The page of all errors, by HTTP status. */
export function errorsDocument(): string {
  const entries = Object.entries(ERROR_CATALOGUE) as [ErrorCode, (typeof ERROR_CATALOGUE)[ErrorCode]][];
  const statuses = [...new Set(entries.map(([, { http }]) => http))].toSorted((a, b) => a - b);
  const sections = statuses.map((status) => {
    const ofStatus = entries.filter(([, { http }]) => http === status);
    return `\n## ${status}\n${ofStatus.map(([code, entry]) => describe(code, entry)).join('')}`;
  });
  return INTRODUCTION + sections.join('');
}

function describe(code: ErrorCode, { message, cause, remedy, retryable }: (typeof ERROR_CATALOGUE)[ErrorCode]): string {
  const family = toRestError(new WrennError(code)).code;
  const facts = [family === code ? [] : [`code \`${family}\``], retryable ? ['retryable'] : []].flat();
  const lines = [
    `\n**\`${code}\`**${facts.length > 0 ? ` (${facts.join(', ')})` : ''}: ${message}`,
    `*Why:* ${cause}`,
    `*What to do:* ${remedy}\n`,
  ];
  return lines.join('\\\n');
}

if (import.meta.main) await writeFile(ERRORS_DOCUMENT, errorsDocument());
