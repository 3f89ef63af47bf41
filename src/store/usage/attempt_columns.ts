import { booleanArray, bytesArray, numberArray, textArray, timeArray } from '../array_literal.js';
import { type NewAttempt, slotOf } from './new_attempt.js';
import { TOKENS } from './sums.js';

/*
 * The arrays in which attempts are sent to the database. Most columns have few distinct values in a batch. Each combination
 * of these values is sent once, as a group, and each attempt has the number of its group. The database then reads half as
 * many values and adds up attempts by one integer.
 */

type Column<Row> = readonly [name: string, type: string, values: (rows: readonly Row[]) => string];

const integers = <Name extends string>(name: Name, type = 'int') =>
  [
    name,
    type,
    (rows: readonly Readonly<Record<Name, number | bigint | null>>[]) => numberArray(rows.map((row) => row[name])),
  ] as const;
const texts = <Name extends string>(name: Name, type = 'text') =>
  [
    name,
    type,
    (rows: readonly Readonly<Record<Name, string | null>>[]) => textArray(rows.map((row) => row[name])),
  ] as const;
const flags = <Name extends string>(name: Name) =>
  [
    name,
    'boolean',
    (rows: readonly Readonly<Record<Name, boolean>>[]) => booleanArray(rows.map((row) => row[name])),
  ] as const;

const HOUR_MS = 3_600_000;
const hourOf = (at: Date): number => Math.floor(at.getTime() / HOUR_MS);

export const GROUP_COLUMNS: readonly Column<NewAttempt>[] = [
  ['slot', 'smallint', (rows) => numberArray(rows.map((row) => slotOf(row.started_at)))],
  ['hour', 'timestamptz', (rows) => timeArray(rows.map((row) => new Date(hourOf(row.started_at) * HOUR_MS)))],
  integers('agent_id'),
  integers('config_id'),
  ...(['agent_name', 'provider', 'model_name', 'experiment', 'variant', 'outcome'] as const).map((name) => texts(name)),
  flags('fallback'),
  texts('unpriced_reason'),
  integers('price_revision', 'bigint'),
  flags('price_from_config'),
];

/** The attempts of a statement, with the number of the group of each. */
interface Numbered {
  readonly attempts: readonly NewAttempt[];
  /** The number of the group of each attempt, counted from 1. */
  readonly groups: readonly number[];
}

const ofAttempts = ([name, type, values]: Column<NewAttempt>): BatchColumn => [
  name,
  type,
  ({ attempts }) => values(attempts),
];
type BatchColumn = readonly [name: string, type: string, values: (batch: Numbered) => string];

export const ATTEMPT_COLUMNS: readonly BatchColumn[] = [
  ['group_number', 'int', ({ groups }) => numberArray(groups)],
  // Milliseconds are shorter than the text of a time, and faster to parse.
  ['started_ms', 'bigint', ({ attempts }) => numberArray(attempts.map(({ started_at }) => started_at.getTime()))],
  ...[
    texts('attempt_id', 'uuid'),
    texts('run_id'),
    ...TOKENS.map((name) => integers(name)),
    integers('cost_nano_usd', 'bigint'),
  ].map(ofAttempts),
  ['record', 'bytea', ({ attempts }) => bytesArray(attempts.map(({ record }) => record))],
];

/** The separator is NUL, which no text of an attempt contains. */
const groupKey = (one: NewAttempt): string =>
  `${one.agent_name}\0${one.provider}\0${one.model_name}\0${one.experiment}\0${one.variant}\0${one.outcome}\0` +
  `${one.unpriced_reason}\0${hourOf(one.started_at)} ${one.agent_id} ${one.config_id} ${one.fallback} ` +
  `${one.price_revision} ${one.price_from_config}`;

/** The arrays of the groups, and then those of the attempts. */
export function bindingsOf(attempts: readonly NewAttempt[]): string[] {
  const numbers = new Map<string, number>();
  const first: NewAttempt[] = [];
  const groups = attempts.map((attempt) => {
    const key = groupKey(attempt);
    const known = numbers.get(key);
    if (known !== undefined) return known;
    first.push(attempt);
    numbers.set(key, first.length);
    return first.length;
  });
  return [
    ...GROUP_COLUMNS.map(([, , values]) => values(first)),
    ...ATTEMPT_COLUMNS.map(([, , values]) => values({ attempts, groups })),
  ];
}
