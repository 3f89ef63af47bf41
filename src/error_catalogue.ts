import type { ErrorReason } from '../gen/ts/agentllm/v1/error_reason.js';
import type { StatusCode } from './status_codes.js';

/** A value of ErrorReason without its prefix, as in ErrorInfo.reason. */
export type Reason = Exclude<keyof typeof ErrorReason, 'UNSPECIFIED' | 'UNRECOGNIZED'>;

/** The status code and the message of one reason. `M` is the metadata that the message needs. */
export interface Entry<M> {
  readonly code: StatusCode;
  readonly message: (metadata: M) => string;
  /** The delay before a retry, in ms; undefined if a retry does not help. */
  readonly retryAfterMs?: number;
}

type None = Record<never, never>;

const entry = <M>(code: StatusCode, message: (metadata: M) => string, retryAfterMs?: number): Entry<M> => ({
  code,
  message,
  ...(retryAfterMs !== undefined && { retryAfterMs }),
});

const q = (text: string) => JSON.stringify(text);
const didYouMean = (suggestion: string | undefined) => (suggestion ? `; did you mean ${q(suggestion)}?` : '');

/** The error catalogue: every way in which a call can fail, with its status code and message. */
export const catalogue = {
  INVALID_FIELDS: entry<{ violations: string }>('INVALID_ARGUMENT', (m) => m.violations),
  MALFORMED_REQUEST: entry<{ type: string }>(
    'INVALID_ARGUMENT',
    (m) => `The request is not a valid ${m.type}; encode it with the proto files of this service`,
  ),
  INVALID_PAGE_TOKEN: entry<None>(
    'INVALID_ARGUMENT',
    () => 'page_token does not belong to this list and filter; start again without one',
  ),
  REQUEST_ID_REUSED: entry<{ request_id: string }>(
    'INVALID_ARGUMENT',
    (m) => `request_id ${m.request_id} was used for another request; use a new one for every new write`,
  ),
  AGENT_NOT_FOUND: entry<{ agent: string; suggestion?: string }>(
    'NOT_FOUND',
    (m) => `No agent has the ${m.agent}${didYouMean(m.suggestion)}`,
  ),
  CONFIG_NOT_FOUND: entry<{ id: string }>('NOT_FOUND', (m) => `No config has the id ${m.id}`),
  NO_ENABLED_CONFIG: entry<{ agent: string; model?: string }>('NOT_FOUND', (m) =>
    m.model
      ? `Agent ${q(m.agent)} has no enabled config; it uses its own llm_provider and llm_model, ${m.model}`
      : `Agent ${q(m.agent)} has no enabled config and no default model; create or enable a config`,
  ),
  PROVIDER_NOT_FOUND: entry<{ provider: string; suggestion?: string }>(
    'NOT_FOUND',
    (m) => `No provider has the name ${q(m.provider)}${didYouMean(m.suggestion)}`,
  ),
  MODEL_NOT_FOUND: entry<{ provider: string; model: string; suggestion?: string }>(
    'NOT_FOUND',
    (m) => `Provider ${q(m.provider)} has no model ${q(m.model)}${didYouMean(m.suggestion)}`,
  ),
  AGENT_NAME_TAKEN: entry<{ agent: string }>(
    'ALREADY_EXISTS',
    (m) => `An agent with the name ${q(m.agent)} already exists`,
  ),
  PROVIDER_NAME_TAKEN: entry<{ provider: string; name: string }>(
    'ALREADY_EXISTS',
    (m) => `Provider ${q(m.provider)} already has the name or alias ${q(m.name)}`,
  ),
  MODEL_NAME_TAKEN: entry<{ provider: string; model: string }>(
    'ALREADY_EXISTS',
    (m) => `Provider ${q(m.provider)} already has a model ${q(m.model)}`,
  ),
  STALE_ETAG: entry<{ resource: string }>(
    'ABORTED',
    (m) => `${m.resource} has changed since this etag was read; read it again and repeat the change`,
  ),
  AGENT_RESERVED: entry<{ agent: string }>(
    'FAILED_PRECONDITION',
    (m) => `Agent ${q(m.agent)} is reserved and cannot be deleted; set is_active to false instead`,
  ),
  AGENT_HAS_CONFIGS: entry<{ agent: string; configs: string }>(
    'FAILED_PRECONDITION',
    (m) => `Agent ${q(m.agent)} has ${m.configs} configs; set cascade to delete them too`,
  ),
  PROVIDER_IN_USE: entry<{ provider: string; users: string }>(
    'FAILED_PRECONDITION',
    (m) => `Provider ${q(m.provider)} is used by ${m.users} configs, agents, experiments or credentials; change those`,
  ),
  MODEL_IN_USE: entry<{ model: string; users: string }>(
    'FAILED_PRECONDITION',
    (m) => `Model ${q(m.model)} is used by ${m.users} configs, agents or experiments; change those first`,
  ),
  BUILT_IN_PROVIDER: entry<{ provider: string; what: string }>(
    'FAILED_PRECONDITION',
    (m) => `Provider ${q(m.provider)} is built in: ${m.what}; create a provider of your own instead`,
  ),
  BUILT_IN_MODEL: entry<{ model: string }>(
    'FAILED_PRECONDITION',
    (m) => `Model ${q(m.model)} is built in and cannot be deleted`,
  ),
  ENCRYPTION_NOT_CONFIGURED: entry<{ problem: string }>(
    'FAILED_PRECONDITION',
    (m) =>
      `API keys cannot be stored: ENCRYPTION_KEY ${m.problem}; set it to the output of \`agentllm key generate\` and restart the service`,
  ),
  ENCRYPTION_KEY_WRONG: entry<{ ours: string; theirs: string }>(
    'FAILED_PRECONDITION',
    (m) =>
      `API keys cannot be stored: ENCRYPTION_KEY (key ${m.ours}) is not the encryption key of the stored API keys (key ${m.theirs}); set the correct key, or both keys separated by a comma; if the correct key is lost, \`agentllm key rotate --skip-unreadable\` continues without the API keys that it encrypts`,
  ),
  KEY_PROVIDER_MISMATCH: entry<{ key_provider: string; provider: string; remedy: string }>(
    'FAILED_PRECONDITION',
    (m) => `The stored API key is for ${m.key_provider} and cannot be used for ${m.provider}; ${m.remedy}`,
  ),
  CREDENTIAL_NOT_FOUND: entry<{ credential: string; suggestion?: string }>(
    'NOT_FOUND',
    (m) => `No credential has the name ${q(m.credential)}${didYouMean(m.suggestion)}`,
  ),
  CREDENTIAL_NAME_TAKEN: entry<{ credential: string }>(
    'ALREADY_EXISTS',
    (m) => `A credential with the name ${q(m.credential)} already exists`,
  ),
  CREDENTIAL_IN_USE: entry<{ credential: string; users: string }>(
    'FAILED_PRECONDITION',
    (m) => `Credential ${q(m.credential)} is used by ${m.users} configs; change those first`,
  ),
  REVISION_NOT_REACHED: entry<{ wanted: string; reached: string }>(
    'UNAVAILABLE',
    (m) =>
      `This replica is at revision ${m.reached} and has not reached revision ${m.wanted}; retry, or omit min_revision`,
    500,
  ),
  DATABASE_UNAVAILABLE: entry<None>(
    'UNAVAILABLE',
    () => 'The database is unavailable or does not accept writes; a write has changed nothing; retry',
    1000,
  ),
  OUTCOME_UNKNOWN: entry<None>(
    'UNAVAILABLE',
    () => 'The outcome of the write is unknown; retry with the same request_id',
    1000,
  ),
  WRITE_CONFLICT: entry<None>(
    'ABORTED',
    () => 'Another write blocked this one for too long; nothing was written, retry',
    500,
  ),
  SERVER_SHUTTING_DOWN: entry<None>('UNAVAILABLE', () => 'The service is shutting down; reconnect', 1000),
  FEATURE_NOT_AVAILABLE: entry<{ feature: string }>(
    'UNIMPLEMENTED',
    (m) => `${m.feature} is not available in this release; omit it`,
  ),
  DEADLINE_EXCEEDED: entry<None>('DEADLINE_EXCEEDED', () => 'The deadline passed before the call completed'),
  CANCELLED: entry<None>('CANCELLED', () => 'The caller cancelled the call'),
  TOO_MANY_CALLS: entry<{ calls: string; scope?: 'token' }>(
    'RESOURCE_EXHAUSTED',
    (m) =>
      m.scope
        ? `The token or certificate of this caller already has ${m.calls} calls in progress, the most for one; wait for some to end`
        : `The server is already handling ${m.calls} calls; retry`,
    200,
  ),
  TOO_MANY_REQUEST_BYTES: entry<{ what: string; limit: string }>(
    'RESOURCE_EXHAUSTED',
    (m) => `The service keeps at most ${m.limit} bytes of ${m.what} in memory; send less, or retry`,
    500,
  ),
  TOO_MANY_CHECKS: entry<{ checks: string }>(
    'RESOURCE_EXHAUSTED',
    (m) => `The service permits ${m.checks} of these checks per minute; retry later`,
    2_000,
  ),
  RETRY_WITHOUT_REQUEST_ID: entry<None>(
    'FAILED_PRECONDITION',
    () =>
      'This is a retry of a write without request_id, and an earlier attempt may have succeeded; read the current state and, if the write is missing, send it with a request_id',
  ),
  INVALID_RESUME_TOKEN: entry<None>(
    'INVALID_ARGUMENT',
    () => 'resume_token was not issued by this service; start again without one',
  ),
  RESUME_TOKEN_FILTER_CHANGED: entry<None>(
    'INVALID_ARGUMENT',
    () => 'resume_token belongs to a watch of other agents; start again without one',
  ),
  REVISION_COMPACTED: entry<{ revision: string; oldest: string }>(
    'OUT_OF_RANGE',
    (m) => `Revision ${m.revision} is no longer available; the oldest available revision is ${m.oldest}`,
  ),
  REVISION_IN_FUTURE: entry<{ revision: string; newest: string }>(
    'OUT_OF_RANGE',
    (m) => `Revision ${m.revision} is newer than the store, which is at revision ${m.newest}`,
  ),
  STORE_CHANGED: entry<None>(
    'FAILED_PRECONDITION',
    () => 'The store has been replaced since this watch began; start again without resume_token',
  ),
  SLOW_CONSUMER: entry<{ seconds: string }>(
    'RESOURCE_EXHAUSTED',
    (m) => `Nothing was read from this stream for ${m.seconds} s; reconnect with its last resume token`,
    1_000,
  ),
  TOO_MANY_WATCHES: entry<{ watches: string; scope?: 'token' }>(
    'RESOURCE_EXHAUSTED',
    (m) =>
      m.scope
        ? `The token or certificate of this caller already has ${m.watches} open streams, the most for one on a replica; end some, or connect to another replica`
        : `The server already has ${m.watches} watches; retry, or connect to another replica`,
    2_000,
  ),
  AGENT_INACTIVE: entry<{ agent: string }>(
    'FAILED_PRECONDITION',
    (m) => `Agent ${q(m.agent)} is inactive; set is_active to true to use it`,
  ),
  KEY_NOT_RESTORABLE: entry<{ id: string; provider: string; revision: string }>(
    'FAILED_PRECONDITION',
    (m) =>
      `Config ${m.id} had an API key for ${m.provider} at revision ${m.revision}, and no matching key is stored now; set api_key or without_key`,
  ),
  CONFIG_REVISION_NOT_FOUND: entry<{ id: string; revision: string }>(
    'NOT_FOUND',
    (m) => `The history has no config ${m.id} at revision ${m.revision}`,
  ),
  TOKEN_REQUIRED: entry<None>(
    'UNAUTHENTICATED',
    () =>
      'This service requires a token: send it as `authorization: Bearer ...`; the command line takes --token-file or AGENTLLM_TOKEN',
  ),
  TOKEN_UNKNOWN: entry<None>('UNAUTHENTICATED', () => 'The token was not issued by this service'),
  TOKEN_EXPIRED: entry<{ token: string; at: string }>(
    'UNAUTHENTICATED',
    (m) => `Token ${m.token} expired at ${m.at}; use another one`,
  ),
  TOKEN_REVOKED: entry<{ token: string }>('UNAUTHENTICATED', (m) => `Token ${m.token} was revoked; use another one`),
  CERTIFICATE_NOT_BOUND: entry<{ identity: string }>(
    'UNAUTHENTICATED',
    (m) => `The certificate ${m.identity} is not bound to a token; \`agentllm token create --certificate\` binds it`,
  ),
  PERMISSION_DENIED: entry<{ actor: string; role: string; permission: string; method: string }>(
    'PERMISSION_DENIED',
    (m) => `The role ${m.role} of ${m.actor} does not include ${m.permission}, which ${m.method} requires`,
  ),
  AGENT_NOT_ALLOWED: entry<{ actor: string }>(
    'PERMISSION_DENIED',
    (m) => `${m.actor} is restricted to certain agents, and the request names others`,
  ),
  TOKEN_NOT_FOUND: entry<{ token: string }>('NOT_FOUND', (m) => `No token has the id ${m.token}`),
  CERTIFICATE_BOUND: entry<{ identity: string; token: string }>(
    'ALREADY_EXISTS',
    (m) => `The certificate identity ${m.identity} is already bound to token ${m.token}; revoke that token first`,
  ),
  RATE_LIMITED: entry<{ actor: string; calls: string }>(
    'RESOURCE_EXHAUSTED',
    (m) => `${m.actor} exceeds the limit of ${m.calls}; retry later`,
    500,
  ),
  ENCRYPTION_KEY_MISSING: entry<{ count: string; keys: string }>(
    'FAILED_PRECONDITION',
    (m) =>
      `${m.count} stored API keys are encrypted with keys that this service does not have (key ${m.keys}); append those to ENCRYPTION_KEY, or set skip_unreadable`,
  ),
  MALFORMED_JSON: entry<{ problem: string }>('INVALID_ARGUMENT', (m) => `The request body ${m.problem}`),
  REQUEST_TOO_LARGE: entry<{ what: string; max_bytes: string }>(
    'RESOURCE_EXHAUSTED',
    (m) => `The ${m.what} has more than ${m.max_bytes} bytes; send less in one request`,
  ),
  METHOD_NOT_FOUND: entry<{ method: string }>('UNIMPLEMENTED', (m) => `The service has no method ${m.method}`),
  // The message omits the path, which may contain a secret that was sent to a wrong address.
  PATH_NOT_FOUND: entry<None>('NOT_FOUND', () => 'The path does not exist; /openapi.json lists all paths'),
  HTTP_METHOD_NOT_ALLOWED: entry<{ allowed: string }>('INVALID_ARGUMENT', (m) => `The path accepts only ${m.allowed}`),
  INVALID_HEADER: entry<{ header: string; problem: string }>(
    'INVALID_ARGUMENT',
    (m) => `The header ${m.header} ${m.problem}`,
  ),
  MALFORMED_HTTP: entry<{ problem: string }>('INVALID_ARGUMENT', (m) => `The ${m.problem}`),
  UNSUPPORTED_BODY: entry<None>(
    'INVALID_ARGUMENT',
    () => 'The body must be uncompressed JSON; send content-type: application/json',
  ),
  HOST_NOT_ALLOWED: entry<{ address: string }>(
    'INVALID_ARGUMENT',
    (m) => `The Host header must name ${m.address} or localhost`,
  ),
  ORIGIN_NOT_ALLOWED: entry<None>('PERMISSION_DENIED', () => 'Requests from web pages of other origins are refused'),
  RESPONSE_TOO_LARGE: entry<None>('RESOURCE_EXHAUSTED', () => 'The response is too large; request fewer agents'),
  RESPONSES_NOT_READ: entry<None>(
    'RESOURCE_EXHAUSTED',
    () => 'The client does not read the responses on this connection; read them, then retry',
    1_000,
  ),
  ROLLBACK_CONFLICT: entry<{ revision: string; conflicts: string }>(
    'FAILED_PRECONDITION',
    (m) => `Revision ${m.revision} cannot be rolled back: ${m.conflicts}`,
  ),
  PRICE_EXISTS: entry<{ model: string; at: string }>(
    'ALREADY_EXISTS',
    (m) => `Model ${q(m.model)} already has a price that is valid from ${m.at}; choose another time`,
  ),
  USAGE_COMPACTED: entry<{ oldest: string }>(
    'OUT_OF_RANGE',
    (m) => `The attempts before ${m.oldest} are no longer retained; choose times on the hour of UTC, or a later range`,
  ),
  BUDGET_NOT_FOUND: entry<{ budget: string; suggestion?: string }>(
    'NOT_FOUND',
    (m) => `No budget has the name ${q(m.budget)}${didYouMean(m.suggestion)}`,
  ),
  BUDGET_NAME_TAKEN: entry<{ budget: string }>(
    'ALREADY_EXISTS',
    (m) => `A budget with the name ${q(m.budget)} already exists`,
  ),
  RESERVATION_NOT_FOUND: entry<{ reservation: string }>(
    'NOT_FOUND',
    (m) => `The agent has no reservation ${m.reservation}`,
  ),
  RESERVATION_ENDED: entry<{ reservation: string }>(
    'FAILED_PRECONDITION',
    (m) => `Reservation ${m.reservation} has ended; reserve again with a new id`,
  ),
  TOO_MANY_RESERVATIONS: entry<{ agent: string; reservations: string }>(
    'RESOURCE_EXHAUSTED',
    (m) => `Agent ${q(m.agent)} already has ${m.reservations} open reservations; commit or release some of them`,
    1000,
  ),
  EXPERIMENT_NOT_FOUND: entry<{ agent: string; experiment: string; suggestion?: string }>(
    'NOT_FOUND',
    (m) => `Agent ${q(m.agent)} has no experiment ${q(m.experiment)}${didYouMean(m.suggestion)}`,
  ),
  EXPERIMENT_NAME_TAKEN: entry<{ agent: string; experiment: string }>(
    'ALREADY_EXISTS',
    (m) => `Agent ${q(m.agent)} already has an experiment ${q(m.experiment)}`,
  ),
  EXPERIMENT_STATE: entry<{ experiment: string; state: string; rule: string }>(
    'FAILED_PRECONDITION',
    (m) => `Experiment ${q(m.experiment)} is ${m.state}; ${m.rule}`,
  ),
  EXPERIMENT_ACTIVE: entry<{ agent: string; experiment: string; state: string }>(
    'FAILED_PRECONDITION',
    (m) => `Agent ${q(m.agent)} already has the experiment ${q(m.experiment)}, which is ${m.state}; conclude it first`,
  ),
  TOO_MANY_EXPERIMENTS: entry<{ agent: string; experiments: string }>(
    'FAILED_PRECONDITION',
    (m) => `Agent ${q(m.agent)} already has ${m.experiments} experiments; delete some of them first`,
  ),
  CONFIG_IN_EXPERIMENT: entry<{ id: string; experiment: string; state: string }>(
    'FAILED_PRECONDITION',
    (m) => `Config ${m.id} is used by the experiment ${q(m.experiment)}, which is ${m.state}; conclude it first`,
  ),
  INTERNAL: entry<{ call: string }>(
    'INTERNAL',
    (m) => `Internal error; the log of the service has the details under call ${m.call}`,
  ),
} satisfies { [R in Reason]: Entry<never> };
