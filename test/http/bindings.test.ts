import { type DescMethod, fromBinary, fromJson, type JsonObject, toBinary, toJson } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, it } from 'vitest';
import * as accessMessages from '../../gen/ts/agentllm/v1/access_service.js';
import * as configMessages from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import * as watchMessages from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import * as agentMessages from '../../gen/ts/agentllm/v1/agent_service.js';
import * as auditMessages from '../../gen/ts/agentllm/v1/audit_service.js';
import * as budgetMessages from '../../gen/ts/agentllm/v1/budget_service.js';
import * as credentialMessages from '../../gen/ts/agentllm/v1/credential_service.js';
import * as experimentMessages from '../../gen/ts/agentllm/v1/experiment_service.js';
import * as providerMessages from '../../gen/ts/agentllm/v1/provider_service.js';
import * as usageMessages from '../../gen/ts/agentllm/v1/usage_service.js';
import { readContract } from '../../src/api/dispatch/contract.js';
import { generateKey } from '../../src/domain/fernet.js';
import { resolvePath } from '../../src/http/fields.js';
import { createRouter, type Route } from '../../src/http/routes.js';
import { writeTemplate } from '../../src/http/template.js';
import { type Clients, useService } from '../support/service.js';
import { send } from './support.js';

const contract = readContract();
const services = [...contract.registry].filter((type) => type.kind === 'service' && /^agentllm\./.test(type.typeName));
// Streams are served only over gRPC.
const methods = services
  .flatMap((type) => (type.kind === 'service' ? type.methods : []))
  .filter(({ methodKind }) => methodKind === 'unary');
const paths = methods.map((method) => `/${method.parent.typeName}/${method.name}`);
const never = () => Promise.reject(new Error('not called'));
const { routes } = createRouter(contract, new Map(paths.map((path) => [path, never])));

const service = useService('embedded', { ENCRYPTION_KEY: generateKey() }, [{ role: 'ROLE_ADMIN' }]);
const ids = { agent: 0, config: 0, running: 0, paused: 0 };
let revision = 0n;
const MODEL = 'meta/llama-3:70b & more';

beforeAll(async () => {
  const { agents, configs, providers, credentials, budgets } = service();
  const { agent } = await agents.createAgent({ agent: { name: 'by http/1', agent_type: 'analyst' } });
  ids.agent = agent?.id as number;
  const config = { provider: 'openai', model_name: 'gpt-4o' };
  const created = await configs.createConfig({ agent: { id: ids.agent }, config });
  ids.config = created.config?.id as number;
  revision = created.revision;
  const provider = {
    name: 'mine',
    dialect: 'DIALECT_OPENAI_COMPATIBLE',
    base_url: 'https://llm.example.com/v1',
  } as const;
  await providers.createProvider({ provider });
  await credentials.createCredential({ credential: { name: 'mine', provider: 'openai' }, api_key: 'sk-x' });
  await providers.createModel({ model: { provider: 'mine', name: MODEL, context_window_tokens: 1000 } });
  const budget = { name: 'mine', limit_nano_usd: 10n ** 12n, scope: 'BUDGET_SCOPE_ALL' } as const;
  const rest = { period: 'BUDGET_PERIOD_TOTAL', action: 'BUDGET_ACTION_BLOCK' } as const;
  await budgets.createBudget({ budget: { ...budget, ...rest } });
  for (const reservation_id of [OPEN, ENDED]) await budgets.reserve({ agent: { id: ids.agent }, reservation_id });
  await budgets.release({ agent: { id: ids.agent }, reservation_id: ENDED });
  await createExperiments();
});

/** An experiment in each state, all with one name: an agent has one that is running or paused. */
async function createExperiments(): Promise<void> {
  const { agents, configs, experiments } = service();
  for (const [name, state] of [
    ['by http/1', 'draft'] as const,
    ['running/1', 'running'] as const,
    ['paused/1', 'paused'] as const,
  ]) {
    const agent = { name };
    if (state !== 'draft') {
      const created = await agents.createAgent({ agent: { name, agent_type: 'analyst' } });
      ids[state] = created.agent?.id as number;
      await configs.createConfig({ agent, config: { provider: 'openai', model_name: 'gpt-4o' } });
    }
    const variants = [
      { name: 'a', control: true, weight_basis_points: 5000 },
      { name: 'b', weight_basis_points: 5000, overrides: { temperature: 0 } },
    ];
    const primary_metric = { kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' } as const;
    await experiments.createExperiment({ agent, experiment: { name: 'mine', variants, primary_metric } });
    if (state !== 'draft') await experiments.startExperiment({ agent, name: 'mine' });
    if (state === 'paused') await experiments.pauseExperiment({ agent, name: 'mine' });
  }
}

/** The ids of two reservations, of which the second has ended. */
const OPEN = '5d0b2a6c-6f0b-4c1e-9d55-0c7f3a4e1b01';
const ENDED = '5d0b2a6c-6f0b-4c1e-9d55-0c7f3a4e1b02';

const USAGE_RANGE = { since: '2026-01-01T00:00:00Z', until: '2026-02-01T00:00:00Z' };

/** The request of each method, without the variables of the path. */
const samples = (): Readonly<Record<string, JsonObject>> => ({
  CreateAgent: { agent: { name: 'another', agentType: 'analyst' }, validateOnly: true },
  GetAgent: {},
  ListAgents: { pageSize: 3, agentType: 'analyst' },
  UpdateAgent: { agent: { description: 'ä' }, updateMask: 'description,maxTokens', validateOnly: true },
  DeleteAgent: { cascade: true, validateOnly: true },
  CreateConfig: {
    config: { provider: 'claude', modelName: 'claude-3-opus' },
    validateOnly: true,
    allowUnknownModel: true,
  },
  GetConfig: {},
  ListConfigs: { pageSize: 2, enabled: true, minRevision: '1' },
  UpdateConfig: { config: { temperature: 0 }, updateMask: 'temperature', validateOnly: true },
  DeleteConfig: { validateOnly: true, reason: 'a & b = c+d%' },
  GetPrimaryConfig: {},
  BatchGetPrimaryConfigs: { agents: [{ name: 'trader' }, { id: ids.agent }, { name: 'nobody' }] },
  BatchResolveConfigs: {
    agents: [{ name: 'trader' }, { id: ids.agent }, { name: 'nobody' }],
    providerDown: ['claude'],
  },
  UpsertPrimaryConfig: { config: { temperature: 0.25 }, validateOnly: true },
  BulkAssignConfig: {
    agents: [{ name: 'trader' }, { name: 'no' }],
    config: { topP: 0.5 },
    allowPartial: true,
    validateOnly: true,
  },
  ReorderConfigs: { configIds: [ids.config], validateOnly: true },
  ValidateConfig: { agent: { name: 'trader' }, config: { provider: 'openai', modelName: 'gpt-4o', temperature: 1.5 } },
  CheckConfigHealth: {},
  AcknowledgeRevision: {
    acknowledgements: [{ clientId: '3a8e5d5e-8f7e-4a53-9c3a-0a5ef8f1c7aa', revision: '3' }],
  },
  ListWatchers: { pageSize: 5, staleOnly: true },
  ListConfigHealth: { statuses: ['CHECK_STATUS_NO_KEY', 'CHECK_STATUS_OK'], pageSize: 5 },
  ListRetiringModels: { withinDays: 30 },
  ListConfigRevisions: { pageSize: 3, kinds: ['RESOURCE_KIND_CONFIG', 'RESOURCE_KIND_AGENT'] },
  GetConfigRevision: {},
  RollbackConfig: { toRevision: String(revision), withoutKey: true, validateOnly: true, reason: 'ä' },
  RollbackRevision: { withoutKeys: true, validateOnly: true, reason: 'ö' },
  ListAuditEvents: { pageSize: 3, actor: 'anonymous', since: '2026-01-01T00:00:00Z' },
  ResolveConfig: { providerDown: ['claude', 'anthropic'], atRevision: String(revision) },
  ValidateApiKey: { apiKey: 'sk-z', modelName: 'm' },
  ListProviders: {},
  GetProvider: {},
  CreateProvider: {
    provider: { name: 'other', dialect: 'DIALECT_OPENAI_COMPATIBLE', baseUrl: 'https://llm.example.com/v1' },
    validateOnly: true,
  },
  UpdateProvider: { provider: { displayName: 'Mine' }, validateOnly: true },
  DeleteProvider: { name: 'mine', validateOnly: true },
  ListModels: { pageSize: 5 },
  GetModel: {},
  CreateModel: { model: { provider: 'mine', name: 'b', contextWindowTokens: 5 }, validateOnly: true },
  UpdateModel: { model: { displayName: 'M' }, validateOnly: true },
  DeleteModel: { validateOnly: true },
  ListPrices: { provider: 'openai', pageSize: 2, at: '2026-12-01T00:00:00Z' },
  SetPrice: {
    provider: 'mine',
    modelName: MODEL,
    price: { inputMicroUsdPerMillion: '5', tiers: [{ aboveInputTokens: 9, rates: { outputMicroUsdPerMillion: '7' } }] },
    validFrom: '2026-01-01T00:00:00Z',
    validateOnly: true,
  },
  ImportModels: {
    format: 'IMPORT_FORMAT_MODELS_DEV',
    content: Buffer.from('{"mine": {"models": {"x": {"cost": {"input": 1.5}}}}}').toString('base64'),
    newModels: true,
    asOf: '2026-11-20T00:00:00Z',
    validateOnly: true,
  },
  CreateCredential: { credential: { name: 'desk', provider: 'openai' }, apiKey: 'sk-y', validateOnly: true },
  GetCredential: {},
  ListCredentials: { pageSize: 5 },
  UpdateCredential: { credential: { description: 'ö' }, apiKey: 'sk-z', validateOnly: true },
  DeleteCredential: { validateOnly: true },
  LeaseApiKeys: { agent: { name: 'trader' }, publicKey: Buffer.alloc(32, 9).toString('base64'), lifetime: '60s' },
  GetEncryptionStatus: {},
  CreateToken: { name: 'desk', role: 'ROLE_AGENT', agents: ['trader'], lifetime: '3600s', validateOnly: true },
  GetToken: {},
  ListTokens: { pageSize: 5, showEnded: true },
  RevokeToken: { validateOnly: true },
  GetCaller: {},
  RecordUsage: {
    records: [
      {
        agent: 'by http/1',
        attempt: {
          attemptId: '9c2d7c1e-64f1-4f8e-9d0a-3f6f6f0d6a11',
          provider: 'openai',
          // Without a model, so that both calls reject it.
          startedAt: '2026-01-01T00:00:00Z',
        },
      },
    ],
  },
  CreateBudget: {
    budget: {
      name: 'other',
      scope: 'BUDGET_SCOPE_RUN',
      period: 'BUDGET_PERIOD_DAY',
      limitNanoUsd: '5',
      action: 'BUDGET_ACTION_WARN',
    },
    validateOnly: true,
  },
  GetBudget: {},
  ListBudgets: { pageSize: 2 },
  UpdateBudget: { budget: { limitNanoUsd: '7' }, validateOnly: true },
  DeleteBudget: { validateOnly: true },
  GetBudgetState: {},
  Reserve: { agent: { name: 'by http/1' }, reservationId: OPEN, inputTokens: 5 },
  Renew: { agent: { name: 'by http/1' } },
  Commit: { agent: { name: 'by http/1' } },
  Release: { agent: { name: 'by http/1' } },
  CreateExperiment: {
    experiment: {
      name: 'other',
      variants: [
        { name: 'a', control: true, weightBasisPoints: 9000 },
        { name: 'b', weightBasisPoints: 1000, overrides: { extraParams: { seed: '1' } } },
      ],
      primaryMetric: {
        kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
        outcome: 'ä',
        direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
      },
    },
    validateOnly: true,
  },
  GetExperiment: {},
  ListExperiments: { pageSize: 2, states: ['EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_DRAFT'] },
  UpdateExperiment: { experiment: { hypothesis: 'ä' }, updateMask: 'hypothesis', validateOnly: true },
  DeleteExperiment: { validateOnly: true },
  StartExperiment: { validateOnly: true },
  PauseExperiment: { validateOnly: true },
  ResumeExperiment: { validateOnly: true },
  ConcludeExperiment: { winner: 'b', validateOnly: true },
  GetResults: {},
  RecordOutcome: { outcomes: [{ outcomeId: OPEN, agent: 'nobody', subject: 'ä', name: 'x', boolean: true }] },
  QueryUsage: { ...USAGE_RANGE, groupBy: ['USAGE_DIMENSION_DAY', 'USAGE_DIMENSION_MODEL'], timeZone: 'Europe/Berlin' },
  ListUsage: { pageSize: 5, filter: { agents: ['ä'], fallback: false } },
  WhatIf: { ...USAGE_RANGE, cacheHitPercent: 50 },
  RepriceUsage: { ...USAGE_RANGE, reason: 'ä', validateOnly: true },
});

const tokenId = () => service().tokens[0]?.id ?? '';

const variable = (name: string): string | number => {
  if (name === 'at_revision' || name === 'revision') return String(revision);
  if (name.endsWith('agent.id')) return ids.agent;
  if (name.endsWith('agent.name')) return 'by http/1';
  if (name.endsWith('id')) return ids.config;
  return name.endsWith('provider') || !/model/.test(name) ? 'mine' : MODEL;
};

/** The state that an experiment must have for a method. */
const STATES: Readonly<Record<string, 'running' | 'paused'>> = {
  PauseExperiment: 'running',
  ConcludeExperiment: 'running',
  ResumeExperiment: 'paused',
};

/** The value of a variable: `name` is a model in some methods of ProviderService and a provider in the others. */
function valueOfVariable({ method }: Route, name: string): string | number {
  const state = STATES[method.name];
  if (state && name === 'agent.id') return ids[state];
  if (state && name === 'agent.name') return `${state}/1`;
  if (name === 'reservation_id') return method.name === 'Renew' ? OPEN : ENDED;
  if (name === 'name' && /Model$/.test(method.name)) return MODEL;
  return /Token$/.test(method.name) ? tokenId() : variable(name);
}

function withField(json: JsonObject, path: string, value: string | number): JsonObject {
  const [first = '', ...rest] = path.split('.');
  const inner = (json[first] ?? {}) as JsonObject;
  return { ...json, [first]: rest.length > 0 ? withField(inner, rest.join('.'), value) : value };
}

function queryOf(json: JsonObject): string {
  const query = new URLSearchParams();
  for (const [name, values] of Object.entries(json))
    for (const value of [values].flat()) query.append(name, String(value));
  return String(query);
}

/** The message types that ts-proto generates, by name. */
interface Types {
  readonly [name: string]: { decode(bytes: Uint8Array): object; encode(message: object): { finish(): Uint8Array } };
}
const messageTypes = {
  ...watchMessages,
  ...agentMessages,
  ...configMessages,
  ...providerMessages,
  ...credentialMessages,
  ...auditMessages,
  ...accessMessages,
  ...usageMessages,
  ...budgetMessages,
  ...experimentMessages,
} as unknown as Types;

async function overGrpc(method: DescMethod, json: JsonObject): Promise<JsonObject> {
  const bytes = toBinary(method.input, fromJson(method.input, json));
  const clients: Readonly<Record<string, keyof Clients>> = {
    AgentService: 'agents',
    AgentLLMConfigService: 'configs',
    ProviderService: 'providers',
    CredentialService: 'credentials',
    AuditService: 'audit',
    AccessService: 'access',
    AgentLLMConfigWatchService: 'watchers',
    UsageService: 'usage',
    BudgetService: 'budgets',
    ExperimentService: 'experiments',
  };
  const client = service()[clients[method.parent.name] as keyof Clients] as unknown as Record<
    string,
    (request: object) => Promise<object>
  >;
  const request = messageTypes[method.input.name]?.decode(bytes) as object;
  const response = (await client[method.localName]?.(request)) as object;
  const encoded = messageTypes[method.output.name]?.encode(response).finish() as Uint8Array;
  const { registry } = contract;
  return toJson(method.output, fromBinary(method.output, encoded), {
    registry,
    alwaysEmitImplicit: true,
  }) as JsonObject;
}

/** Replaces times, also in etags: validate_only returns the current time, which differs between the two calls. */
const withoutTimes = (json: unknown) =>
  JSON.parse(JSON.stringify(json), (key, value) => {
    if (
      /^((created|updated|checked|lastUsed|expires|revoked|started|ended|computed)At|latencyMs|expiresInMs|salt)$/.test(
        key,
      )
    )
      return typeof value;
    if (key === 'id' && /^al_/.test(`${value}`)) return 'al_';
    return /etag$/i.test(key) ? String(value).replace(/-0-\w+$/, '-0') : value;
  });

describe('the HTTP routes', () => {
  it('cover every unary method of the contract', () => {
    expect(new Set(routes.map((route) => `${route.method}`))).toEqual(new Set(methods.map((method) => `${method}`)));
    expect(routes.length).toBeGreaterThanOrEqual(35);
  });

  it.each(
    routes.map((route) => [route.httpMethod, writeTemplate(route.template, route.template.variables), route] as const),
  )('return for %s %s the response of gRPC', async (verb, _, route) => {
    const { method, template, body } = route;
    const sample = samples()[method.name] as JsonObject;
    const values = template.variables.map((name) => valueOfVariable(route, name));
    let request = sample;
    for (const [index, name] of template.variables.entries())
      request = withField(request, resolvePath(method.input, name)?.text ?? '', values[index] as string);
    const rest = Object.fromEntries(Object.entries(sample).filter(([key]) => !template.variables.includes(key)));
    const path = writeTemplate(template, template.variables).replace(/\{([\w.]+)\}/g, (_, name) =>
      encodeURIComponent(values[template.variables.indexOf(name)] as string),
    );
    const headers = { authorization: `Bearer ${service().tokens[0]?.text}` };
    const response = await (body === '*'
      ? send(service().running.httpPort as number, verb, path, { body: sample, headers })
      : send(service().running.httpPort as number, verb, `${path}?${queryOf(rest)}`, { headers }));
    expect(response.text).toMatch(/^\{"(?!error)/);
    expect(response.status).toBe(200);
    expect(withoutTimes(response.json)).toEqual(withoutTimes(await overGrpc(method, request)));
  });
});
