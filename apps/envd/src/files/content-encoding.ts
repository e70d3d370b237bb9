import { WrennError } from '@wrenn/protocol/errors';

export type Encoding = 'gzip' | 'identity';

/**
 * The encoding to answer with (RFC 9110, 12.5.3): gzip or identity, whichever the client likes better.
 *
 * @param wholeFile false for a part of a file, which only identity can carry
 */
export function chooseEncoding(acceptEncoding: string | undefined, wholeFile: boolean): Encoding {
  const weights = parseWeights(acceptEncoding ?? '');
  const identity = weights.get('identity') ?? (weights.get('*') === 0 ? 0 : undefined);
  const gzip = weights.get('gzip') ?? weights.get('*') ?? 0;
  const identityAllowed = identity !== 0;
  if (!wholeFile) {
    if (!identityAllowed) throw notAcceptable('a part of a file is sent as it is (identity)');
    return 'identity';
  }
  const namesGzip = weights.has('gzip') && gzip > 0;
  if (namesGzip && gzip >= (identity ?? 0)) return 'gzip';
  if (identityAllowed) return 'identity';
  if (gzip > 0) return 'gzip';
  throw notAcceptable('gzip and identity are there');
}

function parseWeights(header: string): Map<string, number> {
  const weights = new Map<string, number>();
  for (const part of header.split(',')) {
    const [name = '', ...parameters] = part.split(';').map((piece) => piece.trim().toLowerCase());
    if (name === '') continue;
    const quality = parameters.find((parameter) => parameter.startsWith('q='));
    const weight = quality === undefined ? 1 : Number(quality.slice(2));
    weights.set(name, Number.isFinite(weight) ? weight : 1);
  }
  return weights;
}

function notAcceptable(problem: string): WrennError {
  return new WrennError('not_acceptable', { problem });
}

/** The encoding of a request's body. Fails with `invalid_request` on one that is not understood. */
export function bodyEncoding(contentEncoding: string | undefined): Encoding {
  const name = contentEncoding?.trim().toLowerCase() ?? '';
  if (name === '' || name === 'identity') return 'identity';
  if (name === 'gzip') return 'gzip';
  throw new WrennError('invalid_request', { problem: `Content-Encoding ${name} is not gzip or identity` });
}
