import type { Attempt, ErrorClass, ModelUsage, ReceiptOutcome } from '../../gen/ts/agentllm/v1/receipt.js';
import type { AttemptOutcome, UsageCall, UsageRecord } from '../../gen/ts/agentllm/v1/usage.js';
import { limits } from '../limits.js';
import { textProblem, UUID } from './text.js';

/* The checks of a reported attempt. They run for every attempt, so they allocate no memory for a valid attempt. */

/** A field of a record and its problem, as one sentence part. */
type Report = (field: string, problem: string | undefined) => void;

/** The reason why a record is invalid, as one sentence; undefined if it is valid. */
export function recordProblem(record: UsageRecord): string | undefined {
  let problems = '';
  const report: Report = (field, problem) => {
    if (problem && problems.length < limits.providerMessage) problems += `${problems && '; '}${field} ${problem}`;
  };
  if (record.attempt) checkAttempt(record.attempt, report);
  else report('attempt', 'is required');
  checkContext(record, report);
  return problems || undefined;
}

const required = (text: string, max: number) => (text === '' ? 'is required' : textProblem(text, max));
const uuidOrEmpty = (text: string) => (text === '' || UUID.test(text) ? undefined : 'must be a UUID');
const atLeast = (value: number | undefined, min: number) =>
  value === undefined || (Number.isInteger(value) && value >= min) ? undefined : `must be at least ${min}`;

function checkContext(record: UsageRecord, report: Report): void {
  report('agent_id', atLeast(record.agent_id, 0));
  report('agent', required(record.agent, limits.agentName));
  report('receipt_id', uuidOrEmpty(record.receipt_id));
  report('revision', record.revision < 0n ? 'must be at least 0' : undefined);
  report('experiment', textProblem(record.experiment, limits.experimentName));
  report('variant', textProblem(record.variant, limits.experimentName));
  report('subject', textProblem(record.subject, limits.subject));
  report('run_id', textProblem(record.run_id, limits.runId));
  if (record.call) checkCall(record.call, report);
}

function checkCall({ outcome, duration_ms, hop_index }: UsageCall, report: Report): void {
  report('call.outcome', OUTCOMES.has(outcome) ? undefined : 'must be one of ReceiptOutcome');
  report('call.duration_ms', atLeast(duration_ms, 0));
  report('call.hop_index', atLeast(hop_index, 0));
}

const OUTCOMES: ReadonlySet<ReceiptOutcome> = new Set<ReceiptOutcome>([
  'RECEIPT_OUTCOME_COMPLETED',
  'RECEIPT_OUTCOME_FAILED',
  'RECEIPT_OUTCOME_TORN',
  'RECEIPT_OUTCOME_ABORTED',
]);

function checkAttempt(attempt: Attempt, report: Report): void {
  report('attempt.attempt_id', UUID.test(attempt.attempt_id) ? undefined : 'must be a UUID');
  report('attempt.provider', required(attempt.provider, limits.provider));
  report('attempt.model_name', required(attempt.model_name, limits.modelName));
  report('attempt.config_id', atLeast(attempt.config_id, 1));
  report('attempt.hop_index', atLeast(attempt.hop_index, 0));
  report('attempt.started_at', timeProblem(attempt.started_at));
  report('attempt.reservation_id', uuidOrEmpty(attempt.reservation_id));
  for (const field of TEXTS) report(`attempt.${field}`, textProblem(attempt[field], limits.receiptText));
  for (const name of attempt.stripped_parameters)
    report('attempt.stripped_parameters', textProblem(name, limits.receiptText));
  if (attempt.usage) checkUsage(attempt.usage, report);
}

const TEXTS = ['provider_request_id', 'provider_code', 'response_model', 'content_type'] as const;

function timeProblem(time: Date | undefined): string | undefined {
  if (!time) return 'is required';
  const year = time.getUTCFullYear();
  return year >= 1970 && year <= 9999 ? undefined : 'must be a time between the years 1970 and 9999';
}

const COUNTS = [
  'input_tokens',
  'input_no_cache_tokens',
  'input_cache_read_tokens',
  'input_cache_write_tokens',
  'input_cache_write_long_tokens',
  'output_tokens',
  'output_text_tokens',
  'output_reasoning_tokens',
] as const satisfies readonly (keyof ModelUsage)[];

/** Totals, and the kinds that they include. */
const TOTALS = [
  ['input_tokens', ['input_no_cache_tokens', 'input_cache_read_tokens', 'input_cache_write_tokens']],
  ['input_cache_write_tokens', ['input_cache_write_long_tokens']],
  ['output_tokens', ['output_text_tokens', 'output_reasoning_tokens']],
] as const satisfies readonly (readonly [keyof ModelUsage, readonly (keyof ModelUsage)[]])[];

function checkUsage(usage: ModelUsage, report: Report): void {
  const { min, max } = limits.attemptTokens;
  for (const count of COUNTS) {
    const value = usage[count];
    if (value !== undefined && !(value >= min && value <= max))
      report(`attempt.usage.${count}`, `must be ${min} to ${max}, not ${value}`);
  }
  for (const [total, kinds] of TOTALS) {
    let sum = 0;
    for (const kind of kinds) sum += usage[kind] ?? 0;
    const value = usage[total];
    if (value !== undefined && sum > value)
      report(`attempt.usage.${total}`, `must not be less than its kinds together, which are ${sum}`);
  }
  report('attempt.usage.raw_json', textProblem(usage.raw_json, limits.usageJsonBytes));
}

/** The outcome of an attempt with this error class. */
export function outcomeOf(errorClass: ErrorClass): AttemptOutcome {
  if (errorClass === 'ERROR_CLASS_UNSPECIFIED') return 'ATTEMPT_OUTCOME_SUCCEEDED';
  if (errorClass === 'ERROR_CLASS_TORN') return 'ATTEMPT_OUTCOME_TORN';
  return errorClass === 'ERROR_CLASS_CANCELLED' ? 'ATTEMPT_OUTCOME_ABORTED' : 'ATTEMPT_OUTCOME_FAILED';
}
