import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TestPlatform } from '@wrenn/control-plane/testing/test-platform';
import { type ApiDocument, breakingChanges } from './openapi-changes.ts';

export const OPENAPI_DOCUMENT = join(import.meta.dirname, '..', 'docs', 'openapi.json');

/** What the server of this tree says of its API. */
export async function currentDocument(): Promise<ApiDocument> {
  await using platform = await TestPlatform.start();
  return (await platform.call('/openapi.json')).body;
}

/** What is committed; undefined: nothing yet. */
export async function committedDocument(): Promise<ApiDocument | undefined> {
  try {
    return JSON.parse(await readFile(OPENAPI_DOCUMENT, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Writes docs/openapi.json. What breaks clients only goes in with `--breaking`. */
async function main(args: readonly string[]): Promise<void> {
  const [current, committed] = [await currentDocument(), await committedDocument()];
  const broken = committed ? breakingChanges(committed, current) : [];
  if (broken.length > 0 && !args.includes('--breaking')) {
    console.error(`These changes of the API break clients:\n${broken.map((change) => `  ${change}`).join('\n')}`);
    console.error('Undo them; or tell of them in docs/api-changelog.md and run this with --breaking.');
    process.exitCode = 1;
    return;
  }
  await writeFile(OPENAPI_DOCUMENT, `${JSON.stringify(current, undefined, 1)}\n`);
}

if (import.meta.main) await main(process.argv.slice(2));
