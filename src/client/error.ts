import { type ServiceError as GrpcError, status } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, ResourceInfo, RetryInfo } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import type { Reason, ServiceError, Violation } from '../errors.js';
import { type About, messageOf } from './message.js';

/** A gRPC status code by its name, `NOT_FOUND` for one. */
export type Code = Exclude<keyof typeof status, 'OK'>;

/** Something that was looked for, or is in the way. */
export interface Resource {
  /** `agent`, `config`, `provider`, `model` or `credential`. */
  readonly type: string;
  readonly name: string;
}

/** What a failed call is known by. */
interface Facts {
  readonly code: Code;
  readonly method: string;
  readonly requestId?: string | undefined;
  readonly cause?: unknown;
  readonly unsent?: boolean | undefined;
}

/** What the service has said of it, in the details of the status. */
interface Details {
  readonly reason: Reason | undefined;
  readonly violations: readonly Violation[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly resources: readonly Resource[];
  readonly retryAfterMs: number | undefined;
}

/** The domain of our reasons in google.rpc.ErrorInfo. */
const DOMAIN = 'agentllm';
/** On every error of this class, whichever copy of the library made it: a process may have loaded both module systems. */
const BRAND = Symbol.for('agentllm.AgentLLMError');
const NOTHING: Details = { reason: undefined, violations: [], metadata: {}, resources: [], retryAfterMs: undefined };

/**
 * A call that failed, whichever way. `reason` is what programs switch on: one of
 * ErrorReason in the proto, which has an example of each; undefined when no
 * agentllm service answered (nobody there, a proxy, this side's own deadline).
 * A newer service may give a reason that this version has no type for, so a
 * `switch` wants a `default`.
 */
export class AgentLLMError extends Error {
  override readonly name = 'AgentLLMError';
  /** The gRPC status code. */
  readonly code: Code;
  /** Why, as the service names it. */
  readonly reason: Reason | undefined;
  /** Full name of the method, `agentllm.v1.AgentService/GetAgent`. */
  readonly method: string;
  /** What is wrong with which field of the request: all of it at once. */
  readonly violations: readonly Violation[];
  /** The values in the message, for programs: `suggestion`, `agent`, … */
  readonly metadata: Readonly<Record<string, string>>;
  /** What was not found, or is in the way. */
  readonly resources: readonly Resource[];
  /** After how many milliseconds another try may help; undefined when none will by itself. */
  readonly retryAfterMs: number | undefined;
  /**
   * The request id that a write went out with, given or made. The same request with the same id is done at most once
   * within 24 hours: send it again with this one when it is not known whether it was done.
   */
  readonly requestId: string | undefined;

  /** True: there was no connection at any time, so the service has never heard of the call. */
  readonly unsent: boolean;

  private constructor(message: string, facts: Facts, details: Details) {
    super(message, 'cause' in facts ? { cause: facts.cause } : undefined);
    this.code = facts.code;
    this.reason = details.reason;
    this.method = facts.method;
    this.violations = details.violations;
    this.metadata = details.metadata;
    this.resources = details.resources;
    this.retryAfterMs = details.retryAfterMs;
    this.requestId = facts.requestId;
    this.unsent = facts.unsent ?? false;
    Object.defineProperty(this, BRAND, { value: true });
  }

  /** A failed call of grpc-js, with the details that the service has put into its trailer; for the bare stubs too. */
  static from(error: GrpcError, method: string, about: About = {}): AgentLLMError {
    const code = (status[error.code] ?? 'UNKNOWN') as Code;
    const { requestId, unsent } = about;
    const facts = { code, method, requestId, unsent, cause: error };
    return new AgentLLMError(messageOf(error, about) || code, facts, detailsOf(error));
  }

  /** A call that failed on this side. */
  static here(message: string, facts: Facts): AgentLLMError {
    return new AgentLLMError(message, facts, NOTHING);
  }

  /** What this side refuses in the place of the service: with the same code, reason and words. */
  static like(refusal: ServiceError, method: string): AgentLLMError {
    const { code, reason, metadata, violations, resources, retryAfterMs } = refusal;
    const details = { reason, metadata, violations, resources, retryAfterMs };
    return new AgentLLMError(refusal.message, { code, method }, details);
  }

  /** The same failure in the words of what it means where it happened; it is the cause. */
  reworded(message: string, code = this.code): AgentLLMError {
    const { method, requestId, unsent } = this;
    return new AgentLLMError(message, { code, method, requestId, unsent, cause: this }, this);
  }

  /** With the message, which JSON would leave out of an Error. */
  toJSON(): object {
    return { ...this, message: this.message };
  }

  static override [Symbol.hasInstance](value: unknown): value is AgentLLMError {
    return typeof value === 'object' && value !== null && BRAND in value;
  }
}

/** What the trailer says; one that cannot be read, from somebody between, says nothing. */
function detailsOf(error: GrpcError): Details {
  try {
    return readDetails(error);
  } catch {
    return NOTHING;
  }
}

function readDetails(error: GrpcError): Details {
  const [trailer] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const any = Buffer.isBuffer(trailer) ? Status.decode(trailer).details : [];
  const all = <T>(type: string, read: (bytes: Uint8Array) => T): T[] =>
    any.filter(({ type_url }) => type_url.endsWith(`/google.rpc.${type}`)).map(({ value }) => read(value));
  const info = all('ErrorInfo', ErrorInfo.decode).find(({ domain }) => domain === DOMAIN);
  const [delay] = all('RetryInfo', RetryInfo.decode).map(({ retry_delay }) => retry_delay);
  return {
    reason: info?.reason as Reason | undefined,
    metadata: info?.metadata ?? {},
    violations: all('BadRequest', BadRequest.decode).flatMap(({ field_violations }) =>
      field_violations.map(({ field, description }) => ({ field, description })),
    ),
    resources: all('ResourceInfo', ResourceInfo.decode).map(({ resource_type, resource_name }) => ({
      type: resource_type.replace(/^agentllm\.v1\./, ''),
      name: resource_name,
    })),
    retryAfterMs: delay && Math.max(0, Number(delay.seconds) * 1000 + Math.round(delay.nanos / 1e6)),
  };
}
