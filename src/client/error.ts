import { type ServiceError as GrpcError, status } from '@grpc/grpc-js';
import { BadRequest, ErrorInfo, ResourceInfo, RetryInfo } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import type { Reason, ServiceError, Violation } from '../errors.js';
import { type About, messageOf } from './message.js';

/** The name of a gRPC status code, for example `NOT_FOUND`. */
export type Code = Exclude<keyof typeof status, 'OK'>;

/** A resource that was not found, or that causes a conflict. */
export interface Resource {
  /** `agent`, `config`, `provider`, `model`, `credential` or `token`. */
  readonly type: string;
  readonly name: string;
}

/** What this process knows about a failed call. */
interface Facts {
  readonly code: Code;
  readonly method: string;
  readonly requestId?: string | undefined;
  readonly cause?: unknown;
  readonly unsent?: boolean | undefined;
}

/** What the service reports about a failed call, in the details of the status. */
interface Details {
  readonly reason: Reason | undefined;
  readonly violations: readonly Violation[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly resources: readonly Resource[];
  readonly retryAfterMs: number | undefined;
}

/** The domain of agentllm's reasons in google.rpc.ErrorInfo. */
const DOMAIN = 'agentllm';
/** Marks errors of this class across copies of the library: a process may load both its ESM and its CommonJS build. */
const BRAND = Symbol.for('agentllm.AgentLLMError');
const NOTHING: Details = { reason: undefined, violations: [], metadata: {}, resources: [], retryAfterMs: undefined };

/**
 * The error of every failed call. Programs switch on `reason`: a value of
 * ErrorReason in the proto, which documents each with an example. It is
 * undefined when the failure is not a response of an agentllm service: no
 * connection, a proxy, a deadline of this process. A newer service may send a
 * reason that this version has no type for, so a `switch` needs a `default`.
 */
export class AgentLLMError extends Error {
  override readonly name = 'AgentLLMError';
  /** The gRPC status code. */
  readonly code: Code;
  /** The reason that the service reports; undefined for failures of the network, of a proxy or in this process. */
  readonly reason: Reason | undefined;
  /** Full name of the method, for example `agentllm.v1.AgentService/GetAgent`. */
  readonly method: string;
  /** Every invalid field of the request, with a description. */
  readonly violations: readonly Violation[];
  /** The values that the message contains, for programs: `suggestion`, `agent`, … */
  readonly metadata: Readonly<Record<string, string>>;
  /** The resources that were not found, or that cause a conflict. */
  readonly resources: readonly Resource[];
  /** After how many ms a retry may succeed; undefined if the service recommends no retry. */
  readonly retryAfterMs: number | undefined;
  /**
   * The request id of a write, set by the caller or generated. The service executes a request with the same id at most
   * once within 24 hours. If the outcome of a write is unknown, send it again with this id.
   */
  readonly requestId: string | undefined;

  /** True if there never was a connection, so the service cannot have received the call. */
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

  /** Converts an error of grpc-js, including the details in its trailer. It also serves programs that use the stubs. */
  static from(error: GrpcError, method: string, about: About = {}): AgentLLMError {
    const code = (status[error.code] ?? 'UNKNOWN') as Code;
    const { requestId, unsent } = about;
    const facts = { code, method, requestId, unsent, cause: error };
    return new AgentLLMError(messageOf(error, about) || code, facts, detailsOf(error));
  }

  /** An error for a call that failed in this process. */
  static here(message: string, facts: Facts): AgentLLMError {
    return new AgentLLMError(message, facts, NOTHING);
  }

  /** An error that this process raises in place of the service, with the same code, reason and message. */
  static like(refusal: ServiceError, method: string): AgentLLMError {
    const { code, reason, metadata, violations, resources, retryAfterMs } = refusal;
    const details = { reason, metadata, violations, resources, retryAfterMs };
    return new AgentLLMError(refusal.message, { code, method }, details);
  }

  /** The same failure with a message that fits its context; this error becomes its cause. */
  reworded(message: string, code = this.code): AgentLLMError {
    const { method, requestId, unsent } = this;
    return new AgentLLMError(message, { code, method, requestId, unsent, cause: this }, this);
  }

  /** Includes the message, which JSON.stringify omits for an Error. */
  toJSON(): object {
    return { ...this, message: this.message };
  }

  static override [Symbol.hasInstance](value: unknown): value is AgentLLMError {
    return typeof value === 'object' && value !== null && BRAND in value;
  }
}

/** The details in the trailer; none if it cannot be decoded, because a proxy may have written it. */
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
