import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { ERRORS_DOCUMENT, errorsDocument } from './errors-document.ts';

it('is what the catalogue says now; else run make generate', async () => {
  expect(await readFile(ERRORS_DOCUMENT, 'utf8')).toBe(errorsDocument());
});
