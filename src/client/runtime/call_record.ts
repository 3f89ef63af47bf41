import { randomUUID } from 'node:crypto';
import type {
  Attempt,
  ErrorClass,
  ParameterSource,
  Receipt,
  ReceiptMode,
  ReceiptOutcome,
  ReceiptParameter,
} from '../../../gen/ts/agentllm/v1/receipt.js';
import type { SkipReason } from '../../../gen/ts/agentllm/v1/resolution.js';
import { limits } from '../../limits.js';
import type { Resolution, ResolutionHop } from '../resolution_types.js';
import type { Clock } from './clock.js';
import { sumUsage } from './usage.js';
import type { FinishReason } from './wire_reader.js';

/** How a call ended. */
export interface CallEnd {
  readonly outcome: ReceiptOutcome;
  readonly errorClass: ErrorClass;
  /** The hop that produced the response or a part of it. */
  readonly hop?: ResolutionHop | undefined;
  readonly finishReason?: FinishReason | undefined;
}

interface RecordSettings {
  readonly resolution: Resolution;
  readonly mode: 'generate' | 'live' | 'whole';
  readonly runId: string;
  readonly subject: string | undefined;
  readonly clock: Clock;
}

type Skippable = Pick<ResolutionHop, 'index' | 'provider' | 'model_name'>;

const MODES: Readonly<Record<RecordSettings['mode'], ReceiptMode>> = {
  generate: 'RECEIPT_MODE_GENERATE',
  live: 'RECEIPT_MODE_LIVE',
  whole: 'RECEIPT_MODE_WHOLE',
};

const NO_EXPERIMENT = { experiment: '', variant: '' };

/** Collects the data of one call for its receipt. */
export class CallRecord {
  /** When the first content was emitted to the caller, by the clock. */
  firstContentAt: number | undefined;
  private readonly startedAt: number;
  private readonly date: Date;
  private readonly attempts: Attempt[] = [];
  private readonly exhausted = new Set<string>();
  private readonly skipped = new Map<number, Receipt['skipped'][number]>();
  /** The hop and the notes of the last attempt. */
  private last: { readonly hop: ResolutionHop; readonly notes: readonly string[] } | undefined;

  constructor(private readonly settings: RecordSettings) {
    this.startedAt = settings.clock.now();
    this.date = settings.clock.date();
    const { skipped, limiting_budgets } = settings.resolution;
    for (const hop of skipped) this.skip(hop, hop.reason, '');
    this.exhaustedBy(limiting_budgets);
  }

  /** The time since the start of the call in ms. */
  get elapsed(): number {
    return this.settings.clock.now() - this.startedAt;
  }

  /** Records that a hop was skipped. Only the first reason of a hop is recorded. */
  skip({ index, provider, model_name }: Skippable, reason: SkipReason, detail: string): void {
    if (this.skipped.has(index) || this.attempts.some(({ hop_index }) => hop_index === index)) return;
    this.skipped.set(index, { hop_index: index, provider, model_name, reason, detail: cutText(detail) });
  }

  /** Records the budgets that have skipped hops. */
  exhaustedBy(budgets: readonly string[]): void {
    for (const budget of budgets) this.exhausted.add(budget);
  }

  /** Records an attempt. @param notes what was omitted in addition to the findings of the resolution. */
  attempt(attempt: Attempt, hop: ResolutionHop, notes: readonly string[]): void {
    this.skipped.delete(hop.index);
    this.attempts.push(attempt);
    this.last = { hop, notes };
  }

  /** Records that the chain stops after the last attempt, although a retry or another hop was planned. */
  stop(): void {
    const last = this.attempts.at(-1);
    if (last) last.action = 'ATTEMPT_ACTION_STOP';
  }

  get skips(): readonly Receipt['skipped'][number][] {
    return [...this.skipped.values()].sort((a, b) => a.hop_index - b.hop_index);
  }

  receipt({ outcome, errorClass, hop, finishReason = '' }: CallEnd): Receipt {
    const { resolution, mode, runId, subject = '' } = this.settings;
    // The call counts for the assigned variant, whichever hop serves it.
    const { experiment, variant } = resolution.experiment?.counted ? resolution.experiment : NO_EXPERIMENT;
    const usages = this.attempts.flatMap(({ usage }) => usage ?? []);
    const isStream = mode !== 'generate';
    return {
      receipt_id: randomUUID(),
      agent_id: resolution.agent.id,
      agent: resolution.agent.name,
      config_id: (hop ?? this.last?.hop)?.config_id,
      revision: resolution.revision,
      experiment,
      variant,
      subject: experiment === '' ? '' : subject,
      run_id: runId,
      mode: MODES[mode],
      started_at: this.date,
      duration_ms: wholeMs(this.elapsed),
      time_to_first_token_ms:
        isStream && this.firstContentAt !== undefined ? wholeMs(this.firstContentAt - this.startedAt) : undefined,
      outcome,
      finish_reason: finishReason,
      error_class: errorClass,
      hop_index: hop?.index,
      attempts: this.attempts,
      skipped: [...this.skips],
      parameters: this.last ? this.parametersOf(this.last.hop) : [],
      adaptations: this.last ? [...this.adaptationsOf(this.last.hop), ...this.last.notes] : [],
      usage: sumUsage(usages),
      exhausted_budgets: [...this.exhausted].sort(),
    };
  }

  private parametersOf(hop: ResolutionHop): ReceiptParameter[] {
    const omitted = new Set(this.attempts.at(-1)?.stripped_parameters);
    return hop.parameters
      .filter(({ name }) => !omitted.has(name))
      .map(({ name, wire_name, value }) => ({
        name,
        wire_name,
        value_json: JSON.stringify(value),
        source: this.sourceOf(hop, name),
      }));
  }

  /** The source of a parameter. A value of the call has no row; a default comes from the row of a rule. */
  private sourceOf({ parameters, provenance }: ResolutionHop, name: string): ParameterSource {
    const { source } = provenance.find(({ field }) => field === `parameters.${name}`) ?? {};
    if (source === undefined) return 'PARAMETER_SOURCE_CALL';
    const isConfigured = parameters.some((parameter) => parameter.name === name && parameter.configured !== undefined);
    if (source === 'VALUE_SOURCE_EXPERIMENT') return 'PARAMETER_SOURCE_EXPERIMENT';
    const isRule = source === 'VALUE_SOURCE_PROVIDER' || source === 'VALUE_SOURCE_MODEL';
    return isRule && !isConfigured ? 'PARAMETER_SOURCE_DEFAULT' : 'PARAMETER_SOURCE_CONFIG';
  }

  /** The messages of the findings about the parameters of a hop. @param warnings leave out findings for information. */
  adaptationsOf({ index }: ResolutionHop, warnings = false): string[] {
    return this.settings.resolution.findings
      .filter(({ hop, reason }) => hop === index && reason.startsWith('FINDING_REASON_PARAMETER_'))
      .filter(({ severity }) => !warnings || severity !== 'SEVERITY_INFO')
      .map(({ message }) => message);
  }
}

/** A duration as whole milliseconds that fit into an int32. */
export const wholeMs = (ms: number): number => Math.min(Math.max(0, Math.round(ms)), limits.maxInt32);

/** A text, cut to the maximum length in a receipt. */
export const cutText = (text: string): string => text.slice(0, limits.receiptText);
