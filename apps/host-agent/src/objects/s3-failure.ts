import type { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';
import { storeFailed } from './object-store.ts';

/** What errors of the client have in common; all of it may be missing. */
const clientError = z.object({
  name: z.string().catch(''),
  code: z.string().optional().catch(undefined),
  $metadata: z.object({ httpStatusCode: z.number().optional() }).optional().catch(undefined),
});

const UNREACHABLE = ['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'EPIPE'];
const FULL = ['QuotaExceeded', 'XMinioStorageFull', 'InsufficientCapacity', 'ServiceQuotaExceededException'];

/** Says in a clause what an S3 server, or the way to it, did wrong. The error itself is for the log. */
export function s3Failure(error: unknown): WrennError {
  return storeFailed(problemOf(error), error);
}

export function isMissingObject(error: unknown): boolean {
  const { name, status } = parse(error);
  return name === 'NoSuchKey' || name === 'NotFound' || (status === 404 && name !== 'NoSuchBucket');
}

function problemOf(error: unknown): string {
  const { name, code, status } = parse(error);
  if (name === 'NoSuchBucket') return 'its bucket does not exist';
  if (isMissingObject(error)) return 'something that was stored in it is not there';
  if (name === 'CredentialsProviderError') return 'no credentials are set for it';
  if (status === 401 || status === 403) return 'it refused the credentials';
  if (status === 507 || FULL.includes(name)) return 'it is full';
  if (name === 'TimeoutError' || code === 'ETIMEDOUT') return 'it did not answer in time';
  if (code !== undefined && UNREACHABLE.includes(code)) return 'it cannot be reached';
  if (status === 429 || status === 503) return 'it is overloaded';
  if (status !== undefined && status >= 400) return `it answered with status ${status}`;
  return 'it gave an answer that Wrenn does not understand';
}

function parse(error: unknown) {
  const result = clientError.safeParse(error);
  const { name = '', code, $metadata } = result.success ? result.data : {};
  return { name, code, status: $metadata?.httpStatusCode };
}
