const MAX_INT32 = 2 ** 31 - 1;

/**
 * Every limit that a caller can reach. The proto comments and docs/limits.md state the same numbers;
 * test/contract.test.ts compares them.
 */
export const limits = {
  /** Largest `int32`: of a field, of an id, and of an integer column. */
  maxInt32: MAX_INT32,
  /** Longest delay of a timer of Node, in ms (24.8 days): a timer with a longer one ends after 1 ms. */
  maxTimerMs: MAX_INT32,
  /** Rows of a page if the request sets no page_size. */
  defaultPageSize: 100,
  /** Maximum rows of a page; a larger page_size is reduced to it (AIP-158). */
  maxPageSize: 1000,
  /** Bytes of the rows of one page. A page ends before the row that would exceed them, but has at least one row. */
  pageBytes: 1024 * 1024,
  /**
   * Bytes of rows that one list reads from the database, in whole rows, and one page of the change log, in whole
   * revisions.
   */
  readBytes: 4 * 1024 * 1024,
  /** Bytes of one response; gRPC clients in other languages accept no more by default. */
  maxResponseBytes: 4 * 1024 * 1024,
  /** Maximum number of agents, configs, budgets and experiments that one RollbackRevision changes. */
  maxRollbackChanges: 5000,
  /** Bytes of the field changes in its response; further changes are omitted. */
  rollbackChangesBytes: 1_048_576,
  /** Findings in the response of a write to many configs. */
  maxFindings: 100,
  /** Maximum number of names that are searched for a suggestion; the search blocks the event loop. */
  maxSuggestionNames: 1000,
  /**
   * Characters (code points) of the text columns of the original Python system, whose database schema agentllm imports.
   */
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
  /** Characters of an API key: its ciphertext, which includes its binding, has at most 500 characters. */
  apiKey: 286,
  /** Bytes and nesting depth of a JSON text. */
  jsonBytes: 16_384,
  jsonDepth: 32,
  /** Sampling parameters. */
  temperature: { min: 0, max: 2 },
  topP: { min: 0, max: 1 },
  /** USD per 1 000 model tokens. */
  costPer1k: { min: 0, max: 1_000_000 },
  /** Micro-USD per million model tokens. */
  rate: { min: 0, max: 1_000_000_000_000 },
  priority: { min: -1_000_000, max: 1_000_000 },
  reasoningEffort: 20,
  thinkingBudgetTokens: { min: 0, max: 1_000_000 },
  stopSequence: 256,
  requestTimeoutMs: { min: 1, max: 3_600_000 },
  /** How long the response of a write is stored for its idempotency key (`request_id`). */
  requestIdHours: 24,
  /** Maximum duration of a call if the caller sets no deadline, or a later one. */
  maxCallMs: 30_000,
  /** Provider checks per minute: by ValidateApiKey, and by CheckConfigHealth. */
  keyValidationsPerMinute: 60,
  configChecksPerMinute: 600,
  /** Period that ListRetiringModels covers, in days, and its default. */
  retiringDays: { min: 1, max: 3650 },
  defaultRetiringDays: 90,
  /** Bytes of one request. */
  maxRequestBytes: 4 * 1024 * 1024,
  /**
   * Fields of one request, including nested fields and elements of repeated fields; over HTTP, keys and values of the
   * body. A request within this limit is decoded and checked in a few milliseconds, whatever it contains.
   */
  maxRequestFields: 20_000,
  /** Nesting depth of the JSON of a request body. */
  maxBodyDepth: 32,
  /** Problems of one request that its error lists, as far as they fit into the status; the rest are counted. */
  listedProblems: 50,
  /** ResourceInfos of one error. */
  namedResources: 5,
  /** Maximum time for a request to arrive. */
  requestReceiveMs: 30_000,
  /**
   * Bytes of requests in memory: of one request, of the unfinished requests of one connection, of all unfinished
   * requests, and of complete requests without a response. The limit of one request is larger than
   * `maxRequestBytes`, the limit of its message, because it includes the frames.
   */
  requests: {
    request: 4 * 1024 * 1024 + 65_536,
    connection: 8 * 1024 * 1024,
    unfinished: 16 * 1024 * 1024,
    inProgress: 64 * 1024 * 1024,
  },
  /** The same for health checks and reflection, which need no token. */
  openRequests: {
    request: 65_536,
    connection: 1024 * 1024,
    unfinished: 4 * 1024 * 1024,
    inProgress: 4 * 1024 * 1024,
  },
  /** Bytes of the headers of an HTTP request. */
  maxHttpHeaderBytes: 16 * 1024,
  /** Open connections of one port; further connections are closed immediately. */
  maxConnections: 20_000,
  /** Maximum duration of a TLS handshake. */
  tlsHandshakeMs: 10_000,
  /** Streams of one connection. */
  maxStreamsPerConnection: 1000,
  /** Bytes of responses that a client has not read: on one connection, and on all connections of a server. */
  unreadBytesPerConnection: 16 * 1024 * 1024,
  unreadBytes: 128 * 1024 * 1024,
  /** The limit of one connection while all connections together exceed `unreadBytes`. */
  unreadBytesPressed: 1024 * 1024,
  /** Maximum time for a client to read one response. */
  unreadMs: 60_000,
  /** Pipelined requests that wait on one HTTP connection for an earlier response. */
  pipelinedRequests: 100,
  /** Concurrent calls of one server. */
  maxConcurrentCalls: 2000,
  /** Writes that are committed in one batch, and their changes. */
  batchWrites: 64,
  batchChanges: 2000,
  /** Bytes of an error status, including its details. */
  maxStatusBytes: 4096,
  /** Maximum wait for the lock of the revision counter, and maximum duration of one statement of PostgreSQL. */
  lockTimeoutMs: 5_000,
  statementTimeoutMs: 7_000,
  /** Maximum wait for PostgreSQL to start up, when the service or a command starts. */
  databaseStartMs: 30_000,
  /** Maximum silence of a database connection; after it the connection counts as lost. */
  silenceMs: 9_000,
  idleInTransactionTimeoutMs: 10_000,
  // Watches
  /** Concurrent WatchConfigs streams of one server. */
  maxWatches: 10_000,
  clientName: 100,
  clientVersion: 50,
  /** Interval of the bookmarks of an idle watch, in ms; the contract promises 15 s. */
  bookmarkMs: 10_000,
  bookmarkPromiseMs: 15_000,
  /** Maximum time that a client of a watch may leave pending messages unread. */
  slowConsumerMs: 60_000,
  /** Bytes of one message of a watch, in whole agents. */
  watchMessageBytes: 64 * 1024,
  /** Revisions, and their changes, that are kept in memory for watches that lag; the same changes of the log's pages. */
  ringRevisions: 2048,
  ringChanges: 20_000,
  /** A watcher that has not applied a sent revision for this time counts as stale. */
  staleWatcherMs: 10_000,
  /** Watchers that the response of a write with `wait_for_adoption` names. */
  namedWatchers: 100,
  adoptionSeconds: 60,
  /** Concurrent writes of one server that wait for adoption; they count as concurrent calls, which have a limit. */
  adoptionWaits: 500,
  // Access
  /** Calls of one token or certificate per second on one server, and the burst after a pause. */
  callsPerSecond: 1000,
  callBurst: 2000,
  /**
   * Concurrent calls and streams of one token on one server: half of the total, so that one token cannot use up the
   * server.
   */
  callsPerToken: 1000,
  streamsPerToken: 5000,
  /** Leases of the keys of one agent by one token: per minute, and as a burst. */
  leasesPerMinute: 60,
  leaseBurst: 600,
  /**
   * Refused calls that one server records in the audit per minute. Anonymous callers have a separate limit, so that
   * they cannot use up that of known callers.
   */
  refusalsPerMinute: { known: 100, anonymous: 20 },
  tokenName: 100,
  certificateIdentity: 300,
  /** Lifetime of a token, in s. */
  tokenLifetime: { min: 60, max: 3650 * 86_400 },
  /** Interval at which the last use of a token is written to its row, in ms. */
  tokenUseMs: 60_000,
  /** Lifetime of a lease of an API key, in s. */
  leaseLifetime: { min: 1, max: 3600 },
  defaultLeaseLifetime: 600,
  /** Rows that one write of a key rotation re-encrypts, and unreadable rows that GetEncryptionStatus names. */
  rotationBatch: 100,
  namedUnreadable: 100,
  // Audit
  actor: 100,
  /** Maximum time that the response of an audited call waits for its audit event. */
  auditWaitMs: 1_000,
  // Provider checks
  /** Maximum duration of one check of a key and its models at a provider, all requests together. */
  providerCheckMs: 10_000,
  /** Concurrent requests to providers, over all calls; further requests wait in order. */
  concurrentProviderRequests: 16,
  /** Bytes that are read of one response of a provider; the longest real lists are well below this limit. */
  providerResponseBytes: 2 * 1024 * 1024,
  /** Pages that are read of a provider's model list. */
  providerListPages: 10,
  /** Maximum wait for one of several addresses of a provider before the next is tried. */
  providerConnectAttemptMs: 1_000,
  /** Characters of a message about a provider. */
  providerMessage: 300,
  // Receipts
  /** Characters of a text in a receipt that comes from a provider, and bytes of the usage as the provider sent it. */
  receiptText: 200,
  usageJsonBytes: 4096,
  // Calls of models in the client
  /** Duration of a call of a model with all its attempts, in ms, and its default. */
  modelCallMs: { min: 1, max: 3_600_000 },
  defaultModelCallMs: 300_000,
  /** Attempts of one call, and their default. */
  modelCallAttempts: { min: 1, max: 100 },
  defaultModelCallAttempts: 10,
  /** Characters of the id of a run. */
  runId: 100,
  // The spool of usage in the client
  /** Attempts in memory, bytes on disk, and the wait of close() in ms, each with its default. */
  spoolRecords: { min: 1000, max: 1_000_000 },
  defaultSpoolRecords: 10_000,
  spoolBytes: { min: 1024 * 1024, max: 4 * 1024 ** 3 },
  defaultSpoolBytes: 64 * 1024 * 1024,
  spoolCloseMs: { min: 0, max: 60_000 },
  defaultSpoolCloseMs: 2_000,
  /** Attempts of one segment of the spool, and bytes after which it ends. */
  segmentRecords: 1000,
  segmentBytes: 1024 * 1024,
  // Prices
  /** Input tokens from which a context tier applies, and the minutes of a day of a time window. */
  tierTokens: { min: 1, max: 100_000_000 },
  windowStart: { min: 0, max: 1439 },
  windowEnd: { min: 1, max: 1440 },
  /** Days of the week as in ISO 8601: Monday is 1. */
  weekday: { min: 1, max: 7 },
  /** Bytes of an imported catalogue; the published files have about half as many. */
  importBytes: 3 * 1024 * 1024,
  importSource: 150,
  /** JSON values, and models of known providers, in a catalogue; the published files have about a third as many. */
  importValues: 500_000,
  importEntries: 5_000,
  driftPercent: { min: 0, max: 1000 },
  /** Proposals and unreadable entries in the response of an import. */
  importProposals: 1000,
  importSkipped: 50,
  /** Prices of a model that become valid later, on the watch. */
  watchedNextPrices: 10,
  // Usage
  /** Model tokens of one kind in one attempt; the largest context windows have a tenth of this number. */
  attemptTokens: { min: 0, max: 100_000_000 },
  /** Nano-USD of one attempt: a million USD. A higher cost is treated as unknown, because the price must be wrong. */
  attemptCost: 1_000_000_000_000_000n,
  experimentName: 100,
  subject: 255,
  timeZone: 64,
  /** How far the start of an attempt may be in the future, because the clocks of reporters differ. */
  usageSkewMs: 300_000,
  /** Batches of one stream of StreamUsage that are received and not acknowledged. */
  usageBatchesInFlight: 4,
  /** Days of the range of a report. */
  usageRangeDays: 3660,
  /** Models in the response of WhatIf, and attempts that one RepriceUsage adjusts. */
  whatIfModels: 1000,
  repricedAttempts: 100_000,
  cacheHitPercent: { min: 0, max: 100 },
  // Budgets
  budgetName: 100,
  rollingHours: { min: 1, max: 744 },
  /** Nano-USD of a limit, up to a billion USD. */
  budgetLimit: { min: 1n, max: 1_000_000_000_000_000_000n },
  warnPercent: { min: 1, max: 100 },
  defaultWarnPercent: 80,
  periodsAgo: { min: 0, max: 1000 },
  /** Tokens and attempts of a reservation, its lifetime in s, and the defaults. */
  reservedOutputTokens: { min: 1, max: 100_000_000 },
  defaultReservedOutputTokens: 16_384,
  reservedAttempts: { min: 1, max: 1000 },
  reservationLifetime: { min: 10, max: 3600 },
  defaultReservationLifetime: 300,
  reservationsPerAgent: 1000,
  /** Interval at which changed amounts of budgets are sent on a watch. */
  budgetStateMs: 10_000,
  // Experiments
  experimentsPerAgent: 100,
  hypothesis: 1000,
  subjectKind: 50,
  variantName: 100,
  variants: { min: 2, max: 10 },
  /** The number of buckets, which equals the sum of all weights: one basis point is one bucket. */
  buckets: 10_000,
  weight: { min: 0, max: 10_000 },
  alphaBasisPoints: { min: 1, max: 5000 },
  defaultAlphaBasisPoints: 500,
  smallestEffectBasisPoints: { min: 1, max: 100_000 },
  defaultSmallestEffectBasisPoints: 500,
  relativeMarginBasisPoints: { min: 0, max: 1_000_000 },
  absoluteMargin: { min: 0, max: 1e15 },
  /** Names of outcomes of one experiment, also with those of later metrics; characters of a name; values, decimal places. */
  outcomeNames: { others: 20, all: 40 },
  outcomeName: 100,
  outcomeValue: { min: -1e12, max: 1e12 },
  outcomeDecimals: 9,
  /** Interval at which the service checks the guardrails of running experiments, in ms. */
  guardrailMs: 10_000,
  // Log
  /** Bytes of log lines that are buffered for standard error; further lines are dropped and counted. */
  logBufferBytes: 1024 * 1024,
  /** Maximum time that a stopped service waits until the last log lines are read. */
  logDrainMs: 1_000,
  // The fake provider, which tests use
  fakeProvider: {
    /** Bytes of one request body, as of Anthropic's API, and of all unfinished bodies. */
    bodyBytes: 32 * 1024 * 1024,
    openBodyBytes: 128 * 1024 * 1024,
    /** Open connections. */
    connections: 5_000,
    /** Requests in the request log, their bytes, and the bytes of one body in it. */
    loggedRequests: 1_000,
    logBytes: 32 * 1024 * 1024,
    loggedBodyBytes: 64 * 1024,
    /** Bytes of log lines that wait to be written to the log file; further lines are dropped and counted. */
    logFileBufferBytes: 8 * 1024 * 1024,
    /** Bytes of a script, and the rules, models and keys in it. */
    scriptBytes: 4 * 1024 * 1024,
    scriptEntries: 1_000,
    /** Characters of the fault in a header or in a model name. */
    faultText: 500,
    /** Clients whose attempts are counted for faults in headers and model names. */
    countedClients: 1_000,
    /** Responses that are stored for later requests that refer to them. */
    storedResponses: 1_000,
    /** Maximum time for a request to arrive, and for a response that is withheld. */
    requestMs: 60_000,
    holdMs: 600_000,
    /** Values and nesting of a value that is made for a JSON schema. */
    schemaValues: 1_000,
    schemaDepth: 32,
    /** Nesting of the JSON of a request. */
    bodyDepth: 100,
  },
} as const;
