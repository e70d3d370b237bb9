import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const REPOSITORY = join(import.meta.dirname, '..');
const SPECIFICATION = join(REPOSITORY, 'docs', 'SPECIFICATION.md');
/** A file and the names that lead to a test in it, as they stand in its source. */
const REFERENCE = /`([^`]+\.test\.ts) › ([^`]+)`/g;

/** What a reference names and is not there; undefined where everything is. */
function missing(file: string, names: readonly string[]): string | undefined {
  const path = join(REPOSITORY, file);
  if (!existsSync(path)) return file;
  const source = readFileSync(path, 'utf8');
  let from = 0;
  for (const name of names) {
    // Suites and tests get their names as first argument; what is inside comes after.
    const places = ["'", '"', '`'].map((quote) => {
      const literal = `${quote}${name.replaceAll(quote, `\\${quote}`)}${quote}`.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
      const found = new RegExp(`\\(\\s*${literal},`, 'g');
      found.lastIndex = from;
      return found.test(source) ? found.lastIndex : -1;
    });
    from = Math.max(...places);
    if (from < 0) return `${file} › ${name}`;
  }
  return undefined;
}

it('names with every promise tests that exist', () => {
  const rows = readFileSync(SPECIFICATION, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| Promise '));
  expect(rows.length).toBeGreaterThan(50);
  const wrong = rows.flatMap((row) => {
    const references = [...row.matchAll(REFERENCE)];
    if (references.length === 0) return [`no test: ${row}`];
    return references.flatMap(([, file = '', names = '']) => missing(file, names.split(' › ')) ?? []);
  });
  expect(wrong).toEqual([]);
});

it('would miss a test that is not there', () => {
  const own = 'scripts/specification.test.ts';
  expect(missing(own, ['would miss a test that is not there'])).toBeUndefined();
  expect(missing(own, ['would miss nothing'])).toBe(`${own} › would miss nothing`);
  expect(missing('scripts/none.test.ts', ['x'])).toBe('scripts/none.test.ts');
});
