import type { Knex } from 'knex';
import type { State } from '../../domain/state.js';
import { numberArray, textArray, timeArray } from '../array_literal.js';
import { prepared } from '../session.js';
import type { NewAttempt } from '../usage/new_attempt.js';
import {
  type BinChange,
  changesOf,
  type ExperimentChanges,
  QUANTITIES,
  type RunSubject,
  type SubjectChange,
} from './subject_changes.js';

const KEY = 'experiment_id, subject, variant';
/** The sums of a subject: over all calls, and over the calls that another hop served. */
const SUMS = ['', 'other_'].flatMap((prefix) => ['calls', ...QUANTITIES].map((name) => prefix + name));
const COLUMNS = [...KEY.split(', '), 'first_at', 'last_at', 'attempts', ...SUMS];

const sumOf = (change: SubjectChange, name: string): bigint =>
  name.startsWith('other_')
    ? change.other[name.slice('other_'.length) as keyof SubjectChange['other']]
    : change.all[name as keyof SubjectChange['all']];

/** Each column of the input, its type, and its values as an array. */
const INPUT: readonly (readonly [name: string, type: string, values: (all: readonly SubjectChange[]) => string])[] = [
  ['experiment_id', 'int', (all) => numberArray(all.map((one) => one.experiment_id))],
  ['subject', 'text', (all) => textArray(all.map((one) => one.subject))],
  ['variant', 'text', (all) => textArray(all.map((one) => one.variant))],
  ['first_at', 'timestamptz', (all) => timeArray(all.map((one) => one.first_at))],
  ['last_at', 'timestamptz', (all) => timeArray(all.map((one) => one.last_at))],
  ['attempts', 'bigint', (all) => numberArray(all.map((one) => one.attempts))],
  ...SUMS.map(
    (name) =>
      [name, 'numeric', (all: readonly SubjectChange[]) => numberArray(all.map((one) => sumOf(one, name)))] as const,
  ),
  ['allocation', 'bigint', (all) => numberArray(all.map((one) => one.allocation))],
  ['aborted_calls', 'bigint', (all) => numberArray(all.map((one) => one.aborted_calls))],
  ['unpriced_attempts', 'bigint', (all) => numberArray(all.map((one) => one.unpriced_attempts))],
];

/**
 * SQL for a quantity of a subject after and before the change, over all calls or without the calls that another hop
 * served.
 */
const now = (name: string) => `p.${name}`;
const before = (name: string) => `(p.${name} - i.${name})`;
const servedNow = (name: string) => `(p.${name} - p.other_${name})`;
const servedBefore = (name: string) => `(p.${name} - i.${name} - p.other_${name} + i.other_${name})`;

type Term = (name: string) => string;

/**
 * SQL for the differences of the sums over the subjects: of the values, of their squares, and of their products with
 * the calls.
 */
const differences = (prefix: string, after: Term, previous: Term): (readonly [name: string, sql: string])[] => [
  [`${prefix}calls`, `sum(${after('calls')} - ${previous('calls')})`],
  [
    `${prefix}calls_squared`,
    `sum(${after('calls')} * ${after('calls')} - ${previous('calls')} * ${previous('calls')})`,
  ],
  ...QUANTITIES.flatMap((name): (readonly [string, string])[] => [
    [prefix + name, `sum(${after(name)} - ${previous(name)})`],
    [`${prefix}${name}_squared`, `sum(${after(name)} * ${after(name)} - ${previous(name)} * ${previous(name)})`],
    [`${prefix}${name}_by_calls`, `sum(${after(name)} * ${after('calls')} - ${previous(name)} * ${previous('calls')})`],
  ]),
];

const VARIANT_SUMS: readonly (readonly [name: string, sql: string])[] = [
  ['subjects', 'count(*) filter (where p.attempts = i.attempts)'],
  [
    'served_subjects',
    `count(*) filter (where ${servedNow('calls')} > 0) - count(*) filter (where ${servedBefore('calls')} > 0)`,
  ],
  ['aborted_calls', 'sum(i.aborted_calls)'],
  ['unpriced_attempts', 'sum(i.unpriced_attempts)'],
  ...differences('', now, before),
  ...differences('served_', servedNow, servedBefore),
];
const VARIANT_NAMES = VARIANT_SUMS.map(([name]) => name);

/**
 * Adds changes to the rows of subjects, and the resulting differences to the sums of the variants. The statement
 * returns the newest rows, even if another transaction has just changed them. The previous row is the new row minus the
 * change. A subject is new in its variant if all its attempts are part of the change.
 *
 * For the check of the sample ratio, a subject counts only in its first variant: a subject that is already in another
 * variant is not counted.
 */
const COUNT = `
  with input as (
    select * from unnest(${INPUT.map(([, type]) => `?::${type}[]`).join(', ')}) as t (${INPUT.map(([name]) => name).join(', ')})),
  put as (
    insert into llm_experiment_assignments as a (${COLUMNS.join(', ')})
    select ${COLUMNS.join(', ')} from input order by ${KEY}
        on conflict (${KEY}) do update set
           first_at = least(a.first_at, excluded.first_at), last_at = greatest(a.last_at, excluded.last_at),
           ${['attempts', ...SUMS].map((name) => `${name} = a.${name} + excluded.${name}`).join(', ')}
    returning ${COLUMNS.join(', ')}),
  counted as (
    insert into llm_experiment_variants as v (experiment_id, variant, ${VARIANT_NAMES.join(', ')})
    select p.experiment_id, p.variant, ${VARIANT_SUMS.map(([, sql]) => sql).join(', ')}
      from put as p join input as i using (${KEY}) group by 1, 2 order by 1, 2
        on conflict (experiment_id, variant) do update set
           ${VARIANT_NAMES.map((name) => `${name} = v.${name} + excluded.${name}`).join(', ')})
  insert into llm_experiment_exposures as e (experiment_id, allocation_revision, variant, subjects)
  select p.experiment_id, i.allocation, p.variant, count(*)
    from put as p join input as i using (${KEY})
   where i.allocation is not null and p.attempts = i.attempts
     and not exists (select from llm_experiment_assignments as o
                      where o.experiment_id = p.experiment_id and o.subject = p.subject and o.variant <> p.variant)
     and not exists (select from input as o
                      where o.experiment_id = p.experiment_id and o.subject = p.subject
                        and (o.first_at, o.variant) < (i.first_at, i.variant))
   group by 1, 2, 3 order by 1, 2, 3
      on conflict (experiment_id, allocation_revision, variant) do update set subjects = e.subjects + excluded.subjects`.replace(
  /\s+/g,
  ' ',
);

const BINS = `
  insert into llm_experiment_latency as l (experiment_id, variant, bin, calls)
  select * from unnest(?::int[], ?::text[], ?::smallint[], ?::bigint[])
      on conflict (experiment_id, variant, bin) do update set calls = l.calls + excluded.calls`;

const RUNS = `
  insert into llm_experiment_runs as r (experiment_id, run_id, subject, last_at)
  select * from unnest(?::int[], ?::text[], ?::text[], ?::timestamptz[])
      on conflict (experiment_id, run_id, subject) do update set last_at = greatest(r.last_at, excluded.last_at)`;

/** Adds new attempts to the sums of their experiments, in the transaction that stores them. */
export async function countAttempts(tx: Knex, state: State, attempts: readonly NewAttempt[]): Promise<void> {
  const changes = changesOf(state, attempts);
  if (changes.subjects.length > 0) await addChanges(tx, changes);
}

async function addChanges(tx: Knex, { subjects, bins, runs }: ExperimentChanges): Promise<void> {
  const bindings = INPUT.map(([, , values]) => values(subjects));
  await prepared(tx.raw(COUNT, bindings), true);
  if (bins.length > 0) await addBins(tx, bins);
  if (runs.length > 0) await addRuns(tx, runs);
}

const addBins = (tx: Knex, bins: readonly BinChange[]) =>
  tx.raw(BINS, [
    numberArray(bins.map((one) => one.experiment_id)),
    textArray(bins.map((one) => one.variant)),
    numberArray(bins.map((one) => one.bin)),
    numberArray(bins.map((one) => one.calls)),
  ]);

const addRuns = (tx: Knex, runs: readonly RunSubject[]) =>
  tx.raw(RUNS, [
    numberArray(runs.map((one) => one.experiment_id)),
    textArray(runs.map((one) => one.run_id)),
    textArray(runs.map((one) => one.subject)),
    timeArray(runs.map((one) => one.last_at)),
  ]);
