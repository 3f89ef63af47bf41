import type { Knex } from 'knex';
import { numberArray, textArray, timeArray } from '../array_literal.js';
import { type MetricNames, OutcomeNames } from './outcome_names.js';

/** A valid outcome to store. */
export interface NewOutcome {
  readonly outcome_id: string;
  /** The ids of the experiments to which the outcome can belong. */
  readonly experiments: readonly number[];
  /** Empty: the subject of the run. */
  readonly subject: string;
  readonly run_id: string;
  readonly name: string;
  /** The value as a decimal number. */
  readonly value: string;
  readonly observed_at: Date;
  readonly actor: string;
}

/** The result for an outcome. */
export type OutcomeResult =
  | { readonly status: 'new'; readonly experiment_id: number; readonly variant: string }
  | { readonly status: 'known' | 'not seen' | 'several subjects' | 'too many names' };

/** The subject and the variant to which an outcome belongs. */
interface Owner {
  readonly experiment_id: number;
  readonly variant: string;
  readonly subject: string;
}

/**
 * Stores outcomes with different ids, and adds the new outcomes to the sums, in one transaction.
 * @returns one result for each outcome, in order.
 */
export async function storeOutcomes(
  tx: Knex,
  outcomes: readonly NewOutcome[],
  metricNames: MetricNames,
): Promise<OutcomeResult[]> {
  const known = await knownIds(tx, outcomes);
  const unknown = outcomes.filter(({ outcome_id }) => !known.has(outcome_id));
  const runs = await subjectsOfRuns(tx, unknown);
  const owners = await ownersOf(tx, unknown, runs);
  const names = new OutcomeNames(metricNames, await lockedNames(tx, [...owners.values()]));
  const results = new Map<string, OutcomeResult>();
  const owned: (NewOutcome & Owner)[] = [];
  for (const outcome of unknown) {
    const id = outcome.outcome_id;
    const owner = owners.get(id);
    if (runs.get(id) === SEVERAL) results.set(id, { status: 'several subjects' });
    else if (!owner) results.set(id, { status: 'not seen' });
    else if (!names.add(owner.experiment_id, outcome.name)) results.set(id, { status: 'too many names' });
    else owned.push({ ...outcome, ...owner });
  }
  const fresh = await insert(tx, owned);
  for (const { outcome_id: id, experiment_id, variant } of owned)
    if (fresh.has(id)) results.set(id, { status: 'new', experiment_id, variant });
  await addToSums(
    tx,
    owned.filter(({ outcome_id }) => fresh.has(outcome_id)),
  );
  return outcomes.map(({ outcome_id }) => results.get(outcome_id) ?? { status: 'known' });
}

async function knownIds(tx: Knex, outcomes: readonly NewOutcome[]): Promise<ReadonlySet<string>> {
  const { rows } = await tx.raw<{ rows: { outcome_id: string }[] }>(
    'select outcome_id from llm_experiment_outcomes where outcome_id = any(?::uuid[])',
    [textArray(outcomes.map(({ outcome_id }) => outcome_id))],
  );
  return new Set(rows.map(({ outcome_id }) => outcome_id));
}

/** Marks a run that has several subjects. */
const SEVERAL = Symbol('several subjects');

/** The only subject of a run, in the experiment of the latest call of the run. */
interface RunSubject {
  readonly experiment_id: number;
  readonly subject: string;
  readonly last_at: Date;
}
type Run = RunSubject | typeof SEVERAL;

/** The subject of the run of each outcome without a subject, by the id of the outcome. */
async function subjectsOfRuns(tx: Knex, outcomes: readonly NewOutcome[]): Promise<ReadonlyMap<string, Run>> {
  const pairs = outcomes
    .filter(({ subject }) => subject === '')
    .flatMap(({ outcome_id, run_id, experiments }) =>
      experiments.map((experiment_id) => ({ outcome_id, run_id, experiment_id })),
    );
  if (pairs.length === 0) return new Map();
  // A run can have any number of subjects. Two are read, because only a second one makes the run ambiguous.
  const { rows } = await tx.raw<{ rows: (RunSubject & { outcome_id: string; subjects: number })[] }>(
    `select distinct on (outcome_id) v.outcome_id, v.experiment_id, r.subjects, r.subject, r.last_at
       from unnest(?::uuid[], ?::text[], ?::int[]) as v (outcome_id, run_id, experiment_id)
      cross join lateral (
         select count(*)::int as subjects, min(two.subject) as subject, max(two.last_at) as last_at
           from (select s.subject, s.last_at from llm_experiment_runs as s
                  where s.experiment_id = v.experiment_id and s.run_id = v.run_id limit 2) as two) as r
      where r.subjects > 0
      order by v.outcome_id, r.last_at desc, v.experiment_id desc`,
    [
      textArray(pairs.map(({ outcome_id }) => outcome_id)),
      textArray(pairs.map(({ run_id }) => run_id)),
      numberArray(pairs.map(({ experiment_id }) => experiment_id)),
    ],
  );
  return new Map(rows.map(({ outcome_id, subjects, ...run }) => [outcome_id, subjects > 1 ? SEVERAL : run]));
}

/** The subject and the time for which the variant of an outcome is read. */
interface OwnerQuery {
  readonly outcome_id: string;
  readonly experiment_id: number;
  readonly subject: string;
  readonly at: Date;
}

/** An outcome of a run belongs to the calls of the run, even if its subject has had other calls since. */
function ownerQueries(
  { outcome_id, experiments, subject, observed_at }: NewOutcome,
  run: Run | undefined,
): OwnerQuery[] {
  if (subject !== '')
    return experiments.map((experiment_id) => ({ outcome_id, experiment_id, subject, at: observed_at }));
  if (run === undefined || run === SEVERAL) return [];
  const at = run.last_at < observed_at ? run.last_at : observed_at;
  return [{ outcome_id, experiment_id: run.experiment_id, subject: run.subject, at }];
}

/**
 * The variant of each outcome, by the id of the outcome: the variant of the latest call of the subject before the outcome.
 * Only the times of the first and the last call in each variant are stored. If a variant has calls before and after the
 * outcome, the variant with the latest first call before the outcome is used. If no call was before the outcome, because
 * the clock of the reporter is behind, the first variant of the subject is used.
 */
async function ownersOf(
  tx: Knex,
  outcomes: readonly NewOutcome[],
  runs: ReadonlyMap<string, Run>,
): Promise<ReadonlyMap<string, Owner>> {
  const queries = outcomes.flatMap((outcome) => ownerQueries(outcome, runs.get(outcome.outcome_id)));
  if (queries.length === 0) return new Map();
  const { rows } = await tx.raw<{ rows: (Owner & { outcome_id: string })[] }>(
    `select distinct on (outcome_id) outcome_id, experiment_id, a.variant, a.subject
       from unnest(?::uuid[], ?::int[], ?::text[], ?::timestamptz[]) as v (outcome_id, experiment_id, subject, at)
       join llm_experiment_assignments as a using (experiment_id, subject)
      order by outcome_id, a.first_at <= v.at desc,
               case when a.first_at <= v.at and not bool_or(a.first_at <= v.at and a.last_at > v.at) over (partition by outcome_id)
                    then a.last_at end desc nulls last,
               case when a.first_at <= v.at then a.first_at end desc, a.first_at, experiment_id desc, a.variant`,
    [
      textArray(queries.map(({ outcome_id }) => outcome_id)),
      numberArray(queries.map(({ experiment_id }) => experiment_id)),
      textArray(queries.map(({ subject }) => subject)),
      timeArray(queries.map(({ at }) => at)),
    ],
  );
  return new Map(rows.map(({ outcome_id, ...owner }) => [outcome_id, owner]));
}

/**
 * The names of the outcomes of experiments, locked so that no other transaction can add a name and exceed the limit.
 */
async function lockedNames(tx: Knex, owners: readonly Owner[]): Promise<readonly (readonly [number, string])[]> {
  const ids = [...new Set(owners.map(({ experiment_id }) => experiment_id))].sort((a, b) => a - b);
  if (ids.length === 0) return [];
  for (const id of ids) await tx.raw(`select pg_advisory_xact_lock(hashtext('llm_experiment_outcomes'), ?)`, [id]);
  const { rows } = await tx.raw<{ rows: { experiment_id: number; name: string }[] }>(
    'select distinct experiment_id, name from llm_experiment_outcome_sums where experiment_id = any(?::int[])',
    [numberArray(ids)],
  );
  return rows.map(({ experiment_id, name }) => [experiment_id, name]);
}

async function insert(tx: Knex, outcomes: readonly (NewOutcome & Owner)[]): Promise<ReadonlySet<string>> {
  if (outcomes.length === 0) return new Set();
  const { rows } = await tx.raw<{ rows: { outcome_id: string }[] }>(
    `insert into llm_experiment_outcomes
       (outcome_id, experiment_id, variant, subject, name, value, run_id, observed_at, actor)
     select * from unnest(?::uuid[], ?::int[], ?::text[], ?::text[], ?::text[], ?::numeric[], ?::text[], ?::timestamptz[],
                          ?::text[]) as v (outcome_id) order by outcome_id
         on conflict do nothing returning outcome_id`,
    [
      textArray(outcomes.map(({ outcome_id }) => outcome_id)),
      numberArray(outcomes.map(({ experiment_id }) => experiment_id)),
      textArray(outcomes.map(({ variant }) => variant)),
      textArray(outcomes.map(({ subject }) => subject)),
      textArray(outcomes.map(({ name }) => name)),
      textArray(outcomes.map(({ value }) => value)),
      textArray(outcomes.map(({ run_id }) => run_id)),
      timeArray(outcomes.map(({ observed_at }) => observed_at)),
      textArray(outcomes.map(({ actor }) => actor)),
    ],
  );
  return new Set(rows.map(({ outcome_id }) => outcome_id));
}

const KEY = 'experiment_id, variant, name, subject';
const MEAN_DECIMALS = 12;
const mean = (total: string, outcomes: string) => `round(${total} / ${outcomes}, ${MEAN_DECIMALS})`;
/** SQL for the mean of a subject before the change, computed exactly as it was stored. */
const MEAN_BEFORE = `(case when p.outcomes = i.outcomes then 0 else ${mean('(p.total - i.total)', '(p.outcomes - i.outcomes)')} end)`;

/** Adds outcomes to the rows of their subjects, and the differences of the means to the sums of the variants. */
const ADD = `
  with input as (
    select ${KEY}, count(*) as outcomes, sum(value) as total
      from unnest(?::int[], ?::text[], ?::text[], ?::text[], ?::numeric[]) as v (${KEY}, value) group by ${KEY}),
  put as (
    insert into llm_experiment_subject_outcomes as s (${KEY}, outcomes, total, mean)
    select ${KEY}, outcomes, total, ${mean('total', 'outcomes')} from input order by ${KEY}
        on conflict (${KEY}) do update set
           outcomes = s.outcomes + excluded.outcomes, total = s.total + excluded.total,
           mean = ${mean('(s.total + excluded.total)', '(s.outcomes + excluded.outcomes)')}
    returning ${KEY}, outcomes, total, mean)
  insert into llm_experiment_outcome_sums as o (experiment_id, variant, name, subjects, means, means_squared)
  select p.experiment_id, p.variant, p.name, count(*) filter (where p.outcomes = i.outcomes),
         sum(p.mean - ${MEAN_BEFORE}), sum(p.mean * p.mean - ${MEAN_BEFORE} * ${MEAN_BEFORE})
    from put as p join input as i using (${KEY}) group by 1, 2, 3 order by 1, 2, 3
      on conflict (experiment_id, variant, name) do update set
         subjects = o.subjects + excluded.subjects, means = o.means + excluded.means,
         means_squared = o.means_squared + excluded.means_squared`;

async function addToSums(tx: Knex, outcomes: readonly (NewOutcome & Owner)[]): Promise<void> {
  if (outcomes.length === 0) return;
  await tx.raw(ADD, [
    numberArray(outcomes.map(({ experiment_id }) => experiment_id)),
    textArray(outcomes.map(({ variant }) => variant)),
    textArray(outcomes.map(({ name }) => name)),
    textArray(outcomes.map(({ subject }) => subject)),
    textArray(outcomes.map(({ value }) => value)),
  ]);
}
