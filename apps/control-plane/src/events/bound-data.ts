const TEXT_LIMIT = 500;
const LIST_LIMIT = 50;
const TOTAL_LIMIT_BYTES = 8192;

/** The same facts, small enough for every provider's messages: long texts and lists are cut. */
export function boundData(data: Record<string, unknown>): Record<string, unknown> {
  const bounded = Object.fromEntries(Object.entries(data).map(([name, value]) => [name, bound(value)]));
  const bytes = Buffer.byteLength(JSON.stringify(bounded));
  return bytes <= TOTAL_LIMIT_BYTES ? bounded : { truncated: true };
}

function bound(value: unknown): unknown {
  if (typeof value === 'string') return cut(value);
  if (Array.isArray(value)) return value.slice(0, LIST_LIMIT).map(bound);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, bound(inner)]));
}

/** PostgreSQL takes neither NUL nor half a pair of surrogates in JSON. */
function cut(text: string): string {
  const short = text.length > TEXT_LIMIT ? `${text.slice(0, TEXT_LIMIT)}…` : text;
  return short.toWellFormed().replaceAll('\0', '');
}
