import fc from 'fast-check';

export type JsonSchema = Readonly<Record<string, unknown>>;

/** The longest text that is made where a schema sets no limit or a higher one. */
const MAX_LENGTH = 40;
const MAX_ITEMS = 4;
const MAX_DEPTH = 6;

/** Values that a JSON schema of an OpenAPI document takes; what `format` asks for beyond the common ones is left out. */
export class SchemaArbitraries {
  readonly #schemas: Readonly<Record<string, JsonSchema>>;

  /** @param schemas those that others refer to, by name */
  constructor(schemas: Readonly<Record<string, JsonSchema>>) {
    this.#schemas = schemas;
  }

  of(schema: JsonSchema, depth = 0): fc.Arbitrary<unknown> {
    if (depth > MAX_DEPTH) return fc.constant(null);
    const { $ref, anyOf, oneOf, allOf, type } = schema;
    if (typeof $ref === 'string') return this.of(this.#schemas[$ref.split('/').at(-1) ?? ''] ?? {}, depth + 1);
    if ('const' in schema) return fc.constant(schema.const);
    if (Array.isArray(schema.enum)) return fc.constantFrom(...schema.enum);
    const choices =
      anyOf ?? oneOf ?? (Array.isArray(type) ? type.map((each) => ({ ...schema, type: each })) : undefined);
    if (Array.isArray(choices)) return fc.oneof(...choices.map((each: JsonSchema) => this.of(each, depth + 1)));
    if (Array.isArray(allOf)) {
      const parts = allOf.map((each: JsonSchema) => this.of(each, depth + 1));
      return fc.tuple(...parts).map((values) => Object.assign({}, ...values));
    }
    switch (type) {
      case 'string':
        return textOf(schema);
      case 'integer':
        return fc.integer(rangeOf(schema));
      case 'number':
        return fc.double({ ...rangeOf(schema), noNaN: true });
      case 'boolean':
        return fc.boolean();
      case 'null':
        return fc.constant(null);
      case 'array':
        return fc.array(this.of((schema.items ?? {}) as JsonSchema, depth + 1), {
          minLength: Number(schema.minItems ?? 0),
          maxLength: Math.max(MAX_ITEMS, Number(schema.minItems ?? 0)),
        });
      case 'object':
        return this.#objectOf(schema, depth);
      default:
        return fc.jsonValue({ maxDepth: 2 });
    }
  }

  #objectOf(
    { properties = {}, required = [], additionalProperties }: JsonSchema,
    depth: number,
  ): fc.Arbitrary<unknown> {
    const fields = Object.entries(properties as Record<string, JsonSchema>);
    const known = fc.record(Object.fromEntries(fields.map(([name, schema]) => [name, this.of(schema, depth + 1)])), {
      requiredKeys: required as string[],
    });
    if (typeof additionalProperties !== 'object' || additionalProperties === null) return known;
    const more = fc.dictionary(
      fc.string({ minLength: 1, maxLength: 12 }),
      this.of(additionalProperties as JsonSchema, depth + 1),
      {
        maxKeys: MAX_ITEMS,
      },
    );
    return fc.tuple(more, known).map(([others, record]) => ({ ...others, ...record }));
  }
}

function textOf({ format, pattern, minLength, maxLength }: JsonSchema): fc.Arbitrary<string> {
  switch (format) {
    case 'email':
      return fc.emailAddress();
    case 'uri':
      return fc.webUrl();
    case 'date-time':
      return fc.date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) }).map((date) => date.toISOString());
  }
  // With what fast-check cannot make of a pattern no text is right; most are refused, and that is one of the aims.
  if (typeof pattern === 'string' && !/\(\?[=!<]|\\p/.test(pattern)) return fc.stringMatching(new RegExp(pattern, 'u'));
  const least = Number(minLength ?? 0);
  return fc.string({
    minLength: least,
    maxLength: Math.max(least, Math.min(Number(maxLength ?? MAX_LENGTH), MAX_LENGTH)),
  });
}

function rangeOf({ minimum = -(2 ** 31), maximum = 2 ** 31 - 1, exclusiveMinimum, exclusiveMaximum }: JsonSchema) {
  const min = typeof exclusiveMinimum === 'number' ? exclusiveMinimum + 1 : Number(minimum);
  const max = typeof exclusiveMaximum === 'number' ? exclusiveMaximum - 1 : Number(maximum);
  return { min: Math.max(min, -(2 ** 31)), max: Math.max(min, Math.min(max, 2 ** 31 - 1)) };
}
