const MAX_INT32 = 2 ** 31 - 1;

/**
 * Every number that a caller can hit, in one place. The proto comments and
 * docs/limits.md state the same numbers; test/contract.test.ts holds them together.
 */
export const limits = {
  /** Largest `int32`: of a field, of an id, and of an integer column. */
  maxInt32: MAX_INT32,
  /** Longest delay of a timer of Node, in ms (24.8 days): a timer with a longer one ends after 1 ms. */
  maxTimerMs: MAX_INT32,
  /** Rows of a list when the request does not say. */
  defaultPageSize: 100,
  /** Most rows of a list; larger requests are cut to it (AIP-158). */
  maxPageSize: 1000,
  /** Bytes of the rows of one page: it ends before the row that would exceed them, but has at least one row. */
  pageBytes: 1024 * 1024,
  /** Bytes of rows that one list reads from the database, as far as whole rows go into them. */
  readBytes: 4 * 1024 * 1024,
  /** Bytes of one response; other languages' clients accept no more by default. */
  maxResponseBytes: 4 * 1024 * 1024,
  /** Most agents and configurations that one RollbackRevision sets back. */
  maxRollbackChanges: 5000,
  /** Bytes of the field changes in its response; further ones are left out. */
  rollbackChangesBytes: 1_048_576,
  /** Findings in the response of a write to many configurations. */
  maxFindings: 100,
  /** Most names that are searched for the one that was meant: the search stops everything else meanwhile. */
  maxSuggestionNames: 1000,
  /** Characters (code points) of the document's columns. */
  provider: 50,
  modelName: 100,
  agentName: 255,
  agentType: 50,
  memoryName: 100,
  slotName: 50,
  version: 20,
  description: 1000,
  promptTemplate: 65_536,
  displayName: 100,
  baseUrl: 500,
  priceSource: 200,
  reason: 500,
  pageToken: 1000,
  credentialName: 100,
  /** Characters of an API key: what a token of 500 characters has room for beside its binding. */
  apiKey: 286,
  /** Bytes of a JSON text, and how deep it may nest. */
  jsonBytes: 16_384,
  jsonDepth: 32,
  /** Sampling. */
  temperature: { min: 0, max: 2 },
  topP: { min: 0, max: 1 },
  /** USD per 1 000 tokens. */
  costPer1k: { min: 0, max: 1_000_000 },
  /** Micro-USD per million tokens. */
  rate: { min: 0, max: 1_000_000_000_000 },
  priority: { min: -1_000_000, max: 1_000_000 },
  reasoningEffort: 20,
  thinkingBudgetTokens: { min: 0, max: 1_000_000 },
  stopSequence: 256,
  requestTimeoutMs: { min: 1, max: 3_600_000 },
  /** How long an answer is kept for its request id. */
  requestIdHours: 24,
  /** Longest that a call may take when the caller sets no deadline, or a later one. */
  maxCallMs: 30_000,
  /** Questions to providers in a minute: of ValidateApiKey, and of CheckConfigHealth. */
  keyValidationsPerMinute: 60,
  configChecksPerMinute: 600,
  /** How far ahead ListRetiringModels looks, and by default. */
  retiringDays: { min: 1, max: 3650 },
  defaultRetiringDays: 90,
  /** Bytes of one request. */
  maxRequestBytes: 4 * 1024 * 1024,
  /**
   * Fields of one request, nested fields and elements of repeated fields included; over HTTP the keys and values of the
   * body. A request within it is decoded and checked in a few milliseconds, whatever it contains.
   */
  maxRequestFields: 20_000,
  /** How deep the JSON of a request body may nest. */
  maxBodyDepth: 32,
  /** Problems of one request that its error lists, as far as they fit into the status; the others are counted. */
  listedProblems: 50,
  /** ResourceInfos of one error. */
  namedResources: 5,
  /** How long a request may take to arrive. */
  requestReceiveMs: 30_000,
  /**
   * Bytes of requests in memory: of one, of those of one connection and of all that are unfinished, and of complete ones
   * that are not answered yet. The request is bounded in its messages too, so its own bound leaves room for their frames.
   */
  requests: {
    request: 4 * 1024 * 1024 + 65_536,
    connection: 8 * 1024 * 1024,
    unfinished: 16 * 1024 * 1024,
    unanswered: 64 * 1024 * 1024,
  },
  /** The same of health checks and reflection, which need no token. */
  openRequests: {
    request: 65_536,
    connection: 1024 * 1024,
    unfinished: 4 * 1024 * 1024,
    unanswered: 4 * 1024 * 1024,
  },
  /** Bytes of the headers of an HTTP request. */
  maxHttpHeaderBytes: 16 * 1024,
  /** Connections that one port takes at once; further ones are closed at once. */
  maxConnections: 20_000,
  /** How long a client may take to agree on TLS. */
  tlsHandshakeMs: 10_000,
  /** Streams of one connection. */
  maxStreamsPerConnection: 1000,
  /** Bytes of responses that a client has not read: on one connection, and on all connections of a server. */
  unreadBytesPerConnection: 16 * 1024 * 1024,
  unreadBytes: 128 * 1024 * 1024,
  /** The same on one connection while all connections together have more than that. */
  unreadBytesPressed: 1024 * 1024,
  /** How long a client may take to read one response. */
  unreadMs: 60_000,
  /** Requests that wait on one HTTP connection for the response before them. */
  pipelinedRequests: 100,
  /** Calls that one server handles at once. */
  maxConcurrentCalls: 2000,
  /** Writes that are committed together when many come at once, and their changes. */
  batchWrites: 64,
  batchChanges: 2000,
  /** Bytes of a whole error status, details included. */
  maxStatusBytes: 4096,
  /** Longest wait at the counter row for the writes of other replicas, and for one statement of PostgreSQL. */
  lockTimeoutMs: 5_000,
  statementTimeoutMs: 7_000,
  /** Longest wait for a PostgreSQL that starts up, when the service or a command starts. */
  databaseStartMs: 30_000,
  /** Longest that a database connection may say nothing: beyond it the other end is taken for dead. */
  silenceMs: 9_000,
  idleInTransactionTimeoutMs: 10_000,
  // Watches
  /** Streams of WatchConfigs that one server has at once. */
  maxWatches: 10_000,
  clientName: 100,
  clientVersion: 50,
  /** A watch with nothing to say says so this often, in ms; the contract promises 15 s. */
  bookmarkMs: 10_000,
  bookmarkPromiseMs: 15_000,
  /** How long a watch may read nothing although there is something for it. */
  slowConsumerMs: 60_000,
  /** Bytes of one message of a watch, as far as whole agents go into it. */
  watchMessageBytes: 64 * 1024,
  /** Revisions that are kept in memory for watchers that are behind, and what they touched. */
  ringRevisions: 2048,
  ringChanges: 20_000,
  /** After how long a watcher that has not applied what it was sent counts as stale. */
  staleWatcherMs: 10_000,
  /** Watchers that are named in the answer of a write that waits for them. */
  namedWatchers: 100,
  adoptionSeconds: 60,
  /** Writes that wait for watchers at once on one server; they are calls, and the others need room too. */
  adoptionWaits: 500,
  // Access
  /** Calls of one token or certificate in a second on one server, and at once after a pause. */
  callsPerSecond: 1000,
  callsAtOnce: 2000,
  /** Calls and streams of one token that a server handles at once: half of all, so that it cannot keep the others out. */
  callsPerToken: 1000,
  streamsPerToken: 5000,
  /** Leases of the keys of one agent by one token: in a minute, and at once. */
  leasesPerMinute: 60,
  leasesAtOnce: 600,
  /** Refusals of which the audit is told in a minute, of one server: of equal ones the first. Strangers do not use up the others'. */
  refusalsPerMinute: { known: 100, anonymous: 20 },
  tokenName: 100,
  certificateIdentity: 300,
  /** How long a token lives, in s. */
  tokenLifetime: { min: 60, max: 3650 * 86_400 },
  /** How often the use of a token is entered in its row, in ms. */
  tokenUseMs: 60_000,
  /** Leases of API keys, in s. */
  leaseLifetime: { min: 1, max: 3600 },
  defaultLeaseLifetime: 600,
  /** Rows whose stored keys are encrypted anew in one write, and of which GetEncryptionStatus names some. */
  rotatedAtOnce: 100,
  namedUnreadable: 100,
  // Audit
  actor: 100,
  /** Longest that the answer of an audited call waits for its entry in the audit. */
  auditWaitMs: 1_000,
  // Provider checks
  /** Longest that a provider is asked about a key and its models, all requests together. */
  providerCheckMs: 10_000,
  /** Requests to providers at once, of all calls together; further ones wait, first come, first served. */
  providerRequestsAtOnce: 16,
  /** Bytes that are read of one answer of a provider; the longest real lists are well below it. */
  providerAnswerBytes: 2 * 1024 * 1024,
  /** Pages that are read of a provider's model list. */
  providerListPages: 10,
  /** Longest wait for one of several addresses of a provider before the next is tried. */
  providerConnectAttemptMs: 1_000,
  /** Characters of a message about a provider. */
  providerMessage: 300,
  // Log
  /** Bytes of log lines that wait for a reader of standard error; further lines are dropped and counted. */
  logBufferBytes: 1024 * 1024,
  /** Longest that a service that has stopped waits for the last log lines to be read. */
  logDrainMs: 1_000,
} as const;

/**
 * The most elements of every repeated field that a request can have, by its full name. The service does not start when a
 * request has a repeated field that is missing here.
 */
export const maxElements = {
  'agentllm.v1.AcknowledgeRevisionRequest.acknowledgements': 1000,
  'agentllm.v1.BatchGetPrimaryConfigsRequest.agents': 1000,
  'agentllm.v1.BatchResolveConfigsRequest.agents': 200,
  'agentllm.v1.BatchResolveConfigsRequest.provider_down': 100,
  'agentllm.v1.BulkAssignConfigRequest.agents': 1000,
  'agentllm.v1.CreateTokenRequest.agents': 1000,
  'agentllm.v1.ExtraParams.stop_sequences': 16,
  'agentllm.v1.ListAuditEventsRequest.kinds': 100,
  'agentllm.v1.ListConfigHealthRequest.statuses': 100,
  'agentllm.v1.ListConfigRevisionsRequest.kinds': 100,
  'agentllm.v1.Model.parameter_rules': 20,
  'agentllm.v1.ParameterRule.accepted_with_reasoning_effort': 50,
  'agentllm.v1.ParameterRule.allowed_values': 50,
  'agentllm.v1.ParameterRule.not_with': 20,
  'agentllm.v1.Provider.aliases': 20,
  'agentllm.v1.Provider.api_key_env_vars': 5,
  'agentllm.v1.Provider.parameter_rules': 20,
  'agentllm.v1.ReorderConfigsRequest.config_ids': 10_000,
  'agentllm.v1.ResolveConfigRequest.provider_down': 100,
  'agentllm.v1.WatchConfigsRequest.agents': 1000,
  'google.protobuf.FieldMask.paths': 100,
} as const satisfies Readonly<Record<string, number>>;
