/** As much of an OpenAPI document as tells what clients rely on. */
export interface ApiDocument {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> };
}

interface Operation {
  readonly operationId?: string;
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
    readonly schema?: Schema;
  }[];
  readonly requestBody?: { readonly required?: boolean; readonly content?: Content };
  readonly responses?: Readonly<Record<string, { readonly content?: Content }>>;
}

type Content = Readonly<Record<string, { readonly schema?: Schema }>>;

interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema | boolean;
  readonly additionalProperties?: Schema | boolean;
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly pattern?: string;
  readonly maximum?: number;
  readonly maxLength?: number;
  readonly maxItems?: number;
  readonly minimum?: number;
  readonly minLength?: number;
  readonly minItems?: number;
}

/** Who makes what a schema describes: what clients send may be of more kinds than before, what they get of fewer. */
type Side = 'sent' | 'received';

interface Comparison {
  readonly before: ApiDocument;
  readonly after: ApiDocument;
  readonly side: Side;
  /** Pairs of references that are being compared: schemas may hold themselves. */
  readonly open: ReadonlySet<string>;
}

/**
 * What of an API a client that was written for its earlier form could miss. That an enumeration of an answer has more
 * values is not among it: clients take those for unknown ones.
 *
 * @returns one sentence each
 */
export function breakingChanges(before: ApiDocument, after: ApiDocument): string[] {
  return Object.entries(before.paths).flatMap(([path, methods]) =>
    Object.entries(methods).flatMap(([method, operation]) => {
      const now = after.paths[path]?.[method];
      const name = `${method.toUpperCase()} ${path}`;
      if (!now) return [`${name} is gone`];
      return compareOperations(before, after, operation, now).map((problem) => `${name}: ${problem}`);
    }),
  );
}

function compareOperations(before: ApiDocument, after: ApiDocument, was: Operation, is: Operation): string[] {
  const sent: Comparison = { before, after, side: 'sent', open: new Set() };
  const received: Comparison = { ...sent, side: 'received' };
  return [
    ...(was.operationId === is.operationId ? [] : [`operationId was ${was.operationId}, is ${is.operationId}`]),
    ...compareParameters(sent, was, is),
    ...(is.requestBody?.required && !was.requestBody?.required ? ['the body is required now'] : []),
    ...compareContent(sent, 'the body', was.requestBody?.content, is.requestBody?.content),
    ...Object.entries(was.responses ?? {}).flatMap(([status, { content }]) => {
      const now = is.responses?.[status];
      return now ? compareContent(received, status, content, now.content) : [`the answer ${status} is gone`];
    }),
  ];
}

function compareParameters(comparison: Comparison, was: Operation, is: Operation): string[] {
  const keyOf = (parameter: { name: string; in: string }) => `${parameter.in} parameter ${parameter.name}`;
  const now = new Map((is.parameters ?? []).map((parameter) => [keyOf(parameter), parameter]));
  const known = new Map((was.parameters ?? []).map((parameter) => [keyOf(parameter), parameter]));
  const kept = [...known].flatMap(([key, parameter]) => {
    const match = now.get(key);
    return match ? compareSchemas(comparison, key, parameter.schema, match.schema) : [`the ${key} is gone`];
  });
  const required = [...now].filter(([key, parameter]) => parameter.required && !known.get(key)?.required);
  return [...kept, ...required.map(([key]) => `the ${key} is required now`)];
}

function compareContent(
  comparison: Comparison,
  place: string,
  was: Content | undefined,
  is: Content | undefined,
): string[] {
  return Object.entries(was ?? {}).flatMap(([type, { schema }]) => {
    const now = is?.[type];
    return now ? compareSchemas(comparison, place, schema, now.schema) : [`${place} as ${type} is gone`];
  });
}

function compareSchemas(
  comparison: Comparison,
  place: string,
  given: Schema | undefined,
  found: Schema | undefined,
): string[] {
  if (!given || !found) return [];
  const pair = `${given.$ref} ${found.$ref}`;
  if (given.$ref && found.$ref) {
    if (comparison.open.has(pair)) return [];
    comparison = { ...comparison, open: new Set([...comparison.open, pair]) };
  }
  const was = resolve(comparison.before, given);
  const is = resolve(comparison.after, found);
  const kinds = [was.anyOf ?? was.oneOf ?? [was], is.anyOf ?? is.oneOf ?? [is]] as const;
  if (kinds[0].length > 1 || kinds[1].length > 1) return compareKinds(comparison, place, ...kinds);
  return [
    ...compareTypes(comparison, place, was, is),
    ...compareObjects(comparison, place, was, is),
    ...(typeof was.items === 'object' && typeof is.items === 'object'
      ? compareSchemas(comparison, `${place}[]`, was.items, is.items)
      : []),
    ...(comparison.side === 'sent' ? compareLimits(place, was, is) : []),
  ];
}

/** Whatever a client sends must still be taken as one of the kinds, and what it gets be of a kind that it knows. */
function compareKinds(comparison: Comparison, place: string, was: readonly Schema[], is: readonly Schema[]): string[] {
  const fits = (a: Schema, b: Schema) => compareSchemas(comparison, place, a, b).length === 0;
  const unmet =
    comparison.side === 'sent'
      ? was.filter((kind) => !is.some((now) => fits(kind, now)))
      : is.filter((now) => !was.some((kind) => fits(kind, now)));
  if (unmet.length === 0) return [];
  return [comparison.side === 'sent' ? `${place} takes fewer kinds` : `${place} may be of another kind`];
}

function compareTypes({ side }: Comparison, place: string, was: Schema, is: Schema): string[] {
  const [narrow, wide] = side === 'sent' ? [was, is] : [is, was];
  const allowed = typesOf(wide);
  const isMissing = (type: string) => !allowed.includes(type) && !(type === 'integer' && allowed.includes('number'));
  if (allowed.length > 0 && (typesOf(narrow).length === 0 || typesOf(narrow).some(isMissing)))
    return [`${place} was ${typesOf(was).join(' or ') || 'anything'}, is ${typesOf(is).join(' or ') || 'anything'}`];
  if (side === 'received') return [];
  const [before, now] = [valuesOf(was), valuesOf(is)];
  if (!now) return [];
  if (!before) return [`${place} takes only some values now`];
  return before.filter((value) => !now.includes(value)).map((value) => `${place} does not take ${value} any more`);
}

function compareObjects(comparison: Comparison, place: string, was: Schema, is: Schema): string[] {
  const { side } = comparison;
  const fields = Object.entries(was.properties ?? {}).flatMap(([name, schema]) => {
    const now = is.properties?.[name];
    return now ? compareSchemas(comparison, `${place}.${name}`, schema, now) : [`${place}.${name} is gone`];
  });
  const [required, known] = side === 'sent' ? [is.required, was.required] : [was.required, is.required];
  const changed = (required ?? []).filter((name) => !known?.includes(name) && is.properties?.[name]);
  const verb = side === 'sent' ? 'is required now' : 'may be missing now';
  const rest =
    typeof was.additionalProperties === 'object' && typeof is.additionalProperties === 'object'
      ? compareSchemas(comparison, `${place}.*`, was.additionalProperties, is.additionalProperties)
      : [];
  return [...fields, ...changed.map((name) => `${place}.${name} ${verb}`), ...rest];
}

function compareLimits(place: string, was: Schema, is: Schema): string[] {
  const upper = (['maximum', 'maxLength', 'maxItems'] as const).filter(
    (limit) => (is[limit] ?? Number.POSITIVE_INFINITY) < (was[limit] ?? Number.POSITIVE_INFINITY),
  );
  const lower = (['minimum', 'minLength', 'minItems'] as const).filter(
    (limit) => (is[limit] ?? Number.NEGATIVE_INFINITY) > (was[limit] ?? Number.NEGATIVE_INFINITY),
  );
  const pattern = is.pattern !== undefined && is.pattern !== was.pattern ? ['pattern'] : [];
  return [...upper, ...lower, ...pattern].map((limit) => `${place} has another ${limit}`);
}

function typesOf({ type }: Schema): readonly string[] {
  return type === undefined ? [] : [type].flat();
}

function valuesOf(schema: Schema): readonly unknown[] | undefined {
  return schema.enum ?? ('const' in schema ? [schema.const] : undefined);
}

function resolve(document: ApiDocument, schema: Schema): Schema {
  const name = schema.$ref?.split('/').at(-1);
  return name === undefined ? schema : resolve(document, document.components?.schemas?.[name] ?? {});
}
