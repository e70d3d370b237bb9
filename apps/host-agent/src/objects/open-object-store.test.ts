import { EnvironmentError } from '@wrenn/config/environment';
import { describe, expect, it } from 'vitest';
import { FolderObjectStore } from './folder-object-store.ts';
import { openObjectStore } from './open-object-store.ts';
import { S3ObjectStore } from './s3-object-store.ts';

describe('openObjectStore', () => {
  it.each(['file:///var/lib/wrenn/objects', 'file:///with%20space/'])('takes the folder %s', (url) => {
    expect(openObjectStore(url, {})).toBeInstanceOf(FolderObjectStore);
  });

  it.each([
    's3://bucket',
    's3://bucket/',
    's3://my-bucket.example/a/prefix?region=eu-west-1',
    's3://bucket/x?endpoint=http://127.0.0.1:9000&path_style=0&request_timeout_ms=5000',
  ])('takes the bucket %s', (url) => {
    expect(openObjectStore(url, {})).toBeInstanceOf(S3ObjectStore);
  });

  it.each([
    '',
    '/var/lib/wrenn/objects',
    'file:///',
    'file://host/folder',
    'file:///folder?x=1',
    'http://bucket',
    's3://',
    's3://b?endpoint=nonsense',
    's3://bucket:9000/x',
    's3://bucket?endpoint=127.0.0.1:9000',
    's3://bucket?path_style=yes',
    's3://bucket?request_timeout_ms=soon',
    's3://bucket?regoin=x',
    's3://bucket/a b?region=x',
  ])('refuses %j', (url) => {
    expect(() => openObjectStore(url, {})).toThrow(EnvironmentError);
  });

  it('does not repeat a secret that was put into the address', () => {
    expect(() => openObjectStore('s3://id:hush@bucket/x', {})).toThrow(/AWS_\*/);
    expect(() => openObjectStore('s3://id:hush@bucket/x', {})).not.toThrow(/hush/);
  });
});
