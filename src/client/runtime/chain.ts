import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { onAbort } from '../../abort.js';
import type { Resolution, ResolutionHop } from '../resolution_types.js';
import { HopAttempt, keyFailureRecord } from './attempt.js';
import type { AttemptFailure } from './attempt_failure.js';
import { timerLimits } from './call_limits.js';
import { type CallEnd, CallRecord } from './call_record.js';
import { CallAbortedError, ChainError, TornStreamError } from './chain_error.js';
import { failureMessage, failureText, type HopFailure, noHopMessage } from './failure_text.js';
import { HopSelector, type Selection } from './hop_selector.js';
import { type ModelCall, UnsupportedCall } from './model_call.js';
import { type NextAction, nextAction } from './next_action.js';
import type { Runtime } from './runtime.js';
import type { CallSpan } from './telemetry.js';

/** The result of an attempt that is returned to the caller. */
export interface Committed<T> {
  readonly value: T;
  readonly attempt: HopAttempt;
}

/**
 * One call through the hops of its chain. It makes the attempts, decides the action after a failure, and ends with
 * exactly one receipt. It shares no state with other calls.
 */
export class Chain {
  readonly record: CallRecord;
  private readonly resolution: Resolution;
  private readonly selector: HopSelector;
  private readonly deadline: number;
  private readonly failures: HopFailure[] = [];
  private readonly releaseAbort: () => void;
  private requests = 0;
  /** Retries and omitted fields of the current hop. */
  private retries = 0;
  private omitted: readonly string[] = [];
  private current: HopAttempt | undefined;
  private wake = () => {};
  private isEnded = false;

  constructor(
    private readonly runtime: Runtime,
    private readonly call: ModelCall,
    private readonly mode: 'generate' | 'live' | 'whole',
    private readonly span: CallSpan,
    resolution: Resolution,
  ) {
    const { agent, settings, needs, signal } = call;
    const { clock, breakers } = runtime;
    this.resolution = resolution;
    this.deadline = clock.now() + settings.deadlineMs;
    const record = new CallRecord({ resolution, mode, runId: settings.runId, subject: settings.subject, clock });
    this.record = record;
    const keyFailed = (hop: ResolutionHop, failure: AttemptFailure) => this.keyFailed(hop, failure);
    this.selector = new HopSelector({ agent, resolution, runId: settings.runId, needs, breakers, record, keyFailed });
    this.releaseAbort = onAbort(signal, () => {
      this.current?.cancel();
      this.wake();
    });
  }

  /**
   * Makes attempts until one of them has a result for the caller. Rejects with a ChainError or a CallAbortedError,
   * after the receipt has been emitted.
   */
  async commit<T>(operate: (attempt: HopAttempt) => Promise<T>): Promise<Committed<T>> {
    for (;;) {
      const attempt = this.begin(await this.select());
      try {
        const value = await attempt.span.run(() => attempt.race(operate(attempt)));
        return { value, attempt };
      } catch (error) {
        await this.recover(attempt, error);
      }
    }
  }

  /** Ends the call with the complete response of an attempt. */
  complete(attempt: HopAttempt): Receipt {
    attempt.responds();
    const { finishReason } = attempt.transport.facts;
    this.recordAttempt(attempt, undefined, { action: 'ATTEMPT_ACTION_NONE' });
    const outcome = 'RECEIPT_OUTCOME_COMPLETED';
    return this.end({ outcome, errorClass: 'ERROR_CLASS_UNSPECIFIED', hop: attempt.hop, finishReason });
  }

  /** Ends the call after a part of the response has been emitted. @param content the text of the part. */
  tear(attempt: HopAttempt, failure: AttemptFailure, content: string): TornStreamError | CallAbortedError {
    attempt.report(failure);
    this.recordAttempt(attempt, failure, { action: 'ATTEMPT_ACTION_STOP' });
    const { errorClass } = failure;
    if (errorClass === 'ERROR_CLASS_CANCELLED') return this.abort(attempt.hop, content);
    const receipt = this.end({ outcome: 'RECEIPT_OUTCOME_TORN', errorClass, hop: attempt.hop });
    const message = `The stream broke after a part of the response: ${failureText({ hop: attempt.hop, failure })}`;
    return new TornStreamError(message, { receipt, errorClass, status: failure.facts.status, content, cause: failure });
  }

  private async select(): Promise<Selection> {
    if (this.call.signal?.aborted) throw this.abort();
    const selection = await this.waitFor(this.selector.next(this.call.signal));
    if (this.call.signal?.aborted) {
      releaseSelection(selection);
      throw this.abort();
    }
    const chosen =
      selection ?? (this.requests === 0 ? await this.waitFor(this.selector.force(this.call.signal)) : undefined);
    if (chosen && this.leftMs > 0 && !this.call.signal?.aborted) return chosen;
    releaseSelection(chosen);
    throw this.call.signal?.aborted ? this.abort() : this.exhausted();
  }

  /** Waits for the key of a hop, at most until the deadline or the abort. */
  private async waitFor(next: Promise<Selection | undefined>): Promise<Selection | undefined> {
    let cancel = () => {};
    const first = new Promise<Selection | undefined>((resolve, reject) => {
      this.wake = () => resolve(undefined);
      cancel = this.runtime.clock.after(Math.max(0, this.leftMs), () => resolve(undefined));
      next.then(resolve, reject);
    });
    next.then(
      (selection) => this.isEnded && releaseSelection(selection),
      () => {},
    );
    try {
      return await first;
    } catch (error) {
      if (this.call.signal?.aborted) return undefined;
      throw error;
    } finally {
      cancel();
      this.wake = () => {};
    }
  }

  private begin({ hop, apiKey, permit, admission }: Selection): HopAttempt {
    const { clock } = this.runtime;
    const { settings } = this.call;
    const { mode, leftMs, omitted } = this;
    this.requests++;
    const attempt = new HopAttempt({
      hop,
      apiKey,
      permit,
      admission,
      omitted,
      mode,
      clock,
      parameters: hop.parameters,
      refusalFails: settings.contentPolicyFallback,
      limits: timerLimits(hop, settings, { mode, hasNext: this.selector.hasNext, leftMs }),
      fetch: settings.fetch ?? globalThis.fetch,
      firstHop: this.resolution.hops[0] as ResolutionHop,
      span: this.span.attempt(hop),
      adaptations: this.record.adaptationsOf(hop, true),
    });
    this.current = attempt;
    attempt.transport.start();
    return attempt;
  }

  /** Decides the action after a failed attempt, and waits before the next attempt. Throws when the call has failed. */
  private async recover(attempt: HopAttempt, error: unknown): Promise<void> {
    if (error instanceof UnsupportedCall) {
      this.requests--;
      attempt.discard();
      this.selector.skip(attempt.hop, error.capability);
      this.moveOn();
      return;
    }
    const failure = error as AttemptFailure;
    attempt.report(failure);
    const next = this.decide(attempt, failure);
    this.recordAttempt(attempt, failure, next);
    if (failure.errorClass === 'ERROR_CLASS_CANCELLED') throw this.abort();
    await this.follow(next, attempt.hop, failure);
  }

  private decide(attempt: HopAttempt, failure: AttemptFailure): NextAction {
    const { selector, retries, leftMs } = this;
    const { maxAttempts, contentPolicyFallback } = this.call.settings;
    return nextAction({
      failure,
      hasNext: selector.hasNext,
      hasLarger: selector.hasLarger(attempt.hop),
      mayRetry: attempt.mayRetry(this.runtime.breakers),
      retries,
      omittable: this.omitted.length > 0 ? undefined : attempt.transport.omittable(failure.facts.parameter),
      leftMs,
      attemptsLeft: maxAttempts - this.requests,
      contentPolicyFallback,
      random: this.runtime.random,
    });
  }

  private async follow(next: NextAction, hop: ResolutionHop, failure: AttemptFailure): Promise<void> {
    switch (next.action) {
      case 'ATTEMPT_ACTION_RETRY':
        this.retries++;
        return this.pause(next.backoffMs);
      case 'ATTEMPT_ACTION_STRIP':
        this.omitted = [next.omit];
        return;
      case 'ATTEMPT_ACTION_NEXT_HOP':
        return this.moveOn();
      case 'ATTEMPT_ACTION_LARGER_CONTEXT':
        this.selector.moveToLarger(hop);
        return this.resetHop();
      default:
        if (failure.errorClass === 'ERROR_CLASS_CONTEXT_OVERFLOW') this.selector.endWithoutLarger(hop);
        throw this.exhausted();
    }
  }

  private moveOn(): void {
    this.selector.moveOn();
    this.resetHop();
  }

  private resetHop(): void {
    this.retries = 0;
    this.omitted = [];
  }

  private async pause(ms: number): Promise<void> {
    if (this.call.signal?.aborted) return;
    await new Promise<void>((resolve) => {
      const cancel = this.runtime.clock.after(ms, resolve);
      this.wake = () => {
        cancel();
        resolve();
      };
    });
    this.wake = () => {};
  }

  /** Adds an attempt to the record. */
  private recordAttempt(
    attempt: HopAttempt,
    failure: AttemptFailure | undefined,
    next: NextAction | { action: 'ATTEMPT_ACTION_NONE' },
  ): void {
    const backoffMs = next.action === 'ATTEMPT_ACTION_RETRY' ? next.backoffMs : undefined;
    const record = attempt.end(failure, next.action, backoffMs);
    if (failure) this.failures.push({ hop: attempt.hop, failure });
    this.record.attempt(record, attempt.hop, attempt.notes);
    this.current = undefined;
  }

  /** A hop whose key cannot be obtained counts as a failed attempt without a request. */
  private keyFailed(hop: ResolutionHop, failure: AttemptFailure): void {
    this.failures.push({ hop, failure });
    this.record.attempt(keyFailureRecord(hop, failure, this.runtime.clock.date()), hop, []);
  }

  private get leftMs(): number {
    return this.deadline - this.runtime.clock.now();
  }

  /** The error when no further attempt is possible. */
  private exhausted(): ChainError {
    this.record.stop();
    const last = this.failures.at(-1)?.failure;
    const isLate = !last && this.leftMs <= 0;
    const errorClass = last?.errorClass ?? (isLate ? 'ERROR_CLASS_TIMEOUT' : 'ERROR_CLASS_INVALID_REQUEST');
    const message = last
      ? failureMessage(this.call.agent.name, this.failures, this.record.skips)
      : isLate
        ? `The deadline of ${this.call.settings.deadlineMs} ms was reached before an attempt`
        : noHopMessage(this.resolution, this.record.skips);
    const receipt = this.end({ outcome: 'RECEIPT_OUTCOME_FAILED', errorClass });
    return new ChainError(message, { receipt, errorClass, status: last?.facts.status, cause: last });
  }

  private abort(hop?: ResolutionHop, content = ''): CallAbortedError {
    const receipt = this.end({ outcome: 'RECEIPT_OUTCOME_ABORTED', errorClass: 'ERROR_CLASS_CANCELLED', hop });
    return new CallAbortedError(this.call.signal?.reason, { receipt, content });
  }

  private end(end: CallEnd): Receipt {
    this.isEnded = true;
    this.releaseAbort();
    const receipt = this.record.receipt(end);
    this.span.end(receipt);
    this.runtime.emit(receipt);
    return receipt;
  }
}

/** Returns the permit and the reserved unit of an attempt that is not made. */
function releaseSelection(selection: Selection | undefined): void {
  selection?.permit.released();
  selection?.admission.unused();
}
