import { expect, it } from 'vitest';
import { breakingChanges } from './openapi-changes.ts';
import { committedDocument, currentDocument } from './openapi-document.ts';

it('breaks no client of the API as it is committed, and describes what is served now; else run make generate', async () => {
  const [committed, current] = [await committedDocument(), await currentDocument()];
  if (!committed) throw new Error('there is no docs/openapi.json');
  expect(breakingChanges(committed, current)).toEqual([]);
  expect(current).toEqual(committed);
});
