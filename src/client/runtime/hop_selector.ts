import { ADMITTED, type Admission } from '../budgets/admission.js';
import { AgentLLMError } from '../error.js';
import type { Resolution, ResolutionHop } from '../resolution_types.js';
import { AttemptFailure } from './attempt_failure.js';
import type { CallRecord } from './call_record.js';
import { type CallNeeds, missingCapability } from './capabilities.js';
import { type BreakerKeys, breakerKeys, type CircuitBreakers, type Permit } from './circuit_breaker.js';
import { keyHint } from './failure_text.js';
import { credentialOf } from './hop_identity.js';
import type { CallableAgent } from './model_call.js';

type Admitted = Extract<Admission, { readonly refused: undefined }>;

/** A hop for the next attempt. */
export interface Selection {
  readonly hop: ResolutionHop;
  readonly apiKey: string | undefined;
  readonly permit: Permit;
  /** The admission of the attempt by the budgets. */
  readonly admission: Admitted;
}

interface SelectorSettings {
  readonly agent: CallableAgent;
  readonly resolution: Resolution;
  readonly runId: string;
  readonly needs: CallNeeds;
  readonly breakers: CircuitBreakers;
  readonly record: CallRecord;
  /** Called when the key of a hop cannot be obtained; the chain moves to the next hop. */
  readonly keyFailed: (hop: ResolutionHop, failure: AttemptFailure) => void;
}

/** A hop whose circuit breaker is open. */
interface BlockedHop extends Omit<Selection, 'permit' | 'admission'> {
  readonly keys: BreakerKeys;
}

/** Selects the hops of a call in the order of its chain, and records the reasons for skipped hops. */
export class HopSelector {
  private position = 0;
  /** The largest context window that was too small. */
  private tooSmall = 0;
  private readonly unusable = new Set<ResolutionHop>();
  private blocked: BlockedHop | undefined;

  constructor(private readonly settings: SelectorSettings) {}

  /** Moves to the next hop. */
  moveOn(): void {
    this.position++;
  }

  /** Moves to the next hop; hops whose context window is known to be no larger than that of `hop` are skipped. */
  moveToLarger({ model }: ResolutionHop): void {
    this.tooSmall = Math.max(this.tooSmall, model.context_window_tokens ?? 0);
    this.position++;
  }

  /**
   * Ends the chain because the context window of `hop` was too small and no later hop has a larger one; records the
   * reason.
   */
  endWithoutLarger(hop: ResolutionHop): void {
    for (this.moveToLarger(hop); this.position < this.settings.resolution.hops.length; this.position++) {
      const later = this.settings.resolution.hops[this.position] as ResolutionHop;
      const problem = this.problemOf(later);
      if (problem) this.settings.record.skip(later, problem.reason, problem.detail);
    }
  }

  /** Skips a hop because its adapter cannot make the call there. */
  skip(hop: ResolutionHop, detail: string): void {
    this.unusable.add(hop);
    this.settings.record.skip(hop, 'SKIP_REASON_CAPABILITY', detail);
  }

  /** Whether a later hop may be tried. Whether it has a key is known only when it is tried. */
  get hasNext(): boolean {
    return this.later.length > 0;
  }

  /** Whether a later hop may have a larger context window than a hop. */
  hasLarger({ model }: ResolutionHop): boolean {
    const window = Math.max(this.tooSmall, model.context_window_tokens ?? 0);
    return this.later.some((hop) => !isAtMost(hop, window));
  }

  /**
   * The hop for the next attempt: the current hop, or the first later hop that can be tried; undefined if there is no
   * such hop.
   */
  async next(signal: AbortSignal | undefined): Promise<Selection | undefined> {
    const { hops } = this.settings.resolution;
    for (; this.position < hops.length; this.position++) {
      const selection = await this.select(hops[this.position] as ResolutionHop, signal);
      if (selection) return selection;
    }
    return undefined;
  }

  /**
   * The first hop with an open breaker, which is tried because the breakers of all hops are open; undefined if there is
   * none.
   */
  async force(signal: AbortSignal | undefined): Promise<Selection | undefined> {
    const { blocked } = this;
    this.blocked = undefined;
    return blocked && this.admitted({ ...blocked, permit: this.settings.breakers.permitOpen(blocked.keys) }, signal);
  }

  private get later(): ResolutionHop[] {
    return this.settings.resolution.hops.slice(this.position + 1).filter((hop) => this.problemOf(hop) === undefined);
  }

  /** The reason why a hop cannot serve the call, regardless of its key and its breakers. */
  private problemOf(hop: ResolutionHop) {
    if (this.unusable.has(hop)) return { reason: 'SKIP_REASON_CAPABILITY', detail: '' } as const;
    const missing = missingCapability(hop, this.settings.needs) ?? this.missingConversation(hop);
    if (missing !== undefined) return { reason: 'SKIP_REASON_CAPABILITY', detail: missing } as const;
    if (!isAtMost(hop, this.tooSmall)) return undefined;
    const detail = `${hop.model.context_window_tokens} tokens`;
    return { reason: 'SKIP_REASON_CONTEXT_TOO_SMALL', detail } as const;
  }

  /** A conversation that a provider stores can only be continued there. */
  private missingConversation(hop: ResolutionHop): string | undefined {
    const { needs, resolution } = this.settings;
    if (!needs.storedConversation) return undefined;
    return credentialOf(resolution.hops[0] as ResolutionHop) === credentialOf(hop) ? undefined : 'stored_conversation';
  }

  private async select(hop: ResolutionHop, signal: AbortSignal | undefined): Promise<Selection | undefined> {
    const { agent, record, breakers } = this.settings;
    const problem = this.problemOf(hop);
    if (problem) {
      record.skip(hop, problem.reason, problem.detail);
      return undefined;
    }
    const key = await this.keyOf(hop, signal);
    if (!key) return undefined;
    if (key.apiKey === undefined && hop.key.source !== 'KEY_SOURCE_NONE') {
      record.skip(hop, 'SKIP_REASON_NO_KEY', keyHint(hop, agent.name));
      return undefined;
    }
    const keys = breakerKeys(hop, key.apiKey);
    const open = breakers.openScope(keys);
    if (open === undefined) return this.admitted({ hop, apiKey: key.apiKey, permit: breakers.permit(keys) }, signal);
    record.skip(hop, 'SKIP_REASON_BREAKER_OPEN', open);
    this.blocked ??= { hop, apiKey: key.apiKey, keys };
    return undefined;
  }

  /** The selection, if the budgets permit the attempt. Otherwise the permit of the breakers is returned. */
  private async admitted(selected: Omit<Selection, 'admission'>, signal: AbortSignal | undefined) {
    const { hop, permit } = selected;
    const admission = await this.admit(hop, signal).catch((error: unknown) => {
      permit.released();
      throw error;
    });
    if (admission) return { ...selected, admission };
    permit.released();
    return undefined;
  }

  /** Requests an attempt at a hop from the budgets; undefined if they do not permit it. */
  private async admit(hop: ResolutionHop, signal: AbortSignal | undefined): Promise<Admitted | undefined> {
    const { agent, resolution, runId, record } = this.settings;
    const pending = agent.admit?.({ resolution, hop, runId, signal }) ?? ADMITTED;
    const admission = pending instanceof Promise ? await pending : pending;
    if (admission.refused === undefined) return admission;
    record.skip(hop, admission.refused, admission.detail);
    if (admission.refused === 'SKIP_REASON_BUDGET_EXHAUSTED') record.exhaustedBy(admission.budgets);
    return undefined;
  }

  /** The key of a hop; undefined if it cannot be obtained. No other key replaces it. */
  private async keyOf(hop: ResolutionHop, signal: AbortSignal | undefined) {
    try {
      return { apiKey: await this.settings.agent.apiKey(hop, { signal }) };
    } catch (error) {
      if (signal?.aborted) throw error;
      const isUnavailable = error instanceof AgentLLMError && error.code === 'UNAVAILABLE';
      const errorClass = isUnavailable ? 'ERROR_CLASS_NETWORK' : 'ERROR_CLASS_AUTH';
      const message = error instanceof Error ? error.message : String(error);
      this.settings.keyFailed(hop, new AttemptFailure(errorClass, message, { cause: error }));
      return undefined;
    }
  }
}

/** Whether the context window is known and has at most this size. */
const isAtMost = ({ model }: ResolutionHop, tokens: number): boolean =>
  tokens > 0 && model.context_window_tokens !== undefined && model.context_window_tokens <= tokens;
