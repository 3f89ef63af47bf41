import { limits } from '../../limits.js';
import { type Fields, isFields } from '../requests/parameters.js';

/*
 * Makes a value for a JSON schema: the same value for the same schema. It satisfies the usual keywords; of a `pattern` it
 * knows nothing, so a schema with a pattern needs an `example`, `default`, `enum` or `const`.
 */

/** Bounds the work for schemas that refer to themselves, or that grow without end. */
class Budget {
  constructor(private values: number) {}

  spend(): boolean {
    return this.values-- > 0;
  }
}

interface Context {
  readonly root: unknown;
  readonly budget: Budget;
  readonly depth: number;
  /** The name of the property, which is the value of a string. */
  readonly name: string;
}

/** A value that satisfies a schema. */
export function valueFor(schema: unknown, name = 'value'): unknown {
  const { schemaValues } = limits.fakeProvider;
  return make(schema, { root: schema, budget: new Budget(schemaValues), depth: 0, name });
}

function make(schema: unknown, context: Context): unknown {
  const { depth, budget } = context;
  if (!isFields(schema) || depth > limits.fakeProvider.schemaDepth || !budget.spend()) return null;
  const inner = { ...context, depth: depth + 1 };
  if ('const' in schema) return schema['const'];
  for (const key of ['enum', 'examples']) {
    const [first] = Array.isArray(schema[key]) ? schema[key] : [];
    if (first !== undefined) return first;
  }
  for (const key of ['example', 'default']) if (schema[key] !== undefined) return schema[key];
  if (typeof schema['$ref'] === 'string') return make(resolve(schema['$ref'], context.root), inner);
  for (const key of ['anyOf', 'oneOf']) {
    const options = Array.isArray(schema[key]) ? schema[key] : [];
    const [option] = options.filter((one) => isFields(one) && one['type'] !== 'null');
    if (option !== undefined) return make(withoutOptions(schema, key, option), inner);
  }
  if (Array.isArray(schema['allOf'])) return make(merged(schema), inner);
  return makeTyped(schema, inner);
}

/** A schema with one of its options, together with its other keywords. */
const withoutOptions = (schema: Fields, key: string, option: Fields): Fields => {
  const { [key]: _, ...rest } = schema;
  return { ...rest, ...option };
};

function merged({ allOf, ...rest }: Fields): Fields {
  const all = [rest, ...(allOf as readonly unknown[])].filter(isFields);
  const joined = Object.assign({}, ...all) as Record<string, unknown>;
  joined['properties'] = Object.assign({}, ...all.map((one) => one['properties'] ?? {}));
  joined['required'] = all.flatMap((one) => (Array.isArray(one['required']) ? one['required'] : []));
  return joined;
}

/** The part of a schema that a reference such as `#/$defs/node` names. */
function resolve(reference: string, root: unknown): unknown {
  if (!reference.startsWith('#')) return undefined;
  let at = root;
  for (const step of reference.slice(1).split('/').filter(Boolean)) {
    const key = step.replaceAll('~1', '/').replaceAll('~0', '~');
    at = isFields(at) && Object.hasOwn(at, key) ? at[key] : undefined;
  }
  return at;
}

function makeTyped(schema: Fields, context: Context): unknown {
  const types = [schema['type']].flat();
  const type = types.find((one) => one !== 'null') ?? (isFields(schema['properties']) ? 'object' : types[0]);
  if (type === 'object') return makeObject(schema, context);
  if (type === 'array') return makeArray(schema, context);
  if (type === 'string') return makeString(schema, context.name);
  if (type === 'number' || type === 'integer') return makeNumber(schema, type === 'integer');
  if (type === 'boolean') return true;
  if (type === 'null') return null;
  return context.name;
}

/** Optional properties are made too, but not below the first few levels, where a schema may refer to itself. */
function makeObject({ properties, required }: Fields, context: Context): Record<string, unknown> {
  if (!isFields(properties)) return {};
  const names = Array.isArray(required) ? required : [];
  const chosen = Object.entries(properties).filter(([name]) => context.depth < 8 || names.includes(name));
  return Object.fromEntries(chosen.map(([name, schema]) => [name, make(schema, { ...context, name })]));
}

function makeArray(schema: Fields, context: Context): unknown[] {
  const { prefixItems, items, minItems, maxItems } = schema;
  if (Array.isArray(prefixItems)) return prefixItems.map((one) => make(one, context));
  // An array of a schema that refers to itself ends when it may be empty.
  const wanted = context.depth < 8 ? 1 : 0;
  const least = Math.max(typeof minItems === 'number' ? minItems : 0, wanted);
  const count = Math.min(least, typeof maxItems === 'number' ? maxItems : least, limits.fakeProvider.schemaValues);
  return Array.from({ length: count }, () => make(items ?? {}, context));
}

const FORMATS: Readonly<Record<string, string>> = {
  date: '2026-01-02',
  time: '03:04:05Z',
  'date-time': '2026-01-02T03:04:05Z',
  duration: 'P1D',
  email: 'name@example.com',
  hostname: 'example.com',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
  uri: 'https://example.com/',
  url: 'https://example.com/',
  uuid: '00000000-0000-4000-8000-000000000000',
};

function makeString({ format, minLength, maxLength }: Fields, name: string): string {
  const known = typeof format === 'string' && Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
  if (known !== undefined) return known;
  const least = Math.min(typeof minLength === 'number' ? minLength : 0, limits.fakeProvider.faultText);
  const padded = name.padEnd(least, 'x');
  return typeof maxLength === 'number' ? padded.slice(0, maxLength) : padded;
}

function makeNumber(schema: Fields, integer: boolean): number {
  const bound = (key: string) => (typeof schema[key] === 'number' ? (schema[key] as number) : undefined);
  const [minimum, exclusiveMinimum] = [bound('minimum'), bound('exclusiveMinimum')];
  const [maximum, exclusiveMaximum] = [bound('maximum'), bound('exclusiveMaximum')];
  const step = bound('multipleOf') ?? (integer ? 1 : undefined);
  const low = Math.max(minimum ?? Number.NEGATIVE_INFINITY, exclusiveMinimum ?? Number.NEGATIVE_INFINITY);
  const high = Math.min(maximum ?? Number.POSITIVE_INFINITY, exclusiveMaximum ?? Number.POSITIVE_INFINITY);
  const isAllowed = (value: number) =>
    value >= low && value <= high && value !== exclusiveMinimum && value !== exclusiveMaximum;
  const aligned = (value: number) => (step ? Math.ceil(value / step) * step : value);
  const candidates = [1, 0, low, low + (step ?? 1), high, high - (step ?? 1), (low + high) / 2].map(aligned);
  return candidates.find((value) => Number.isFinite(value) && isAllowed(value)) ?? 1;
}
