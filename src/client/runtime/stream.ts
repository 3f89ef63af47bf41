import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { onAbort } from '../../abort.js';
import type { HopAttempt } from './attempt.js';
import type { AttemptFailure } from './attempt_failure.js';
import type { Chain } from './chain.js';
import type { ModelCall, PartSource } from './model_call.js';
import { type PartReader, readParts } from './part_reader.js';
import type { Runtime } from './runtime.js';
import { startChain } from './start_chain.js';

/** The parts of a call that streams. Read it to its end, or close it. */
export interface PartStream<P> {
  /**
   * The next part; `done` with the receipt after the last one. Rejects with a TornStreamError when the stream breaks after
   * a part was emitted, and with a CallAbortedError when the caller aborts; both have the text received so far.
   */
  next(): Promise<IteratorResult<P, Receipt>>;
  /** Aborts the call. No effect on a call that has ended. */
  close(): void;
}

/** The parts of an attempt: up to the first content, or all of them. */
interface Opened<P> {
  readonly parts: readonly P[];
  readonly reader: PartReader<P>;
  readonly isComplete: boolean;
}

/**
 * Makes a call that streams. Resolves with the first part of content in live mode, and with the complete response in whole
 * mode; until then a failure moves the call along its chain.
 *
 * Rejects with a ChainError or a CallAbortedError, which have the receipt; with the AgentLLMError of `resolve()` when the
 * agent cannot be resolved.
 */
export async function stream<P>(runtime: Runtime, call: ModelCall, source: PartSource<P>): Promise<PartStream<P>> {
  const { mode } = call.settings;
  const chain = await startChain(runtime, call, mode);
  const { value, attempt } = await chain.commit((current) => openParts(source, current, mode === 'live'));
  if (value.parts.some((part) => source.isContent(part))) chain.record.firstContentAt = runtime.clock.now();
  return new CommittedStream(chain, attempt, source, value);
}

/** Opens an attempt and reads the parts that are needed before the caller gets the first one. */
async function openParts<P>(source: PartSource<P>, attempt: HopAttempt, isLive: boolean): Promise<Opened<P>> {
  const reader = readParts(await source.open(attempt.context));
  onAbort(attempt.context.signal, () => reader.close());
  const parts: P[] = [];
  for (;;) {
    const { value, done } = await reader.next();
    if (done) {
      attempt.ensureComplete();
      return { parts, reader, isComplete: true };
    }
    throwErrorOf(source, value);
    parts.push(value);
    if (isLive && source.isContent(value)) return { parts, reader, isComplete: false };
  }
}

function throwErrorOf<P>(source: PartSource<P>, part: P): void {
  const error = source.errorOf(part);
  if (error !== undefined) throw error;
}

/** A stream whose parts the caller receives, so no other hop can replace it. */
class CommittedStream<P> implements PartStream<P> {
  private readonly queue: P[];
  private readonly reader: PartReader<P>;
  private receipt: Receipt | undefined;
  private error: Error | undefined;
  private text = '';

  constructor(
    private readonly chain: Chain,
    private readonly attempt: HopAttempt,
    private readonly source: PartSource<P>,
    { parts, reader, isComplete }: Opened<P>,
  ) {
    this.queue = [...parts];
    this.reader = reader;
    attempt.responds();
    if (isComplete) this.receipt = chain.complete(attempt);
    // The receipt is emitted at once, because the caller may not read further.
    else onAbort(attempt.context.signal, () => this.tear(attempt.transport.failure as AttemptFailure));
  }

  /** Has no async function: it would nearly double the garbage of a part. */
  next(): Promise<IteratorResult<P, Receipt>> {
    const part = this.queue.shift();
    if (part !== undefined) return Promise.resolve(this.emit(part));
    if (this.receipt) return Promise.resolve({ value: this.receipt, done: true });
    if (this.error) return Promise.reject(this.error);
    // A failure of the attempt closes the reader, so there is no need to race for each part.
    return this.reader.next().then(this.accept, this.fail);
  }

  close(): void {
    if (!this.receipt && !this.error) this.attempt.cancel();
  }

  private readonly accept = ({ value, done }: IteratorResult<P, unknown>): IteratorResult<P, Receipt> => {
    if (this.error) throw this.error;
    try {
      if (!done) throwErrorOf(this.source, value);
      if (!done) return this.emit(value);
      this.attempt.ensureComplete();
    } catch (error) {
      return this.fail(error);
    }
    this.receipt = this.chain.complete(this.attempt);
    return { value: this.receipt, done: true };
  };

  private readonly fail = (error: unknown): never => {
    throw this.error ?? this.tear(this.attempt.adapterFailure(error));
  };

  private emit(part: P): IteratorResult<P, Receipt> {
    this.text += this.source.textOf(part);
    return { value: part, done: false };
  }

  private tear(failure: AttemptFailure): Error {
    this.error ??= this.chain.tear(this.attempt, failure, this.text);
    return this.error;
  }
}
