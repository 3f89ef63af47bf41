import { limits } from '../../limits.js';
import { maxElements } from '../../max_elements.js';
import type { Model, OtherRates, PriceTier, Rates } from '../rows.js';
import { nameProblem, printable, textProblem } from '../text.js';
import { type DecimalProblem, scaled } from './decimal.js';
import { JsonNumber, JsonObject, type JsonValue, TOO_DEEP } from './json.js';

/** The facts about a model that a public catalogue states. */
export type ImportedFacts = Partial<
  Pick<
    Model,
    | 'display_name'
    | 'context_window_tokens'
    | 'max_output_tokens'
    | 'supports_functions'
    | 'supports_vision'
    | 'supports_reasoning'
    | 'supports_prefill'
    | 'supports_structured_output'
    | 'retires_at'
  >
>;

/** The rates that a catalogue states; rates that it does not state are absent. */
export interface StatedPrice {
  readonly rates: OtherRates;
  /** In ascending order of their thresholds. */
  readonly tiers: readonly PriceTier[];
}

/** A model of an imported catalogue, under the names of the catalogue. */
export interface ImportedModel {
  readonly provider: string;
  readonly name: string;
  /** The entry of the file, for messages. */
  readonly entry: string;
  readonly price: StatedPrice;
  readonly facts: ImportedFacts;
  /** The reasons why the price cannot be read. */
  readonly problems: readonly string[];
  /** The reasons why other facts cannot be read. */
  readonly factProblems: readonly string[];
}

/** The unit of the rates of a catalogue. */
export interface RateUnit {
  readonly name: string;
  /** The power of ten that converts a rate to micro-USD per million tokens. */
  readonly places: number;
}

const DECIMAL_PROBLEMS: Readonly<Record<DecimalProblem, string>> = {
  negative: 'must not be negative',
  inexact: 'is not a whole number of micro-USD per million tokens',
  unreadable: 'is not a number of a readable size',
};

/**
 * Reads the fields of an object. A value of the wrong type is reported as a problem and is treated as absent; null is
 * absent too.
 */
export class FieldReader {
  constructor(
    readonly object: JsonObject,
    private readonly problems: string[],
    private readonly at = '',
  ) {
    for (const name of object.repeated ?? []) this.report(name, 'occurs twice');
  }

  report(field: string, problem: string): void {
    // One problem is enough to skip an entry; further problems help to correct the file.
    if (this.problems.length < MAX_PROBLEMS) this.problems.push(`${this.at}${printable(field, 80)} ${problem}`);
  }

  /** A rate in micro-USD per million tokens. */
  rate(field: string, unit: RateUnit): number | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (!(value instanceof JsonNumber)) return this.reject(field, 'must be a number');
    const rate = scaled(value.text, unit.places);
    const shown = printable(value.text, 40);
    if (typeof rate === 'string') return this.reject(field, `${DECIMAL_PROBLEMS[rate]}: ${shown}`);
    if (rate <= BigInt(limits.rate.max)) return Number(rate);
    return this.reject(field, `must be at most ${limits.rate.max / 10 ** unit.places} ${unit.name}, not ${shown}`);
  }

  /** A count of tokens; 0 means that it is not known. */
  count(field: string): number | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (!(value instanceof JsonNumber)) return this.reject(field, 'must be a number');
    const count = scaled(value.text, 0);
    if (typeof count === 'bigint' && count <= BigInt(limits.maxInt32)) return count === 0n ? undefined : Number(count);
    return this.reject(field, `must be a whole number of tokens, not ${printable(value.text, 40)}`);
  }

  flag(field: string): boolean | undefined {
    const value = this.value(field);
    return value === undefined || typeof value === 'boolean' ? value : this.reject(field, 'must be true or false');
  }

  text(field: string, max: number): string | undefined {
    const value = this.value(field);
    if (value === undefined || value === '') return undefined;
    if (typeof value !== 'string') return this.reject(field, 'must be a text');
    const problem = textProblem(value, max);
    return problem === undefined ? value : this.reject(field, problem);
  }

  day(field: string): Date | undefined {
    const text = this.text(field, 10);
    if (text === undefined) return undefined;
    const day = new Date(/^\d{4}-\d\d-\d\d$/.test(text) ? text : Number.NaN);
    return Number.isNaN(day.getTime()) || day.getTime() < 0 ? this.reject(field, 'must be a date') : day;
  }

  /** A nested object with its reader. */
  nested(field: string): FieldReader | undefined {
    const value = this.value(field);
    if (value === undefined) return undefined;
    if (value instanceof JsonObject) return new FieldReader(value, this.problems, `${this.at}${field}.`);
    return this.reject(field, 'must be an object');
  }

  /** The reader of an object in a list. */
  item(field: string, at: number, object: JsonObject): FieldReader {
    return new FieldReader(object, this.problems, `${this.at}${field}[${at}].`);
  }

  list(field: string): readonly JsonValue[] | undefined {
    const value = this.value(field);
    return value === undefined || Array.isArray(value) ? value : this.reject(field, 'must be a list');
  }

  private value(field: string): JsonValue | undefined {
    const value = this.object.members.get(field);
    if (value === TOO_DEEP) return this.reject(field, `is nested deeper than ${limits.jsonDepth} levels`);
    return value ?? undefined;
  }

  private reject(field: string, problem: string): undefined {
    this.report(field, problem);
    return undefined;
  }
}
const MAX_PROBLEMS = 5;

/** The rates without absent ones. */
export const stated = (rates: Readonly<Record<keyof Rates, number | undefined>>): OtherRates =>
  Object.fromEntries(Object.entries(rates).filter(([, rate]) => rate !== undefined));

/** The tiers that have rates, in ascending order. */
export function orderedTiers(tiers: readonly PriceTier[], fields: FieldReader): PriceTier[] {
  const max = maxElements['agentllm.v1.ModelPrice.tiers'];
  const known = tiers.filter(({ rates }) => Object.keys(rates).length > 0);
  if (known.length > max) fields.report('the price', `has more than ${max} context tiers`);
  for (const { above_input_tokens: threshold } of known)
    if (threshold < limits.tierTokens.min || threshold > limits.tierTokens.max)
      fields.report('the price', `has a context tier above ${threshold} tokens`);
  return known.sort((a, b) => a.above_input_tokens - b.above_input_tokens);
}

/** Reports a name that the catalogue cannot have. */
export function checkName(name: string, problems: string[]): void {
  const problem = nameProblem(name, limits.modelName);
  if (problem !== undefined) problems.push(`the name ${problem}`);
}
