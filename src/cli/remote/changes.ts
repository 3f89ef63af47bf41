import { cut, moment, pad, visible, widthOf } from '../kit/print.js';

/* The text form of changes, which watch, history, diff and rollback share. */

/** A changed field; undefined means that the field is absent. */
export interface Difference {
  readonly field: string;
  readonly before?: unknown;
  readonly after?: unknown;
}

/** Fields that every write changes, and fields that identify the resource. */
const HIDDEN_FIELDS: ReadonlySet<string> = new Set([
  'id',
  'agent_id',
  'agent_name',
  'has_api_key_override',
  'built_in',
  'created_at',
  'updated_at',
  'revision',
  'etag',
  'chain_etag',
]);
/** The names of fields that are shown under another name. */
const DISPLAY_NAMES: Readonly<Record<string, string>> = { api_key_state: 'api_key' };

/** The fields in which two states of a resource differ; an undefined state means that the resource does not exist. */
export function differences(before: object | undefined, after: object | undefined): Difference[] {
  const [oldFields, newFields] = [fieldsOf(before), fieldsOf(after)];
  return [...new Set([...oldFields.keys(), ...newFields.keys()])]
    .filter((field) => textOf(oldFields.get(field)) !== textOf(newFields.get(field)))
    .map((field) => ({ field, before: oldFields.get(field), after: newFields.get(field) }));
}

/** The fields that are set, including those of nested messages: `extra_params.seed`. */
function fieldsOf(message: object | undefined, at = ''): Map<string, unknown> {
  const fields = new Map<string, unknown>();
  for (const [name, value] of Object.entries(message ?? {})) {
    if (HIDDEN_FIELDS.has(name) || isNothing(value)) continue;
    const isMessage = typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
    if (isMessage) for (const [path, inner] of fieldsOf(value, `${at}${name}.`)) fields.set(path, inner);
    else if (value !== 'API_KEY_STATE_NONE') fields.set(at + (DISPLAY_NAMES[name] ?? name), value);
  }
  return fields;
}

const isNothing = (value: unknown) =>
  value === undefined || value === '' || (Array.isArray(value) && value.length === 0);

const MAX_VALUE_LENGTH = 60;

/** The text of a value in a change. */
export function valueText(value: unknown): string {
  if (value === undefined) return 'none';
  if (typeof value === 'string' && value.startsWith('API_KEY_STATE_'))
    return value === 'API_KEY_STATE_SET' ? 'set' : 'set, unreadable now';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return cut(textOf(value), MAX_VALUE_LENGTH);
}

function textOf(value: unknown): string {
  // Strings without special characters are printed without quotes.
  if (typeof value === 'string') return /^[\w./:+-]+$/.test(value) ? value : JSON.stringify(value);
  if (value instanceof Date) return moment(value);
  if (typeof value === 'bigint') return String(value);
  return JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? String(inner) : inner)) ?? '';
}

/** Pairs of fields that are shown as one: a model with its provider. */
const PAIRS = [
  ['provider', 'model_name', 'model'],
  ['fallback_provider', 'fallback_model', 'fallback'],
] as const;

/**
 * Differences in their display form: a model and its provider are one field, and `extra_params.` is removed from names.
 * @param unchanged the unchanged fields of the resource, as far as they are known.
 */
export function displayDifferences(
  all: readonly Difference[],
  unchanged: Readonly<Record<string, unknown>> = {},
): Difference[] {
  let rest = [...all];
  const pairs: Difference[] = [];
  for (const [first, second, field] of PAIRS) {
    const [a, b] = [first, second].map(
      (name) =>
        rest.find((one) => one.field === name) ?? { field: name, before: unchanged[name], after: unchanged[name] },
    ) as [Difference, Difference];
    const changed = rest.filter((one) => one.field === first || one.field === second);
    // If only one half of a pair is known, it is shown under its own name.
    const isOneKnown = (['before', 'after'] as const).some(
      (side) => (a[side] === undefined) !== (b[side] === undefined),
    );
    if (changed.length === 0 || isOneKnown) continue;
    rest = rest.filter((one) => !changed.includes(one));
    const join = (one: unknown, other: unknown) => (other === undefined ? undefined : `${one}/${other}`);
    pairs.push({ field, before: join(a.before, b.before), after: join(a.after, b.after) });
  }
  return [...pairs, ...rest.map(withDisplayName)];
}

const RATE = /^(?:price\.)?(\w+)_micro_usd_per_million$/;

/** Replaces the field name by its display name. */
function withDisplayName({ field, before, after }: Difference): Difference {
  const [, rate] = RATE.exec(field) ?? [];
  if (rate === undefined) return { field: field.replace(/^extra_params\./, ''), before, after };
  const usd = (micro: unknown) => (micro === undefined ? undefined : Number(micro) / 1e6);
  return { field: `${rate} USD/M`, before: usd(before), after: usd(after) };
}

/** `temperature 0.7 → 0.2, model openai/gpt-4 → openai/gpt-4o` */
export const describeDifferences = (all: readonly Difference[], same?: Readonly<Record<string, unknown>>): string =>
  displayDifferences(all, same)
    .map(({ field, before, after }) => {
      // For a key, the history stores the action only.
      if (field === 'api_key' && KEY_ACTIONS.includes(after)) return `API key ${after}`;
      return `${field} ${valueText(before)} → ${valueText(after)}`;
    })
    .join(', ');

const KEY_ACTIONS: readonly unknown[] = ['set', 'replaced', 'cleared', 'encrypted anew'];

/** One change of a revision: the subject (an agent, or `catalogue`), and the text. */
export interface ChangeRecord {
  readonly subject: string;
  readonly what: string;
}

export interface ChangeRecords {
  readonly revision: bigint;
  /** Unknown in a snapshot. */
  readonly actor?: string | undefined;
  readonly method?: string | undefined;
  readonly reason?: string | undefined;
  readonly created_at?: Date | undefined;
  readonly records: readonly ChangeRecord[];
}

/** A revision as lines: time, revision, actor, method and reason, then one line for each change. */
export function changeBlock({ revision, actor, method, reason, created_at, records }: ChangeRecords): string {
  const head = [
    moment(created_at),
    `revision ${revision}`,
    actor,
    method && shortMethod(method),
    reason && `"${reason}"`,
  ];
  const width = Math.max(...records.map(({ subject }) => widthOf(visible(subject))));
  const lines = records.map(({ subject, what }) => `  ${pad(visible(subject), width)}  ${visible(what)}`);
  return [visible(head.filter(Boolean).join('  ')), ...lines].join('\n');
}

/** `UpdateConfig` for `agentllm.v1.AgentLLMConfigService/UpdateConfig`; operations of the service itself are unchanged. */
export const shortMethod = (method: string): string => method.slice(method.lastIndexOf('/') + 1);
