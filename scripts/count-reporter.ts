import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import type { Reporter, SerializedError, TestModule } from 'vitest/node';
import type { Counts } from './test-counts.ts';

/** Names the file to which the reporter writes its counts. */
export const COUNTS_FILE = 'WRENN_TEST_COUNTS_FILE';

/** Of the text of an error. */
const MAX_ERROR_CHARS = 400;

/** A reporter for Vitest that writes down how many tests passed, which did not, and what broke outside of tests. */
// biome-ignore lint/style/noDefaultExport: Vitest takes a reporter's default export
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const counts = countModules(modules);
    const failures = [...counts.failures, ...unhandled.map((error) => `${whereOf(error)}: ${textOf([error])}`)];
    const file = process.env[COUNTS_FILE];
    if (!file) throw new Error(`${COUNTS_FILE} is not set`);
    writeFileSync(file, JSON.stringify({ ...counts, failures } satisfies Counts));
  }
}

/** A file or group that breaks outside its tests, in a hook say, is a failure of its own. */
function countModules(modules: readonly TestModule[]): Counts {
  let passed = 0;
  const failures: string[] = [];
  const skipped: string[] = [];
  for (const module of modules) {
    const file = module.relativeModuleId;
    for (const suite of [module, ...module.children.allSuites()]) {
      const name = suite.type === 'suite' ? `${file} > ${suite.fullName}` : file;
      if (suite.errors().length > 0) failures.push(`${name}: ${textOf(suite.errors())}`);
    }
    for (const test of module.children.allTests()) {
      const { state, errors } = test.result();
      if (state === 'passed') passed += 1;
      else if (state === 'failed') failures.push(`${file} > ${test.fullName}: ${textOf(errors)}`);
      else skipped.push(test.fullName);
    }
  }
  return { passed, failures, skipped };
}

function textOf(errors: readonly Pick<SerializedError, 'message' | 'stack'>[]): string {
  const text = errors.map(({ message, stack }) => `${message}${firstFrame(stack)}`).join('; ');
  const plain = stripVTControlCharacters(text).replace(/\s+/g, ' ');
  return plain.length > MAX_ERROR_CHARS ? `${plain.slice(0, MAX_ERROR_CHARS)} …` : plain;
}

/** During which file, and after the begin of which of its tests, as Vitest notes it beside an error that nobody caught. */
function whereOf({ VITEST_TEST_PATH: path, VITEST_TEST_NAME: test }: SerializedError): string {
  const file = typeof path === 'string' ? relative(process.cwd(), path) : undefined;
  const during = [file, test].filter((part) => typeof part === 'string').join(' > ');
  return during ? `outside of tests, during ${during}` : 'outside of tests';
}

/** Where in Wrenn's own code it was thrown. */
function firstFrame(stack = ''): string {
  const frame = stack.split('\n').find((line) => /^\s+at /.test(line) && !line.includes('node_modules'));
  return frame ? ` (${frame.trim()})` : '';
}
