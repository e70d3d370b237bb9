import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CHUNK_BYTES } from './chunk.ts';
import { decodeHibernationIndex, encodeIndex, type HibernationIndex } from './hibernation-index.ts';

const sha256 = 'a'.repeat(64);
const file = {
  kind: 'own' as const,
  name: 'disk/layer-0',
  object: 'files/0',
  stored: {
    sizeBytes: 3 * CHUNK_BYTES + 5,
    storedBytes: 105,
    chunks: [
      { chunk: 0, offset: 0, length: 100, sha256 },
      { chunk: 3, offset: 100, length: 5, sha256 },
    ],
  },
};
const index: HibernationIndex = {
  manifest: Buffer.from('manifest').toString('base64'),
  files: [file, { kind: 'shared', name: 'base', sharedAs: sha256 }],
};

const withChunks = (chunks: object[], storedBytes = 105) => ({
  ...index,
  files: [{ ...file, stored: { ...file.stored, storedBytes, chunks } }],
});
const [first, last] = file.stored.chunks;

describe('an index', () => {
  it('comes back as it was written', () => {
    expect(decodeHibernationIndex(encodeIndex(index))).toMatchObject(index);
  });

  it.each(['../x', '/x', 'a/../../b', 'a//b', './a', '', 'a\0b', 'a/'])('with a file named %j is refused', (name) => {
    const bytes = encodeIndex({ ...index, files: [{ ...file, name }] });
    expect(() => decodeHibernationIndex(bytes)).toThrow(/something else/);
  });

  it.each([
    ['the same name twice', { ...index, files: [file, file] }],
    ['a file below a file', { ...index, files: [file, { ...file, name: `${file.name}/x` }] }],
    [
      'a gap between chunks',
      withChunks(
        [first, { ...last, offset: 101 }].map((chunk) => ({ ...chunk })),
        106,
      ),
    ],
    [
      'chunks in another order',
      withChunks([
        { ...last, offset: 0 },
        { ...first, offset: 5 },
      ]),
    ],
    ['a chunk behind the end', withChunks([{ ...first }, { ...last, chunk: 4 }])],
    ['a chunk that is longer than the rest of the file', withChunks([{ ...first }, { ...last, length: 6 }], 106)],
    ['another size of the object', withChunks([{ ...first }, { ...last }], 104)],
    ['an object elsewhere', { ...index, files: [{ ...file, object: '../../other' }] }],
    ['a negative size', { ...index, files: [{ ...file, stored: { sizeBytes: -1, storedBytes: 0, chunks: [] } }] }],
  ])('with %s is refused', (_what, wrong) => {
    const bytes = encodeIndex(wrong as HibernationIndex);
    expect(() => decodeHibernationIndex(bytes)).toThrow(/something else/);
  });

  it('with any other byte is refused', () => {
    const bytes = encodeIndex(index);
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      expect(() => decodeHibernationIndex(damaged), `byte ${at}`).toThrow(/The object store failed/);
    }
    expect(() => decodeHibernationIndex(bytes.subarray(0, -1))).toThrow(/something else/);
  });

  it('of another version is told apart from a damaged one', () => {
    const content = { ...index, format: 2 };
    const sum = createHash('sha256').update(JSON.stringify(content)).digest('hex');
    const bytes = Buffer.from(JSON.stringify({ sha256: sum, index: content }));
    expect(() => decodeHibernationIndex(bytes)).toThrow(/another version of Wrenn/);
  });
});
