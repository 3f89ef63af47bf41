import { catalogue, type Entry, type Reason } from './error_catalogue.js';
import { limits } from './limits.js';
import type { StatusCode } from './status_codes.js';

export type { Reason } from './error_catalogue.js';

/** One problem with one field of a request. */
export interface Violation {
  /** Path of the field in the request, for example `config.temperature` or `agents[3].name`. */
  readonly field: string;
  /** What is invalid and what is valid. */
  readonly description: string;
}

/** A resource that an error is about: it was not found, or it prevents the request. */
export interface Resource {
  readonly type:
    | 'agent'
    | 'config'
    | 'provider'
    | 'model'
    | 'credential'
    | 'token'
    | 'budget'
    | 'reservation'
    | 'experiment';
  readonly name: string;
}

type MetadataOf<R extends Reason> = Parameters<(typeof catalogue)[R]['message']>[0];

interface ErrorDetails {
  readonly violations?: readonly Violation[];
  readonly problemCount?: number;
  readonly resources?: readonly Resource[];
  readonly cause?: unknown;
  /**
   * Replaces the delay of the catalogue, in ms, if many callers fail at the same time and must not all retry at the
   * same time.
   */
  readonly retryAfterMs?: number;
}

/** A failure that the caller may see. Everything else that is thrown becomes INTERNAL. */
export class ServiceError extends Error {
  readonly code: StatusCode;
  readonly retryAfterMs: number | undefined;

  /** The number of problems; `violations` has at most `limits.listedProblems` of them. */
  readonly problemCount: number;

  private constructor(
    readonly reason: Reason,
    message: string,
    readonly metadata: Readonly<Record<string, string>>,
    readonly violations: readonly Violation[],
    readonly resources: readonly Resource[],
    details: Pick<ErrorDetails, 'cause' | 'retryAfterMs' | 'problemCount'>,
  ) {
    super(message, { cause: details.cause });
    this.name = 'ServiceError';
    this.code = catalogue[reason].code;
    this.problemCount = details.problemCount ?? violations.length;
    this.retryAfterMs = details.retryAfterMs ?? (catalogue[reason] as Entry<never>).retryAfterMs;
  }

  /** Returns the error without the names that a caller with limited access must not learn. */
  withoutSuggestion(): ServiceError {
    const { suggestion, ...metadata } = this.metadata;
    if (suggestion === undefined) return this;
    return ServiceError.of(this.reason, metadata as never, { resources: this.resources, cause: this.cause });
  }

  static of<R extends Reason>(reason: R, metadata: MetadataOf<R>, details: ErrorDetails = {}): ServiceError {
    const message = (catalogue[reason].message as (m: MetadataOf<R>) => string)(metadata);
    const strings = metadata as Record<string, string | undefined>;
    const defined = Object.fromEntries(Object.entries(strings).filter(([, value]) => value !== undefined));
    return new ServiceError(
      reason,
      message,
      reason === 'INVALID_FIELDS' ? {} : (defined as Record<string, string>),
      (details.violations ?? []).slice(0, limits.listedProblems),
      (details.resources ?? []).slice(0, limits.namedResources),
      { problemCount: details.violations?.length ?? 0, ...details },
    );
  }
}

/** The service or a command cannot start. The message is for an operator and names the remedy. */
export class StartError extends Error {
  override readonly name: string = 'StartError';
}
