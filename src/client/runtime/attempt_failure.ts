import type { ErrorClass } from '../../../gen/ts/agentllm/v1/receipt.js';

interface FailureFacts {
  /** The HTTP status; undefined if there was no response. */
  readonly status?: number | undefined;
  /** The code or the type in the provider's error. */
  readonly code?: string | undefined;
  /** The wait that the provider asks for, in ms. */
  readonly retryAfterMs?: number | undefined;
  /** The parameter that the provider rejects, by the name that the provider uses. */
  readonly parameter?: string | undefined;
  /** Whether the same request would fail again at this hop in the same way. */
  readonly permanent?: boolean | undefined;
  readonly cause?: unknown;
}

/** Why an attempt failed. It stays within the runtime; callers get a ChainError. */
export class AttemptFailure extends Error {
  override readonly name = 'AttemptFailure';

  constructor(
    readonly errorClass: ErrorClass,
    message: string,
    readonly facts: FailureFacts = {},
  ) {
    super(message, 'cause' in facts ? { cause: facts.cause } : undefined);
  }

  /** Whether the provider had accepted the request: the failure is in a response with a status of success. */
  get inResponse(): boolean {
    const { status } = this.facts;
    return status !== undefined && status < 300;
  }
}
