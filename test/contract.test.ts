import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  type DescField,
  type DescMessage,
  type DescMethod,
  fromBinary,
  getOption,
  isMessage,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { describe, expect, it } from 'vitest';
import { ErrorReason } from '../gen/ts/agentllm/v1/error_reason.js';
import { readContract } from '../src/api/dispatch/contract.js';
import { maxElementsOf } from '../src/api/dispatch/request_shape.js';
import { agentFields } from '../src/domain/agent.js';
import { modelFields, newModelFields, newProviderFields } from '../src/domain/catalogue.js';
import { checkConfig, configFields, newConfig, patchConfig } from '../src/domain/config.js';
import { PARAMETERS } from '../src/domain/parameters.js';
import type { FieldSpecs } from '../src/domain/patch.js';
import { State } from '../src/domain/state.js';
import { catalogue } from '../src/error_catalogue.js';
import { type Reason, ServiceError } from '../src/errors.js';
import { limits } from '../src/limits.js';
import { maxElements } from '../src/max_elements.js';
import { packageFile } from '../src/package.js';
import { invalidFields } from '../src/problems.js';
import { configPatch } from './domain/support.js';
import { comments } from './support/proto_comments.js';

const contract = readContract();
const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb'))),
);
const files = [...registry.files].filter((file) => file.proto.package === 'agentllm.v1');
const services = files.flatMap((file) => file.services);
const methods = services.flatMap((service) => service.methods);
const messages = files.flatMap((file) => file.messages);
const named = <T extends { name: string }>(items: readonly T[]) => items.map((item) => [item.name, item] as const);

describe('every method', () => {
  it('is in the descriptor', () => {
    expect(services.map(({ name }) => name).sort()).toEqual([
      'AccessService',
      'AgentLLMConfigService',
      'AgentLLMConfigWatchService',
      'AgentService',
      'AuditService',
      'BudgetService',
      'CredentialService',
      'ExperimentService',
      'ProviderService',
      'UsageService',
    ]);
    expect(methods.length).toBeGreaterThanOrEqual(26);
  });

  it.each(named(methods))('%s declares a write permission when its request has a request_id', (_, method) => {
    const permission = contract.rule(`/${method.parent.typeName}/${method.name}`).permission;
    const writes = method.input.fields.some((field) => field.name === 'request_id');
    const reads = /_READ$|_RESOLVE$|_CHECK$|_WATCH$|_LEASE$|_ROTATE$|_RECORD$|_RESERVE$|USAGE_WRITE$/;
    expect(permission).toMatch(writes ? /_WRITE$/ : reads);
  });

  it.each(named(methods))('%s has a request and a response message that no other method uses', (name, method) => {
    expect([method.input.name, method.output.name]).toEqual([`${name}Request`, `${name}Response`]);
    const users = methods.filter((other) => other.input === method.input || other.output === method.output);
    expect(users).toHaveLength(1);
  });

  it.each(named(methods).filter(([, { methodKind }]) => methodKind === 'unary'))(
    '%s has HTTP routes whose variables are fields of its request',
    (_, method) => {
      const routes = routesOf(method);
      expect(routes.length).toBeGreaterThan(0);
      for (const { verb, path, body } of routes) {
        expect(path).toMatch(/^\/v1\/[a-z]/);
        expect(body).toBe(verb === 'get' || verb === 'delete' ? '' : '*');
        for (const [, variable = ''] of path.matchAll(/\{([^}=]+)(?:=[^}]*)?\}/g))
          expect(fieldAt(method.input, variable), `${path}: ${variable}`).toBe(true);
      }
    },
  );

  it('has HTTP routes that no other method has', () => {
    const unary = methods.filter(({ methodKind }) => methodKind === 'unary');
    const routes = unary.flatMap(routesOf).map(({ verb, path }) => `${verb} ${path.replace(/\{[^}]*\}/g, '{}')}`);
    expect(routes.filter((route, at) => routes.indexOf(route) !== at)).toEqual([]);
  });
});

interface Route {
  readonly verb: string;
  readonly path: string;
  readonly body: string;
}

function routesOf(method: DescMethod): Route[] {
  const option = registry.getExtension('google.api.http');
  const rule = registry.getMessage('google.api.HttpRule');
  if (!option || !rule) throw new Error('gen/descriptor.binpb has no google.api.http');
  const value: unknown = getOption(method, option);
  if (!isMessage(value, rule)) throw new Error(`${method.name} has no google.api.http`);
  const routeOf = (one: ReturnType<typeof reflect>): Route => {
    const pattern = rule.fields.find((f) => f.oneof?.name === 'pattern' && one.isSet(f));
    const body = rule.fields.find((f) => f.name === 'body');
    if (!pattern || !body) throw new Error(`${method.name} has a route without a path`);
    return { verb: pattern.name, path: String(one.get(pattern)), body: String(one.get(body)) };
  };
  const first = reflect(rule, value);
  const more = rule.fields.find((f) => f.name === 'additional_bindings');
  const others = more?.fieldKind === 'list' ? [...first.get(more)] : [];
  return [first, ...(others as ReturnType<typeof reflect>[])].map(routeOf);
}

function fieldAt(message: DescMessage, path: string): boolean {
  const [first, ...rest] = path.split('.');
  const field = message.fields.find((one) => one.name === first);
  if (rest.length === 0) return field?.fieldKind === 'scalar';
  return field?.fieldKind === 'message' && fieldAt(field.message, rest.join('.'));
}

const WITHOUT_REVISION: readonly string[] = [
  'AcknowledgeRevisionRequest',
  'CommitRequest',
  'RecordOutcomeRequest',
  'RecordUsageRequest',
  'ReleaseRequest',
  'RenewRequest',
  'ReserveRequest',
  'RotateEncryptionKeyRequest',
  'StreamUsageRequest',
];

describe('every request', () => {
  const requests = messages.filter(({ name }) => name.endsWith('Request'));
  const numbers = (message: DescMessage) => new Map(message.fields.map((field) => [field.name, field.number]));

  it.each(named(requests))(
    '%s has either all fields of a write or those of a read, with the standard numbers',
    (_, request) => {
      const fields = numbers(request);
      const write = ['request_id', 'validate_only', 'reason', 'wait_for_adoption'];
      const fieldNumbers = [...write, 'min_revision'].map((name) => fields.get(name));
      const isWrite = fields.has('request_id');
      // These methods change no configuration: they neither write a revision nor wait for one.
      if (WITHOUT_REVISION.includes(request.name)) return expect(fieldNumbers).toEqual(new Array(5).fill(undefined));
      if (request.name === 'RepriceUsageRequest')
        return expect(fieldNumbers).toEqual([undefined, 11, 12, undefined, undefined]);
      expect(fieldNumbers).toEqual(
        isWrite ? [10, 11, 12, 13, undefined] : [undefined, undefined, undefined, undefined, 10],
      );
    },
  );

  it.each(named(requests))('%s has page fields with the standard numbers, and so has its response', (_, request) => {
    const fields = numbers(request);
    const paged = fields.has('page_size') || fields.has('page_token');
    expect([fields.get('page_size'), fields.get('page_token')]).toEqual(paged ? [20, 21] : [undefined, undefined]);
    const response = messages.find(({ name }) => name === request.name.replace(/Request$/, 'Response'));
    expect(response && numbers(response).get('revision')).toBe(2);
    expect(response && numbers(response).get('adoption')).toBe(fields.has('wait_for_adoption') ? 13 : undefined);
    expect(response && numbers(response).get('next_page_token')).toBe(paged ? 20 : undefined);
  });

  it('can contain an API key, and no response can', () => {
    const reachable = new Set<DescMessage>();
    const visit = (message: DescMessage): void => {
      if (reachable.has(message)) return;
      reachable.add(message);
      for (const field of message.fields) if (field.message) visit(field.message);
    };
    for (const { output } of methods) visit(output);
    const secrets = [...reachable].flatMap(({ name, fields }) =>
      fields.filter((field) => /key|secret|cipher|password/.test(field.name)).map((field) => `${name}.${field.name}`),
    );
    expect(secrets.sort()).toEqual([
      'AgentLLMConfig.api_key_state',
      'AgentLLMConfig.has_api_key_override',
      'ApiKeyLease.ciphertext',
      'ApiKeyLease.encapsulated_key',
      'ApiKeyLease.key_revision',
      'ApiKeyLease.key_source',
      'Attempt.key_source',
      'Credential.api_key_state',
      'GetEncryptionStatusResponse.keys',
      'HopCheck.key_name',
      'HopCheck.key_source',
      'Provider.api_key_env_vars',
      'ResolvedHop.api_key_state',
      'ResolvedHop.key_name',
      'ResolvedHop.key_source',
      'RotateEncryptionKeyResponse.key_id',
      'WatchedCredential.api_key_state',
    ]);
  });
});

describe('every error reason', () => {
  const reasons = Object.keys(catalogue) as Reason[];
  const commentOf = (reason: Reason) => comments.get(`ERROR_REASON_${reason}`) ?? '';
  /** The metadata with which the message equals the example in the proto comment. */
  const metadata: { [R in Reason]: Record<string, string> | undefined } = {
    INVALID_FIELDS: undefined,
    MALFORMED_REQUEST: { type: 'agentllm.v1.GetConfigRequest' },
    INVALID_PAGE_TOKEN: {},
    REQUEST_ID_REUSED: { request_id: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff' },
    AGENT_NOT_FOUND: { agent: 'name "markt_analyst"', suggestion: 'market_analyst' },
    CONFIG_NOT_FOUND: { id: '4711' },
    NO_ENABLED_CONFIG: { agent: 'trader', model: 'openai/gpt-4o-mini' },
    PROVIDER_NOT_FOUND: { provider: 'opnai', suggestion: 'openai' },
    MODEL_NOT_FOUND: { provider: 'openai', model: 'gpt-9' },
    AGENT_NAME_TAKEN: { agent: 'trader' },
    PROVIDER_NAME_TAKEN: { provider: 'openai', name: 'oai' },
    MODEL_NAME_TAKEN: { provider: 'openai', model: 'gpt-4' },
    STALE_ETAG: { resource: 'Config 7' },
    AGENT_RESERVED: { agent: 'trader' },
    AGENT_HAS_CONFIGS: { agent: 'scout', configs: '2' },
    PROVIDER_IN_USE: { provider: 'local', users: '3' },
    MODEL_IN_USE: { model: 'local/llama', users: '3' },
    BUILT_IN_PROVIDER: { provider: 'openai', what: 'base_url cannot be changed' },
    BUILT_IN_MODEL: { model: 'openai/gpt-4' },
    ENCRYPTION_NOT_CONFIGURED: { problem: 'is not set' },
    ENCRYPTION_KEY_WRONG: { ours: '0f3a9c27b5d1', theirs: '77b21e904ac8' },
    KEY_PROVIDER_MISMATCH: {
      key_provider: 'claude',
      provider: 'openai',
      remedy: 'set api_key or clear_api_key in the same request',
    },
    CREDENTIAL_NOT_FOUND: { credential: 'desk' },
    CREDENTIAL_NAME_TAKEN: { credential: 'desk' },
    CREDENTIAL_IN_USE: { credential: 'desk', users: '3' },
    REVISION_NOT_REACHED: { wanted: '90', reached: '88' },
    DATABASE_UNAVAILABLE: {},
    OUTCOME_UNKNOWN: {},
    WRITE_CONFLICT: {},
    SERVER_SHUTTING_DOWN: {},
    FEATURE_NOT_AVAILABLE: { feature: 'This grpc-encoding' },
    DEADLINE_EXCEEDED: {},
    CANCELLED: {},
    TOO_MANY_CALLS: { calls: '512' },
    TOO_MANY_REQUEST_BYTES: { what: 'unfinished requests', limit: '16777216' },
    TOO_MANY_CHECKS: { checks: '60' },
    RETRY_WITHOUT_REQUEST_ID: {},
    INVALID_RESUME_TOKEN: {},
    RESUME_TOKEN_FILTER_CHANGED: {},
    REVISION_COMPACTED: { revision: '90', oldest: '120' },
    REVISION_IN_FUTURE: { revision: '90', newest: '88' },
    STORE_CHANGED: {},
    SLOW_CONSUMER: { seconds: '60' },
    TOO_MANY_WATCHES: { watches: '10000' },
    AGENT_INACTIVE: { agent: 'trader' },
    KEY_NOT_RESTORABLE: { id: '7', provider: 'openai', revision: '90' },
    CONFIG_REVISION_NOT_FOUND: { id: '7', revision: '90' },
    TOKEN_REQUIRED: {},
    TOKEN_UNKNOWN: {},
    TOKEN_EXPIRED: { token: 'al_k3x9q2m7wd', at: '2026-03-01T00:00:00.000Z' },
    TOKEN_REVOKED: { token: 'al_k3x9q2m7wd' },
    CERTIFICATE_NOT_BOUND: { identity: 'spiffe://desk/trader' },
    PERMISSION_DENIED: {
      actor: 'token:al_k3x9q2m7wd',
      role: 'viewer',
      permission: 'PERMISSION_CONFIGS_WRITE',
      method: 'agentllm.v1.AgentLLMConfigService/CreateConfig',
    },
    AGENT_NOT_ALLOWED: { actor: 'token:al_k3x9q2m7wd' },
    TOKEN_NOT_FOUND: { token: 'al_k3x9q2m7wd' },
    CERTIFICATE_BOUND: { identity: 'spiffe://desk/trader', token: 'al_k3x9q2m7wd' },
    RATE_LIMITED: { actor: 'token:al_k3x9q2m7wd', calls: '1000 calls a second' },
    ENCRYPTION_KEY_MISSING: { count: '3', keys: '2f81c0d4e5a6' },
    MALFORMED_JSON: { problem: 'must be JSON' },
    REQUEST_TOO_LARGE: { what: 'request', max_bytes: String(limits.maxRequestBytes) },
    METHOD_NOT_FOUND: { method: 'agentllm.v1.AgentService/FindAgent' },
    PATH_NOT_FOUND: {},
    HTTP_METHOD_NOT_ALLOWED: { allowed: 'GET, HEAD, OPTIONS' },
    INVALID_HEADER: { header: 'grpc-timeout', problem: 'must be a time like 500m or 2S' },
    MALFORMED_HTTP: { problem: 'target of the request must be a path in ASCII, percent-encoded' },
    UNSUPPORTED_BODY: {},
    HOST_NOT_ALLOWED: { address: '127.0.0.1:8080' },
    ORIGIN_NOT_ALLOWED: {},
    RESPONSE_TOO_LARGE: {},
    RESPONSES_NOT_READ: {},
    ROLLBACK_CONFLICT: { revision: '12', conflicts: 'config 7 of "trader" was changed again at revision 15' },
    PRICE_EXISTS: { model: 'openai/gpt-4', at: '2026-12-01T00:00:00.000Z' },
    USAGE_COMPACTED: { oldest: '2026-09-01T00:00:00.000Z' },
    BUDGET_NOT_FOUND: { budget: 'desk' },
    BUDGET_NAME_TAKEN: { budget: 'desk' },
    RESERVATION_NOT_FOUND: { reservation: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff' },
    RESERVATION_ENDED: { reservation: '6f9619ff-8b86-4d01-b42d-00cf4fc964ff' },
    TOO_MANY_RESERVATIONS: { agent: 'trader', reservations: '1000' },
    EXPERIMENT_NOT_FOUND: { agent: 'trader', experiment: 'model' },
    EXPERIMENT_NAME_TAKEN: { agent: 'trader', experiment: 'model' },
    EXPERIMENT_STATE: { experiment: 'model', state: 'CONCLUDED', rule: 'only a DRAFT experiment can be started' },
    EXPERIMENT_ACTIVE: { agent: 'trader', experiment: 'model', state: 'RUNNING' },
    TOO_MANY_EXPERIMENTS: { agent: 'trader', experiments: '100' },
    CONFIG_IN_EXPERIMENT: { id: '7', experiment: 'model', state: 'RUNNING' },
    INTERNAL: { call: '5f0c' },
  };

  function errorOf(reason: Reason): ServiceError {
    if (reason !== 'INVALID_FIELDS') return ServiceError.of(reason, metadata[reason] as never);
    const patch = configPatch({ provider: 'openai', temperature: 3 });
    const state = new State();
    state.load('provider', { ...newProviderRow, name: 'openai' });
    const row = patchConfig(state, newConfig(1, 0), patch);
    const checked = checkConfig(state, row, patch, { at: 'config', allowUnknownModel: false });
    return invalidFields([...patch.violations, ...checked]);
  }

  it('is in both the proto file and the error catalogue', () => {
    const values = registry.getEnum('agentllm.v1.ErrorReason')?.values.map(({ name }) => name) ?? [];
    expect(reasons.map((reason) => `ERROR_REASON_${reason}`).sort()).toEqual(
      values.filter((name) => name !== 'ERROR_REASON_UNSPECIFIED').sort(),
    );
    for (const reason of reasons) expect(ErrorReason[reason]).toBe(`ERROR_REASON_${reason}`);
  });

  it.each(reasons)('%s has the status code with which its proto comment begins', (reason) => {
    expect(/^([A-Z_]+)[.,]/.exec(commentOf(reason))?.[1]).toBe(catalogue[reason].code);
  });

  it.each(reasons)('%s has the message of the example in its proto comment', (reason) => {
    const [example] = /"(?:[^"\\]|\\.)*"$/.exec(commentOf(reason)) ?? [];
    expect(example).toBeDefined();
    expect(errorOf(reason).message).toBe(JSON.parse(example as string));
  });

  it.each(reasons)('%s carries the details that its proto comment names', (reason) => {
    const comment = commentOf(reason);
    const error = errorOf(reason);
    expect(/with a RetryInfo/.test(comment)).toBe(error.retryAfterMs !== undefined);
    expect(/with a PreconditionFailure/.test(comment)).toBe(error.code === 'FAILED_PRECONDITION');
    expect(/BadRequest/.test(comment)).toBe(error.violations.length > 0);
  });
});

const newProviderRow = {
  id: 1,
  display_name: null,
  aliases: [],
  dialect: 'DIALECT_OPENAI',
  base_url: 'https://llm.example.com',
  api_key_env_vars: [],
  built_in: false,
  enabled: true,
  allow_unknown_models: true,
  parameter_rules: [],
  origin: 'operator',
  wire_api: 'WIRE_API_CHAT_COMPLETIONS',
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 1,
} as const;

describe('docs/limits.md', () => {
  const text = readFileSync(packageFile('docs/limits.md'), 'utf8');
  const spaced = (value: number) => String(value).replace(/\B(?=(\d{3})+$)/g, ' ');

  it.each(Object.entries(maxElements))('states the maximum of %s', (name, max) => {
    const field = name.split('.').at(-1) as string;
    const rows = text.split('\n').filter((row) => row.startsWith('|') && new RegExp(`\\b${field}\\b`).test(row));
    expect(rows.some((row) => new RegExp(`(?<!\\d )\\b${spaced(max)}\\b`).test(row))).toBe(true);
  });

  it('states the limits of a whole request and of an error', () => {
    for (const number of [limits.maxRequestFields, limits.listedProblems, limits.maxStatusBytes, limits.namedResources])
      expect(text).toMatch(new RegExp(`\\| ${spaced(number)}\\b`));
    const comment = readFileSync(packageFile('proto/agentllm/v1/error_reason.proto'), 'utf8');
    expect(comment).toContain(`A status has at most ${limits.maxStatusBytes} bytes`);
    expect(comment).toContain(`first ${limits.listedProblems} problems`);
    expect(comment).toMatch(new RegExp(`at most ${limits.namedResources} ResourceInfos`));
  });
});

describe('every repeated field of a request', () => {
  const found = new Map<string, { field: DescField; commentAt: string }>();
  const visit = (message: DescMessage, parents: readonly DescMessage[]): void => {
    for (const field of message.fields) {
      const name = `${message.typeName}.${field.name}`;
      // The comment of an update mask is at the request field that holds the mask.
      if (field.fieldKind === 'list' || field.fieldKind === 'map')
        found.set(name, { field, commentAt: `${message.name}.${field.name}` });
      if (field.message && !parents.includes(field.message)) visit(field.message, [...parents, message]);
    }
  };
  for (const { input } of methods) visit(input, []);

  it('has a maximum in maxElements, which contains nothing else', () => {
    expect([...found.keys()].sort()).toEqual(Object.keys(maxElements).sort());
  });

  it.each([...found].filter(([name]) => name.startsWith('agentllm.')))(
    '%s states its maximum in its proto comment',
    (_, { field, commentAt }) => {
      expect(comments.get(commentAt)).toMatch(new RegExp(`\\b([Aa]t most|1 to) ${maxElementsOf(field)}\\b`));
    },
  );

  it('google.protobuf.FieldMask.paths states its maximum in the comment of each update_mask', () => {
    const masks = [...comments].filter(([path]) => path.endsWith('Request.update_mask'));
    expect(masks).toHaveLength(10);
    for (const [path, comment] of masks)
      expect(comment, path).toContain(`At most ${maxElements['google.protobuf.FieldMask.paths']} paths`);
  });
});

describe('the numbers and names in the proto comments', () => {
  const between = ({ min, max }: { min: number; max: number }) => `${min} to ${max}`;
  const decimals = ({ min, max }: { min: number; max: number }) => `${min.toFixed(1)} to ${max.toFixed(1)}`;
  const atMost = (count: number, what = 'characters') => `at most ${count} ${what}`;
  const oneTo = (count: number, what = ' characters') => `1 to ${count}${what}`;

  /** The phrases that the comment of a field must contain, with the numbers of limits.ts. */
  const phrases: Readonly<Record<string, readonly string[]>> = {
    'AgentRef.id': [oneTo(limits.maxInt32, '')],
    'AgentRef.name': [oneTo(limits.agentName)],
    'Agent.id': [oneTo(limits.maxInt32, '')],
    'Agent.name': [oneTo(limits.agentName)],
    'Agent.agent_type': [oneTo(limits.agentType)],
    'Agent.role': [oneTo(limits.agentType)],
    'Agent.llm_model': [oneTo(limits.modelName)],
    'Agent.temperature': [decimals(limits.temperature)],
    'Agent.prompt_template': [atMost(limits.promptTemplate)],
    'Agent.capabilities_json': [atMost(limits.jsonBytes, 'bytes')],
    'Agent.required_tools_json': [atMost(limits.jsonBytes, 'bytes')],
    'Agent.memory_name': [atMost(limits.modelName)],
    'Agent.slot_name': [atMost(limits.agentType)],
    'Agent.config_json': [atMost(limits.jsonBytes, 'bytes')],
    'Agent.version': [atMost(limits.version)],
    'Agent.description': [atMost(limits.description)],
    'Agent.metadata_json': [atMost(limits.jsonBytes, 'bytes')],
    'ExtraParams.reasoning_effort': [oneTo(limits.reasoningEffort)],
    'ExtraParams.thinking_budget_tokens': [between(limits.thinkingBudgetTokens)],
    'ExtraParams.stop_sequences': [
      `at most ${maxElements['agentllm.v1.ExtraParams.stop_sequences']} of 1 to ${limits.stopSequence} characters each`,
    ],
    'ExtraParams.seed': [between({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER })],
    'ExtraParams.request_timeout_ms': [between(limits.requestTimeoutMs)],
    'AgentLLMConfig.id': [oneTo(limits.maxInt32, '')],
    'AgentLLMConfig.model_name': [oneTo(limits.modelName)],
    'AgentLLMConfig.temperature': [decimals(limits.temperature)],
    'AgentLLMConfig.top_p': [decimals(limits.topP)],
    'AgentLLMConfig.fallback_model': [oneTo(limits.modelName)],
    'AgentLLMConfig.cost_per_1k_input_tokens': [between(limits.costPer1k)],
    'AgentLLMConfig.cost_per_1k_output_tokens': [between(limits.costPer1k)],
    'AgentLLMConfig.metadata_json': [atMost(limits.jsonBytes, 'bytes'), `nested at most ${limits.jsonDepth} deep`],
    'AgentLLMConfig.priority': [between(limits.priority)],
    'Provider.name': [oneTo(limits.provider, ' of')],
    'Provider.display_name': [atMost(limits.displayName)],
    'Provider.aliases': [`at most ${maxElements['agentllm.v1.Provider.aliases']}`],
    'Provider.api_key_env_vars': [`at most ${maxElements['agentllm.v1.Provider.api_key_env_vars']}`],
    'Provider.parameter_rules': [`at most ${maxElements['agentllm.v1.Provider.parameter_rules']}`],
    'Model.name': [oneTo(limits.modelName)],
    'Model.display_name': [atMost(limits.displayName)],
    'Model.parameter_rules': [`at most ${maxElements['agentllm.v1.Model.parameter_rules']}`],
    'Model.replaced_by': [atMost(limits.modelName)],
    'ModelPrice.source': [atMost(limits.priceSource)],
    'PriceTier.above_input_tokens': [between(limits.tierTokens)],
    'PriceWindow.start_minute': [between(limits.windowStart)],
    'PriceWindow.end_minute': [between(limits.windowEnd)],
    'PriceWindow.tiers': [atMost(maxElements['agentllm.v1.PriceWindow.tiers'], '').trim()],
    'ModelPrice.tiers': [atMost(maxElements['agentllm.v1.ModelPrice.tiers'], '').trim()],
    'ModelPrice.windows': [atMost(maxElements['agentllm.v1.ModelPrice.windows'], '').trim()],
    'ImportModelsRequest.content': [oneTo(limits.importBytes, ' bytes')],
    'ImportModelsRequest.source': [atMost(limits.importSource)],
    'ImportModelsRequest.providers': [`At most ${maxElements['agentllm.v1.ImportModelsRequest.providers']}`],
    'ImportModelsRequest.accept': [atMost(maxElements['agentllm.v1.ImportModelsRequest.accept'], '').trim()],
    'ImportModelsRequest.apply_up_to_drift_percent': [between(limits.driftPercent)],
    'ImportModelsResponse.proposals': [atMost(limits.importProposals, 'of them')],
    'ImportModelsResponse.skipped': [atMost(limits.importSkipped, 'of them')],
    'Attempt.stripped_parameters': [atMost(maxElements['agentllm.v1.Attempt.stripped_parameters'], '').trim()],
    'UsageRecord.attempt': [between(limits.attemptTokens)],
    'UsageRecord.agent': [oneTo(limits.agentName)],
    'UsageRecord.experiment': [atMost(limits.experimentName)],
    'UsageRecord.variant': [atMost(limits.experimentName)],
    'UsageRecord.subject': [atMost(limits.subject)],
    'UsageRecord.run_id': [atMost(limits.runId)],
    'UsageLoss.agent': [oneTo(limits.agentName)],
    'UsageFilter.agents': [`At most ${maxElements['agentllm.v1.UsageFilter.agents']}`],
    'UsageFilter.config_ids': [`At most ${maxElements['agentllm.v1.UsageFilter.config_ids']}`],
    'UsageFilter.providers': [`At most ${maxElements['agentllm.v1.UsageFilter.providers']}`],
    'UsageFilter.models': [`At most ${maxElements['agentllm.v1.UsageFilter.models']}`],
    'UsageFilter.experiment': [atMost(limits.experimentName)],
    'UsageFilter.variants': [`At most ${maxElements['agentllm.v1.UsageFilter.variants']}`],
    'UsageFilter.outcomes': [`At most ${maxElements['agentllm.v1.UsageFilter.outcomes']}`],
    'UsageService.StreamUsage': [`At most ${limits.usageBatchesInFlight} batches`],
    'UsageService.RepriceUsage': [`At most ${limits.repricedAttempts} attempts`],
    'RecordUsageRequest.records': [atMost(maxElements['agentllm.v1.RecordUsageRequest.records'], '').trim()],
    'RecordUsageRequest.losses': [atMost(maxElements['agentllm.v1.RecordUsageRequest.losses'], '').trim()],
    'StreamUsageRequest.records': [atMost(maxElements['agentllm.v1.StreamUsageRequest.records'], '').trim()],
    'StreamUsageRequest.losses': [atMost(maxElements['agentllm.v1.StreamUsageRequest.losses'], '').trim()],
    'QueryUsageRequest.until': [atMost(limits.usageRangeDays, 'days')],
    'QueryUsageRequest.group_by': [atMost(maxElements['agentllm.v1.QueryUsageRequest.group_by'], '').trim()],
    'QueryUsageRequest.time_zone': [atMost(limits.timeZone)],
    'ListUsageRequest.run_id': [atMost(limits.runId)],
    'WhatIfRequest.until': [atMost(limits.usageRangeDays, 'days')],
    'WhatIfRequest.cache_hit_percent': [between(limits.cacheHitPercent)],
    'CatalogueItem.next_prices': [`at most ${limits.watchedNextPrices}`],
    'WhatIfResponse.models': [atMost(limits.whatIfModels, 'of them')],
    'ResolveConfigRequest.budget_exhausted': [
      atMost(maxElements['agentllm.v1.ResolveConfigRequest.budget_exhausted'], '').trim(),
    ],
    'BatchResolveConfigsRequest.budget_exhausted': [
      atMost(maxElements['agentllm.v1.BatchResolveConfigsRequest.budget_exhausted'], '').trim(),
    ],
    'Budget.id': [oneTo(limits.maxInt32, '')],
    'Budget.name': [oneTo(limits.budgetName)],
    'Budget.description': [atMost(limits.description)],
    'Budget.agent_type': [oneTo(limits.agentType)],
    'Budget.time_zone': [atMost(limits.timeZone)],
    'Budget.rolling_hours': [between(limits.rollingHours)],
    'Budget.limit_nano_usd': [`${limits.budgetLimit.min} to ${limits.budgetLimit.max}`],
    'Budget.step_down_model': [oneTo(limits.modelName)],
    'Budget.warn_percent': [between(limits.warnPercent), `Default ${limits.defaultWarnPercent}`],
    'BudgetService.Reserve': [`beyond ${limits.reservationsPerAgent} open reservations`],
    'GetBudgetStateRequest.run_id': [oneTo(limits.runId)],
    'GetBudgetStateRequest.periods_ago': [between(limits.periodsAgo)],
    'ReserveRequest.run_id': [atMost(limits.runId)],
    'ReserveRequest.input_tokens': [between(limits.attemptTokens)],
    'ReserveRequest.output_tokens': [
      between(limits.reservedOutputTokens),
      `else ${limits.defaultReservedOutputTokens}`,
    ],
    'ReserveRequest.attempts': [between(limits.reservedAttempts)],
    'ReserveRequest.lifetime': [
      `${limits.reservationLifetime.min} s to ${limits.reservationLifetime.max} s`,
      `Absent: ${limits.defaultReservationLifetime} s`,
    ],
    'RenewRequest.lifetime': [
      `${limits.reservationLifetime.min} s to ${limits.reservationLifetime.max} s`,
      `Absent: ${limits.defaultReservationLifetime} s`,
    ],
    'CommitRequest.records': [atMost(maxElements['agentllm.v1.CommitRequest.records'], '').trim()],
    'ResolveConfigRequest.subject': [oneTo(limits.subject)],
    'ResolvedExperiment.bucket': [`0 to ${limits.buckets - 1}`],
    'UsageCall.duration_ms': [between({ min: 0, max: limits.maxInt32 })],
    'Experiment.id': [oneTo(limits.maxInt32, '')],
    'Experiment.name': [oneTo(limits.experimentName)],
    'Experiment.hypothesis': [atMost(limits.hypothesis)],
    'Experiment.salt': ['32 characters'],
    'Experiment.subject_kind': [oneTo(limits.subjectKind)],
    'Experiment.variants': [between(limits.variants), `At most ${maxElements['agentllm.v1.Experiment.variants']}`],
    'Experiment.guardrails': [atMost(maxElements['agentllm.v1.Experiment.guardrails'], '').trim()],
    'Experiment.alpha_basis_points': [between(limits.alphaBasisPoints), `Default ${limits.defaultAlphaBasisPoints}`],
    'Experiment.smallest_effect_basis_points': [
      between(limits.smallestEffectBasisPoints),
      `Default ${limits.defaultSmallestEffectBasisPoints}`,
    ],
    'ExperimentVariant.name': [oneTo(limits.variantName)],
    'ExperimentVariant.description': [atMost(limits.description)],
    'ExperimentVariant.weight_basis_points': [between(limits.weight), `is ${limits.buckets}`],
    'ExperimentVariant.buckets': [atMost(maxElements['agentllm.v1.ExperimentVariant.buckets'], 'ranges')],
    'ExperimentOverrides.model_name': [oneTo(limits.modelName)],
    'BucketRange.start': [`0 to ${limits.buckets - 1}`],
    'BucketRange.end': [oneTo(limits.buckets, '')],
    'ExperimentMetric.outcome': [oneTo(limits.outcomeName)],
    'Guardrail.relative_margin_basis_points': [between(limits.relativeMarginBasisPoints)],
    'Guardrail.absolute_margin': [between(limits.absoluteMargin)],
    'Outcome.agent': [oneTo(limits.agentName)],
    'Outcome.experiment': [atMost(limits.experimentName)],
    'Outcome.subject': [oneTo(limits.subject)],
    'Outcome.run_id': [atMost(limits.runId)],
    'Outcome.name': [
      oneTo(limits.outcomeName),
      `at most ${limits.outcomeNames.others} different names`,
      `up to ${limits.outcomeNames.all}`,
    ],
    'Outcome.number': [between(limits.outcomeValue), `to ${limits.outcomeDecimals} decimal places`],
    'VariantResults.metrics': [atMost(9 + limits.outcomeNames.all + 11, '').trim()],
    'WatchedAgent.experiments': ['At most one'],
    'ExperimentService.CreateExperiment': [`beyond ${limits.experimentsPerAgent} experiments`],
    'ListExperimentsRequest.states': [`At most ${maxElements['agentllm.v1.ListExperimentsRequest.states']}`],
    'RecordOutcomeRequest.outcomes': [atMost(maxElements['agentllm.v1.RecordOutcomeRequest.outcomes'], '').trim()],
    'Credential.name': [oneTo(limits.credentialName)],
    'Credential.description': [atMost(limits.description)],
    'BatchGetPrimaryConfigsRequest.agents': [
      `at most ${maxElements['agentllm.v1.BatchGetPrimaryConfigsRequest.agents']}`,
      `more than ${limits.maxResponseBytes / 1024 ** 2} MiB`,
    ],
    'BatchResolveConfigsRequest.agents': [`at most ${maxElements['agentllm.v1.BatchResolveConfigsRequest.agents']}`],
    'BatchResolveConfigsRequest.provider_down': [
      `at most ${maxElements['agentllm.v1.BatchResolveConfigsRequest.provider_down']}`,
    ],
    'RollbackRevisionResponse.entries': [`exceed ${limits.rollbackChangesBytes} bytes`],
    'RollbackRevisionResponse.findings': [atMost(limits.maxFindings, '').trim()],
    'ResolveConfigRequest.provider_down': [`at most ${maxElements['agentllm.v1.ResolveConfigRequest.provider_down']}`],
    'BulkAssignConfigRequest.agents': [
      oneTo(maxElements['agentllm.v1.BulkAssignConfigRequest.agents'], ''),
      `more than ${limits.maxResponseBytes / 1024 ** 2} MiB`,
    ],
    'ListRetiringModelsRequest.within_days': [between(limits.retiringDays), `Default ${limits.defaultRetiringDays}`],
    'ListAuditEventsRequest.actor': [atMost(limits.actor)],
    'Token.name': [atMost(limits.tokenName)],
    'CreateTokenRequest.name': [oneTo(limits.tokenName)],
    'CreateTokenRequest.agents': [atMost(maxElements['agentllm.v1.CreateTokenRequest.agents'], '').trim()],
    'CreateTokenRequest.certificate_identity': [oneTo(limits.certificateIdentity, ' visible ASCII characters')],
    'CreateTokenRequest.lifetime': [`${limits.tokenLifetime.min} s to ${limits.tokenLifetime.max / 86_400} days`],
    'LeaseApiKeysRequest.public_key': ['32 bytes'],
    'ApiKeyLease.encapsulated_key': ['32 bytes'],
    'LeaseApiKeysRequest.lifetime': [
      `${limits.leaseLifetime.min} s to ${limits.leaseLifetime.max} s`,
      `Absent: ${limits.defaultLeaseLifetime} s`,
    ],
    'GetEncryptionStatusResponse.unreadable': [atMost(limits.namedUnreadable, 'of them')],
    'WatchConfigsRequest.agents': [atMost(maxElements['agentllm.v1.WatchConfigsRequest.agents'], '').trim()],
    'WatchConfigsRequest.client_name': [atMost(limits.clientName)],
    'WatchConfigsRequest.client_version': [atMost(limits.clientVersion)],
    'WatchConfigsRequest.min_revision': [`at most ${limits.maxCallMs / 1000} s`],
    'Watcher.agents': [atMost(limits.namedWatchers, 'of them')],
    'Watcher.stale': [`more than ${limits.staleWatcherMs / 1000} s`],
    'AcknowledgeRevisionRequest.acknowledgements': [
      oneTo(maxElements['agentllm.v1.AcknowledgeRevisionRequest.acknowledgements'], ' processes'),
    ],
    'AgentLLMConfigWatchService.WatchConfigs': [
      `at least every ${limits.bookmarkPromiseMs / 1000} s`,
      `was read for ${limits.slowConsumerMs / 1000} s`,
    ],
    'AgentLLMConfigService.CheckConfigHealth': [
      `at most ${limits.providerCheckMs / 1000} s`,
      `beyond ${limits.configChecksPerMinute} checks per minute`,
    ],
    'ProviderService.ValidateApiKey': [
      `at most ${limits.providerCheckMs / 1000} s`,
      `beyond ${limits.keyValidationsPerMinute} checks per minute`,
    ],
    'WaitForAdoption.timeout': [`0 to ${limits.adoptionSeconds} s`, `when ${limits.adoptionWaits} writes wait`],
    'Adoption.applied': [atMost(limits.namedWatchers, 'of them')],
    'Adoption.pending': [atMost(limits.namedWatchers, 'of them')],
    'ValidateApiKeyRequest.model_name': [oneTo(limits.modelName)],
    'ModelUsage.raw_json': [atMost(limits.usageJsonBytes, 'bytes')],
    'ReceiptSkippedHop.detail': [`cut after ${limits.receiptText} characters`],
  };
  /** The phrases that the comments must contain for fields that many messages have. */
  const commonPhrases: Readonly<Record<string, readonly string[]>> = {
    page_size: [
      `0 means ${limits.defaultPageSize}, more than ${limits.maxPageSize} means ${limits.maxPageSize}`,
      `more than ${limits.pageBytes / 1024 ** 2} MiB`,
    ],
    api_key: [`1 to ${limits.apiKey} visible ASCII characters`],
    reason: [`at most ${limits.reason} characters`],
    request_id: [`kept for ${limits.requestIdHours} hours`],
  };
  const phrasesOf = (path: string) => {
    const isRequest = /Request\./.test(path);
    return phrases[path] ?? (isRequest ? commonPhrases[path.split('.')[1] ?? ''] : undefined);
  };

  it.each(Object.entries(phrases))('equal limits.ts for %s', (path, expected) => {
    for (const phrase of expected) expect(comments.get(path)).toContain(phrase);
  });

  it.each(Object.entries(commonPhrases))('equal limits.ts for every %s of a request', (field, expected) => {
    const found = [...comments].filter(([path]) => path.endsWith(`Request.${field}`));
    expect(found.length).toBeGreaterThanOrEqual(field === 'page_size' || field === 'api_key' ? 4 : 13);
    for (const [path, comment] of found) for (const phrase of expected) expect(comment, path).toContain(phrase);
  });

  it('are all compared with limits.ts', () => {
    const uncompared = [...comments].filter(
      ([path, comment]) =>
        /\d+ (characters|bytes|deep)|\bat most \d+|-?\d+(\.\d+)? to -?\d+/.test(comment) &&
        !phrasesOf(path) &&
        !/^ERROR_REASON_/.test(path),
    );
    expect(uncompared.map(([path]) => path)).toEqual([]);
  });

  const specs: Readonly<Record<string, FieldSpecs>> = {
    Agent: agentFields,
    AgentLLMConfig: configFields,
    ExtraParams: Object.fromEntries(
      Object.entries(configFields).map(([field, spec]) => [field.replace(/^extra_params\./, ''), spec]),
    ),
    Provider: newProviderFields,
    Model: { ...newModelFields, ...modelFields },
  };

  it('equal the maximum lengths that the field schemas accept', () => {
    const checked: string[] = [];
    for (const [path, comment] of comments) {
      const [message = '', field = ''] = path.split('.');
      const max = /(?:at most|1 to) (\d+) (?:characters(?! each)|of `a-z)/.exec(comment)?.[1];
      const schema = specs[message]?.[field]?.schema;
      if (!max || !schema) continue;
      const accepts = (length: number) => schema.safeParse('x'.repeat(length)).success;
      expect([accepts(Number(max)), accepts(Number(max) + 1)], path).toEqual([true, false]);
      checked.push(path);
    }
    expect(checked.length).toBeGreaterThanOrEqual(16);
  });

  it('equal the ranges that the field schemas accept', () => {
    const checked: string[] = [];
    for (const [path, comment] of comments) {
      const [message = '', field = ''] = path.split('.');
      const [, min, max] = /(-?\d+(?:\.0)?) to (\d+(?:\.0)?)\b(?! (?:characters|of))/.exec(comment) ?? [];
      const schema = specs[message]?.[field]?.schema;
      if (min === undefined || max === undefined || !schema) continue;
      const parse = (value: string) => (field === 'seed' ? BigInt(value) : Number(value));
      const outside = (value: string, by: 1 | -1) =>
        field === 'seed' ? BigInt(value) + BigInt(by) : Number(value) + by;
      const accepts = (value: unknown) => schema.safeParse(value).success;
      expect(
        [accepts(parse(min)), accepts(parse(max)), accepts(outside(min, -1)), accepts(outside(max, 1))],
        path,
      ).toEqual([true, true, false, false]);
      checked.push(path);
    }
    expect(checked.length).toBeGreaterThanOrEqual(8);
  });

  it('equal PARAMETERS of the domain for ParameterRule.parameter', () => {
    const comment = comments.get('ParameterRule.parameter') ?? '';
    expect([...comment.matchAll(/`(\w+)`/g)].map(([, word]) => word)).toEqual([...PARAMETERS]);
  });
});
