import { expect, it } from 'vitest';
import { type ApiDocument, breakingChanges } from './openapi-changes.ts';

type Schemas = Record<string, object>;

/** A document of one operation that takes and gives what the schemas say. */
function api(sent: object, received: object, schemas: Schemas = {}): ApiDocument {
  const json = (schema: object) => ({ 'application/json': { schema } });
  return {
    paths: {
      '/things': {
        post: {
          operationId: 'make',
          requestBody: { content: json(sent) },
          responses: { 201: { content: json(received) } },
        },
      },
    },
    components: { schemas },
  } as ApiDocument;
}

const object = (properties: Schemas, ...required: string[]) => ({ type: 'object', properties, required });
const text = { type: 'string' };
const number = { type: 'number' };

it.each([
  ['another optional field', object({ a: text }), object({ a: text, b: text })],
  ['a field that is optional now', object({ a: text }, 'a'), object({ a: text })],
  ['a wider type', object({ a: { type: 'integer' } }), object({ a: number })],
  ['another kind', object({ a: text }), object({ a: { anyOf: [text, number] } })],
  ['null too', object({ a: text }), object({ a: { type: ['string', 'null'] } })],
  ['another value', { enum: ['x'] }, { enum: ['x', 'y'] }],
  ['a higher limit', { ...text, maxLength: 5 }, { ...text, maxLength: 6 }],
])('lets a request take %s, and tells of the way back', (_, before, after) => {
  expect(breakingChanges(api(before, {}), api(after, {}))).toEqual([]);
  expect(breakingChanges(api(after, {}), api(before, {}))).toHaveLength(1);
});

it.each([
  ['another field', object({ a: text }, 'a'), object({ a: text, b: text }, 'a', 'b')],
  ['a field that is always there now', object({ a: text }), object({ a: text }, 'a')],
  ['a narrower type', object({ a: number }), object({ a: { type: 'integer' } })],
  ['fewer kinds', object({ a: { anyOf: [text, number] } }), object({ a: text })],
])('lets an answer have %s, and tells of the way back', (_, before, after) => {
  expect(breakingChanges(api({}, before), api({}, after))).toEqual([]);
  expect(breakingChanges(api({}, after), api({}, before))).toHaveLength(1);
});

it('takes more values of an enumeration in an answer for nothing new', () => {
  expect(breakingChanges(api({}, { enum: ['x'] }), api({}, { enum: ['x', 'y'] }))).toEqual([]);
});

it('follows references, also to themselves', () => {
  const tree = (more: Schemas) => ({
    Node: object({ a: text, child: { $ref: '#/components/schemas/Node' }, ...more }),
  });
  const at = { $ref: '#/components/schemas/Node' };
  expect(breakingChanges(api({}, at, tree({ b: text })), api({}, at, tree({})))).toEqual([
    'POST /things: 201.b is gone',
  ]);
});

it('tells of operations, answers, parameters and names that are gone or needed', () => {
  const before = api({}, {});
  const operation = before.paths['/things']?.post;
  const having = (changes: object): ApiDocument => ({ paths: { '/things': { post: { ...operation, ...changes } } } });
  const parameter = (required: boolean) => ({ parameters: [{ name: 'q', in: 'query', required, schema: text }] });
  expect(breakingChanges(before, { paths: {} })).toEqual(['POST /things is gone']);
  expect(breakingChanges(before, having({ operationId: 'other' }))).toEqual([
    'POST /things: operationId was make, is other',
  ]);
  expect(breakingChanges(before, having({ responses: {} }))).toEqual(['POST /things: the answer 201 is gone']);
  expect(breakingChanges(before, having(parameter(false)))).toEqual([]);
  expect(breakingChanges(before, having(parameter(true)))).toEqual([
    'POST /things: the query parameter q is required now',
  ]);
  expect(breakingChanges(having(parameter(false)), before)).toEqual(['POST /things: the query parameter q is gone']);
});
