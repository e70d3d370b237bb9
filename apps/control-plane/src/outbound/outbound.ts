import { lookup } from 'node:dns/promises';
import http, { type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import https from 'node:https';
import { type BlockList, isIP, type LookupFunction } from 'node:net';
import { blockListOf, embeddedV4, isIn, isPublicAddress } from './address-policy.ts';

const TIMEOUT_MS = 10_000;
/** What is read of an answer; the rest is cut off. */
const ANSWER_LIMIT_BYTES = 16_384;
const HTTPS_PORT = 443;
/** Below it, besides 443, are ports of services that a request could confuse. */
const FIRST_FREE_PORT = 1024;

export interface OutboundRequest {
  readonly method: 'POST' | 'PUT';
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface OutboundAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Its first 16 KiB. */
  readonly body: string;
}

/** Why a request got no answer, in words for whoever gave the address. */
export class OutboundError extends Error {
  override readonly name = 'OutboundError';
}

export interface OutboundOptions {
  /** Networks that may be reached although they are not public, also with plain HTTP. */
  readonly allowedNetworks: readonly string[];
  /** How names become addresses. Default: as the system does it. */
  readonly resolve?: (hostname: string) => Promise<string[]>;
  /** PEM of a further certificate authority to trust. */
  readonly ca?: string;
  /** Default: 10 s from the start to the end of the answer. */
  readonly timeoutMs?: number;
}

/**
 * Sends requests to addresses that users gave. What it connects to is judged, at the moment of connecting: each request has
 * a connection of its own, only to addresses that were found good, and redirects are not followed.
 */
export class Outbound {
  readonly #allowed: BlockList;
  readonly #options: OutboundOptions;

  /** @throws Error when an allowed network is none */
  constructor(options: OutboundOptions) {
    this.#allowed = blockListOf(options.allowedNetworks);
    this.#options = options;
  }

  /**
   * Whatever is wrong with a URL that can be known without asking anybody.
   *
   * @throws OutboundError
   */
  checkUrl(text: string): URL {
    const url = URL.parse(text);
    if (!url || (url.protocol !== 'https:' && url.protocol !== 'http:'))
      throw new OutboundError('it is no web address');
    const host = hostOf(url);
    if (isIP(host) !== 0) this.#judge(host, url);
    else if (url.protocol === 'http:' && this.#options.allowedNetworks.length === 0) throw refusePlain();
    return url;
  }

  /** @throws OutboundError when there is no answer; the signal's reason */
  async send(request: OutboundRequest, signal: AbortSignal): Promise<OutboundAnswer> {
    const url = this.checkUrl(request.url);
    const timeoutMs = this.#options.timeoutMs ?? TIMEOUT_MS;
    const deadline = AbortSignal.timeout(timeoutMs);
    try {
      return await this.#exchange(url, request, AbortSignal.any([signal, deadline]));
    } catch (error) {
      signal.throwIfAborted();
      if (deadline.aborted) throw new OutboundError(`no answer within ${timeoutMs / 1000} s`, { cause: error });
      throw toOutboundError(error);
    }
  }

  #exchange(url: URL, { method, headers, body }: OutboundRequest, signal: AbortSignal): Promise<OutboundAnswer> {
    return new Promise((resolve, reject) => {
      const { ca } = this.#options;
      const request = (url.protocol === 'https:' ? https : http).request(url, {
        method,
        headers: { 'user-agent': 'wrenn', ...headers, 'content-length': Buffer.byteLength(body) },
        // A connection that is kept would be used again without being judged.
        agent: false,
        lookup: this.#lookup(url),
        signal,
        ...(ca === undefined ? {} : { ca }),
      });
      request.once('error', reject);
      request.once('response', (answer) => {
        readStart(answer).then(
          (text) => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }),
          reject,
        );
      });
      request.end(body);
    });
  }

  /** Node asks this for names only, and then connects to nothing but what it gives. */
  #lookup(url: URL): LookupFunction {
    return (hostname, options, callback) => {
      this.#resolve(hostname, url).then(
        (addresses) => {
          const found = addresses.map((address) => ({ address, family: isIP(address) }));
          const [first] = found;
          if (options.all) callback(null, found);
          else callback(null, first?.address ?? '', first?.family);
        },
        (error: Error) => callback(error, []),
      );
    };
  }

  async #resolve(hostname: string, url: URL): Promise<string[]> {
    const resolve = this.#options.resolve ?? resolveAsSystem;
    const addresses = await resolve(hostname);
    let refusal = new OutboundError(`${hostname} has no address`);
    const good = addresses.filter((address) => {
      try {
        this.#judge(address, url);
        return true;
      } catch (error) {
        if (!(error instanceof OutboundError)) throw error;
        refusal = error;
        return false;
      }
    });
    if (good.length === 0) throw refusal;
    return good;
  }

  #judge(address: string, url: URL): void {
    if (isIn(this.#allowed, embeddedV4(address) ?? address)) return;
    if (!isPublicAddress(address)) {
      throw new OutboundError(
        `${hostOf(url)} is not a public address, and its network is not listed in WRENN_OUTBOUND_ALLOW`,
      );
    }
    if (url.protocol !== 'https:') throw refusePlain();
    const port = url.port === '' ? HTTPS_PORT : Number(url.port);
    if (port !== HTTPS_PORT && port < FIRST_FREE_PORT) throw new OutboundError(`port ${port} is not allowed`);
  }
}

function refusePlain(): OutboundError {
  return new OutboundError('only https is allowed outside of the networks that WRENN_OUTBOUND_ALLOW lists');
}

function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}

async function resolveAsSystem(hostname: string): Promise<string[]> {
  const found = await lookup(hostname, { all: true });
  return found.map(({ address }) => address);
}

async function readStart(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes >= ANSWER_LIMIT_BYTES) break;
  }
  return Buffer.concat(chunks).subarray(0, ANSWER_LIMIT_BYTES).toString('utf8');
}

const PROBLEMS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: 'the connection was cut',
  EPIPE: 'the connection was cut',
  EHOSTUNREACH: 'the address cannot be reached',
  ENETUNREACH: 'the address cannot be reached',
  ETIMEDOUT: 'the address does not answer',
  ENOTFOUND: 'the name is not known',
  EAI_AGAIN: 'the name could not be resolved',
};

/** Words that tell what was wrong, and nothing of what was sent or answered. */
function toOutboundError(error: unknown): OutboundError {
  if (error instanceof OutboundError) return error;
  // Several addresses were tried.
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (first instanceof OutboundError) return first;
  const code = first instanceof Error && 'code' in first ? String(first.code) : '';
  const isTls = /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO|DEPTH_ZERO|SELF_SIGNED|EPROTO|HOSTNAME_)/.test(code);
  const problem = PROBLEMS[code] ?? (isTls ? `TLS failed (${code})` : 'the request failed');
  return new OutboundError(problem, { cause: error });
}
