import { hasStarted } from '../../domain/experiments/experiment_index.js';
import { latencyBin } from '../../domain/experiments/latency_histogram.js';
import { variantNamed } from '../../domain/experiments/variant.js';
import type { Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { NewAttempt } from '../usage/new_attempt.js';

/** The quantities of calls that are summed for each subject. */
export const QUANTITIES = ['successes', 'cost_nano_usd', 'latency_ms', 'tokens'] as const;
export type Quantity = (typeof QUANTITIES)[number];

/** Sums over calls. */
export interface CallSums extends Record<Quantity, bigint> {
  calls: bigint;
}

const noCalls = (): CallSums => ({ calls: 0n, successes: 0n, cost_nano_usd: 0n, latency_ms: 0n, tokens: 0n });

/** The change of the sums of one subject in a variant. */
export interface SubjectChange {
  readonly experiment_id: number;
  readonly variant: string;
  readonly subject: string;
  /** The revision of the buckets that assigned the subject; null if the buckets have changed since. */
  readonly allocation: number | null;
  readonly first_at: Date;
  readonly last_at: Date;
  readonly attempts: number;
  readonly all: CallSums;
  /** The sums over the calls that a fallback served. */
  readonly other: CallSums;
  readonly aborted_calls: number;
  readonly unpriced_attempts: number;
}

/** The duration of calls of one variant: a bin of its histogram. */
export interface BinChange {
  readonly experiment_id: number;
  readonly variant: string;
  readonly bin: number;
  readonly calls: number;
}

/** A run that has calls of a subject. */
export interface RunSubject {
  readonly experiment_id: number;
  readonly run_id: string;
  readonly subject: string;
  readonly last_at: Date;
}

/** The changes of the sums of experiments. Each list is ordered by its key, so that transactions do not deadlock. */
export interface ExperimentChanges {
  readonly subjects: readonly SubjectChange[];
  readonly bins: readonly BinChange[];
  readonly runs: readonly RunSubject[];
}

/** Whether an attempt can count for an experiment. */
export const isCounted = ({ experiment, subject, call }: NewAttempt): boolean =>
  experiment !== '' && subject !== '' && call !== undefined;

/**
 * Computes the changes that new attempts make to the sums. Attempts of unknown experiments and variants are ignored.
 */
export function changesOf(state: State, attempts: readonly NewAttempt[]): ExperimentChanges {
  const subjects = new Map<string, Mutable<SubjectChange>>();
  const bins = new Map<string, Mutable<BinChange>>();
  const runs = new Map<string, Mutable<RunSubject>>();
  for (const attempt of attempts) {
    if (!isCounted(attempt)) continue;
    const experiment = state.experiments.named(attempt.agent_id, attempt.experiment);
    const variant = experiment && hasStarted(experiment) && variantNamed(experiment, attempt.variant);
    if (!variant) continue;
    addToSubject(subjects, experiment, variant.name, attempt);
    addToBin(bins, experiment, variant.name, attempt);
    addToRun(runs, experiment, attempt);
  }
  return { subjects: inOrder(subjects), bins: inOrder(bins), runs: inOrder(runs) };
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The values of a map by their keys. */
const inOrder = <T>(map: ReadonlyMap<string, T>): T[] =>
  [...map].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value);

/** A text key that sorts in the order of its parts. */
const keyOf = (id: number, ...rest: readonly string[]) => [String(id).padStart(10, '0'), ...rest].join('\0');

function addToSubject(
  changes: Map<string, Mutable<SubjectChange>>,
  { id, allocation_revision }: Experiment,
  variant: string,
  attempt: NewAttempt,
): void {
  const { subject, started_at } = attempt;
  const key = keyOf(id, subject, variant);
  const change = changes.get(key) ?? {
    experiment_id: id,
    variant,
    subject,
    allocation: allocation_revision,
    first_at: started_at,
    last_at: started_at,
    attempts: 0,
    all: noCalls(),
    other: noCalls(),
    aborted_calls: 0,
    unpriced_attempts: 0,
  };
  changes.set(key, change);
  if (started_at < change.first_at) change.first_at = started_at;
  if (started_at > change.last_at) change.last_at = started_at;
  // The process did not know the new buckets yet and used earlier ones.
  if (attempt.revision < allocation_revision) change.allocation = null;
  change.attempts++;
  if (attempt.cost_nano_usd === null) change.unpriced_attempts++;
  const { call } = attempt;
  if (call?.last_attempt && call.outcome === 'RECEIPT_OUTCOME_ABORTED') change.aborted_calls++;
  addToSums(change.all, attempt);
  if ((call?.hop_index ?? 0) > 0) addToSums(change.other, attempt);
}

function addToSums(sums: CallSums, { call, cost_nano_usd, input_tokens, output_tokens }: NewAttempt): void {
  sums.cost_nano_usd += cost_nano_usd ?? 0n;
  sums.tokens += BigInt((input_tokens ?? 0) + (output_tokens ?? 0));
  if (!call?.last_attempt) return;
  sums.calls++;
  if (call.outcome === 'RECEIPT_OUTCOME_COMPLETED') sums.successes++;
  sums.latency_ms += BigInt(call.duration_ms);
}

function addToBin(
  changes: Map<string, Mutable<BinChange>>,
  { id }: Experiment,
  variant: string,
  { call }: NewAttempt,
): void {
  if (!call?.last_attempt) return;
  const bin = latencyBin(call.duration_ms);
  const key = keyOf(id, variant, String(bin).padStart(5, '0'));
  const change = changes.get(key);
  if (change) change.calls++;
  else changes.set(key, { experiment_id: id, variant, bin, calls: 1 });
}

function addToRun(
  runs: Map<string, Mutable<RunSubject>>,
  { id }: Experiment,
  { run_id, subject, started_at }: NewAttempt,
): void {
  if (run_id === '') return;
  const key = keyOf(id, run_id, subject);
  const run = runs.get(key);
  if (!run) runs.set(key, { experiment_id: id, run_id, subject, last_at: started_at });
  else if (started_at > run.last_at) run.last_at = started_at;
}
