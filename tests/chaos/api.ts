import { setTimeout as delay } from 'node:timers/promises';

/** No verb takes longer, even when every program is killed in its middle; one that does is found as stuck. */
const REQUEST_TIMEOUT_MS = 240_000;

/** Codes that are a defect wherever they come from: nothing that is done here may lead to them. */
const DEFECTS = new Set([
  'internal_error',
  'snapshot_damaged',
  'snapshot_incompatible',
  'protocol_mismatch',
  'host_tool_missing',
  'unauthorized',
  'forbidden',
  'invalid_request',
  'invalid_shape',
]);

/** What shows nothing about whether VMs can be worked with. */
const IDLE = new Set(['list', 'destroy', 'list snapshots', 'delete snapshot']);

// Answers are of many shapes, and a check that reads a wrong one fails.
// biome-ignore lint/suspicious/noExplicitAny: see above
export type Json = any;

/** How a request ended. */
export type Answer =
  | { readonly kind: 'done'; readonly status: number; readonly body: Json; readonly requestId: string }
  | {
      readonly kind: 'refused';
      readonly status: number;
      readonly code: string;
      readonly message: string;
      readonly requestId: string;
    }
  /** The connection broke, or the client was killed: whether it was done is not known. */
  | { readonly kind: 'unknown' };

/** An answer that nobody may get. */
export interface Unexpected {
  readonly request: string;
  readonly requestId: string;
  readonly what: string;
}

/** Calls the API and keeps count of how that ended. */
export class Api {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly unexpected: Unexpected[] = [];
  /** By verb, then by how it ended. */
  readonly counts = new Map<string, Map<string, number>>();
  /** Verbs that ended well. */
  deeds = 0;
  #requests = 0;

  constructor(baseUrl: string, apiKey: string) {
    this.baseUrl = baseUrl;
    this.apiKey = apiKey;
  }

  nextRequestId(): string {
    return `chaos-${++this.#requests}`;
  }

  headers(requestId: string, body: unknown): Record<string, string> {
    return {
      'x-api-key': this.apiKey,
      'x-request-id': requestId,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
  }

  /** @param verb what it is counted as */
  async call(verb: string, method: string, path: string, body?: unknown): Promise<Answer> {
    const requestId = this.nextRequestId();
    let answer: Answer;
    try {
      const response = await fetch(`${this.baseUrl}${path}`, {
        method,
        headers: this.headers(requestId, body),
        signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      answer = toAnswer(response.status, await response.text(), requestId);
    } catch {
      answer = { kind: 'unknown' };
    }
    return this.count(
      verb,
      `${method} ${path} ${body === undefined ? '' : JSON.stringify(body)}`.slice(0, 300),
      answer,
    );
  }

  /** Counts an answer that somebody else got. */
  count(verb: string, request: string, answer: Answer): Answer {
    if (answer.kind === 'done' && !IDLE.has(verb)) this.deeds++;
    const how = answer.kind === 'refused' ? answer.code : answer.kind;
    const counts = this.counts.get(verb) ?? new Map<string, number>();
    this.counts.set(verb, counts.set(how, (counts.get(how) ?? 0) + 1));
    if (answer.kind === 'refused' && DEFECTS.has(answer.code)) {
      this.unexpected.push({
        request,
        requestId: answer.requestId,
        what: `${answer.status} ${answer.code}: ${answer.message}`,
      });
    }
    return answer;
  }

  /** The same, again and again until an answer came, whatever is killed meanwhile. */
  async insist(verb: string, method: string, path: string, body?: unknown, timeoutMs = 180_000): Promise<Answer> {
    for (const deadline = Date.now() + timeoutMs; ; await delay(300)) {
      const answer = await this.call(verb, method, path, body);
      const isOver = answer.kind === 'done' || (answer.kind === 'refused' && !isTransient(answer));
      if (isOver || Date.now() > deadline) return answer;
    }
  }
}

export function toAnswer(status: number, text: string, requestId: string): Answer {
  let body: Json;
  try {
    body = text === '' ? undefined : JSON.parse(text);
  } catch {
    return { kind: 'refused', status, code: 'internal_error', message: text.slice(0, 200), requestId };
  }
  if (status < 400) return { kind: 'done', status, body, requestId };
  const { reason = 'internal_error', message = text.slice(0, 200) } = body?.error ?? {};
  return { kind: 'refused', status, code: String(reason), message: String(message), requestId };
}

/** Whether the platform is not itself just now. */
function isTransient({ code }: { code: string }): boolean {
  return ['host_unavailable', 'no_hosts_available', 'database_unavailable', 'shutting_down'].includes(code);
}
