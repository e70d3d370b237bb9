import { fileURLToPath } from 'node:url';
import { EnvironmentError } from '@wrenn/config/environment';
import { FolderObjectStore } from './folder-object-store.ts';
import type { ObjectStore } from './object-store.ts';
import { S3ObjectStore } from './s3-object-store.ts';

const DEFAULT_REGION = 'us-east-1';
/** An attempt sends or asks for some MiB: enough for a line of 1 Mbit/s. */
const DEFAULT_REQUEST_TIMEOUT_MS = 60_000;
const PARAMETERS = ['endpoint', 'region', 'path_style', 'request_timeout_ms'];

/**
 * The store at `file:///folder` or
 * `s3://bucket/prefix?endpoint=http://…&region=…&path_style=1&request_timeout_ms=60000`. Nothing is connected to yet.
 *
 * Credentials of S3 come from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, or else from where
 * Amazon's tools have them; the region and endpoint from `AWS_REGION` and `AWS_ENDPOINT_URL_S3` where the address has
 * none.
 *
 * @throws EnvironmentError saying what is wrong with the address.
 */
export function openObjectStore(
  url: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): ObjectStore {
  const address = URL.parse(url);
  if (address?.protocol === 'file:') return new FolderObjectStore(folderOf(address));
  if (address?.protocol === 's3:') return s3Store(address, env);
  throw wrong('write file:///folder or s3://bucket/prefix');
}

function folderOf(address: URL): string {
  if (address.host !== '' || address.search !== '' || address.hash !== '') throw wrong('write file:///folder');
  const folder = fileURLToPath(address).replace(/\/+$/, '');
  if (folder === '') throw wrong('name a folder, not the root of the file system');
  return folder;
}

function s3Store(address: URL, env: Readonly<Record<string, string | undefined>>): ObjectStore {
  const { searchParams: given } = address;
  const unknown = [...given.keys()].find((name) => !PARAMETERS.includes(name));
  if (unknown !== undefined) throw wrong(`there is no parameter ${unknown}, only ${PARAMETERS.join(', ')}`);
  if (address.username || address.password) throw wrong('credentials belong in the AWS_* variables');
  if (address.port || address.hash || !/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(address.hostname)) {
    throw wrong('write s3://bucket/prefix; a server is named by ?endpoint=');
  }
  const prefix = decodeURIComponent(address.pathname).replaceAll(/^\/+|\/+$/g, '');
  if (!/^[A-Za-z0-9._/-]*$/.test(prefix)) throw wrong('a prefix is made of letters, digits and . _ - /');
  const endpoint = given.get('endpoint') || env.AWS_ENDPOINT_URL_S3 || env.AWS_ENDPOINT_URL || undefined;
  if (endpoint !== undefined && !/^https?:$/.test(URL.parse(endpoint)?.protocol ?? '')) {
    throw wrong('an endpoint is an http:// or https:// address');
  }
  const pathStyle = given.get('path_style') ?? (endpoint ? '1' : '0');
  if (pathStyle !== '0' && pathStyle !== '1') throw wrong('path_style is 0 or 1');
  const requestTimeoutMs = Number(given.get('request_timeout_ms') ?? DEFAULT_REQUEST_TIMEOUT_MS);
  if (!Number.isInteger(requestTimeoutMs) || requestTimeoutMs < 1) throw wrong('request_timeout_ms is a whole number');
  return new S3ObjectStore({
    bucket: address.hostname,
    prefix: prefix === '' ? '' : `${prefix}/`,
    region: given.get('region') || env.AWS_REGION || env.AWS_DEFAULT_REGION || DEFAULT_REGION,
    endpoint,
    pathStyle: pathStyle === '1',
    credentials: credentialsIn(env),
    requestTimeoutMs,
  });
}

function credentialsIn(env: Readonly<Record<string, string | undefined>>) {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey, AWS_SESSION_TOKEN: token } = env;
  if (!accessKeyId || !secretAccessKey) return undefined;
  return { accessKeyId, secretAccessKey, ...(token ? { sessionToken: token } : {}) };
}

function wrong(problem: string): EnvironmentError {
  return new EnvironmentError(`WRENN_OBJECT_STORE is not the address of an object store: ${problem}`);
}
