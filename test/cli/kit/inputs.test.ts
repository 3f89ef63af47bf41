import { readFileSync } from 'node:fs';
import { createFileRegistry, type DescField, type DescMessage, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import type { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import {
  argumentFor,
  type Input,
  inputOf,
  maskOf,
  readInputs,
  requestPaths,
  UsageError,
  unset,
} from '../../../src/cli/kit/inputs.js';
import {
  agent,
  choice,
  configId,
  duration,
  int64,
  integer,
  list,
  model,
  negatableFlag,
  number,
  rule,
  span,
  text,
  time,
  usd,
} from '../../../src/cli/kit/values.js';
import { agentFields } from '../../../src/domain/agent.js';
import { modelFields, providerFields } from '../../../src/domain/catalogue.js';
import { configFields } from '../../../src/domain/config.js';
import type { FieldSpecs } from '../../../src/domain/patch.js';
import { packageFile } from '../../../src/package.js';
import { remoteCommands } from '../support.js';

const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb'))),
);
const messageOf = (name: string) => registry.getMessage(`agentllm.v1.${name}`) as DescMessage;

const allCommands = remoteCommands();
const commandAt = (name: string) => allCommands.get(name) as Command;
const inputsOf = (command: Command): Input[] => {
  const found = [...command.registeredArguments, ...command.options]
    .map((item) => inputOf.get(item))
    .filter((item) => item !== undefined);
  return [...new Set(found)];
};

/** Each command with the message that it sends. */
const REQUESTS: readonly (readonly [command: string, request: string])[] = [
  ['agents list', 'ListAgentsRequest'],
  ['agents get', 'GetAgentRequest'],
  ['agents create', 'CreateAgentRequest'],
  ['agents update', 'UpdateAgentRequest'],
  ['agents delete', 'DeleteAgentRequest'],
  ['configs list', 'ListConfigsRequest'],
  ['configs get', 'GetConfigRequest'],
  ['configs create', 'CreateConfigRequest'],
  ['configs update', 'UpdateConfigRequest'],
  ['configs upsert', 'UpsertPrimaryConfigRequest'],
  ['configs bulk', 'BulkAssignConfigRequest'],
  ['configs reorder', 'ReorderConfigsRequest'],
  ['configs delete', 'DeleteConfigRequest'],
  ['configs primary', 'GetPrimaryConfigRequest'],
  ['configs validate', 'ValidateConfigRequest'],
  ['configs health', 'ListConfigHealthRequest'],
  ['providers list', 'ListProvidersRequest'],
  ['providers get', 'GetProviderRequest'],
  ['providers create', 'CreateProviderRequest'],
  ['providers update', 'UpdateProviderRequest'],
  ['providers delete', 'DeleteProviderRequest'],
  ['providers check-key', 'ValidateApiKeyRequest'],
  ['models list', 'ListModelsRequest'],
  ['models get', 'GetModelRequest'],
  ['models create', 'CreateModelRequest'],
  ['models update', 'UpdateModelRequest'],
  ['models delete', 'DeleteModelRequest'],
  ['models retiring', 'ListRetiringModelsRequest'],
  ['credentials list', 'ListCredentialsRequest'],
  ['credentials get', 'GetCredentialRequest'],
  ['credentials create', 'CreateCredentialRequest'],
  ['credentials update', 'UpdateCredentialRequest'],
  ['credentials delete', 'DeleteCredentialRequest'],
  ['key rotate', 'RotateEncryptionKeyRequest'],
  ['key status', 'GetEncryptionStatusRequest'],
  ['token create', 'CreateTokenRequest'],
  ['token list', 'ListTokensRequest'],
  ['token show', 'GetTokenRequest'],
  ['token revoke', 'RevokeTokenRequest'],
  ['token whoami', 'GetCallerRequest'],
  ['resolve', 'ResolveConfigRequest'],
  ['rehearse', 'ResolveConfigRequest'],
  ['watch', 'WatchConfigsRequest'],
  ['watchers', 'ListWatchersRequest'],
  ['history', 'ListConfigRevisionsRequest'],
  ['diff', 'GetConfigRevisionRequest'],
  ['rollback', 'RollbackConfigRequest'],
  ['audit', 'ListAuditEventsRequest'],
  ['prices list', 'ListPricesRequest'],
  ['prices set', 'SetPriceRequest'],
  ['prices import', 'ImportModelsRequest'],
  ['prices diff', 'ImportModelsRequest'],
  ['usage report', 'QueryUsageRequest'],
  ['usage list', 'ListUsageRequest'],
  ['usage what-if', 'WhatIfRequest'],
  ['usage reprice', 'RepriceUsageRequest'],
  ['budgets list', 'ListBudgetsRequest'],
  ['budgets show', 'GetBudgetStateRequest'],
  ['budgets create', 'CreateBudgetRequest'],
  ['budgets set', 'UpdateBudgetRequest'],
  ['budgets delete', 'DeleteBudgetRequest'],
  ['experiments list', 'ListExperimentsRequest'],
  ['experiments show', 'GetExperimentRequest'],
  ['experiments create', 'CreateExperimentRequest'],
  ['experiments update', 'UpdateExperimentRequest'],
  ['experiments delete', 'DeleteExperimentRequest'],
  ['experiments start', 'StartExperimentRequest'],
  ['experiments pause', 'PauseExperimentRequest'],
  ['experiments resume', 'ResumeExperimentRequest'],
  ['experiments status', 'GetResultsRequest'],
  ['experiments results', 'GetResultsRequest'],
  ['experiments conclude', 'ConcludeExperimentRequest'],
  ['experiments record-outcome', 'RecordOutcomeRequest'],
];

const METRIC_FIELDS = ['kind', 'outcome', 'direction'].map((field) => `experiment.primary_metric.${field}`);

/** Fields that the command line sets itself or does not need. */
const INTERNAL_FIELDS = /^(page_size|page_token|update_mask)$/;
const OUTPUT_ONLY =
  /^(id|agent_id|agent_name|has_api_key_override|api_key_state|config_count|built_in|created_at|updated_at|revision|etag|chain_etag|valid_from|salt|state|state_reason|winner|started_at|ended_at|allocation_revision)$/;

/** The paths of a request that a user can set. */
function pathsOf(message: DescMessage, prefix = ''): string[] {
  return message.fields.flatMap((field) => {
    const path = prefix + field.name;
    if (INTERNAL_FIELDS.test(path) || (prefix !== '' && OUTPUT_ONLY.test(field.name))) return [];
    const nested = field.fieldKind === 'message' ? field.message : undefined;
    const isLeaf = !nested || nested.name === 'AgentRef' || nested.typeName.startsWith('google.');
    return isLeaf ? [path] : pathsOf(nested, `${path}.`);
  });
}

function fieldAt(message: DescMessage, path: string): DescField | undefined {
  const [step, ...rest] = path.split('.');
  const field = message.fields.find(({ name }) => name === step);
  return rest.length === 0 || !field?.message ? field : fieldAt(field.message, rest.join('.'));
}

describe('the inputs', () => {
  it('are declared for every remote command', () => {
    expect([...allCommands.keys()].sort()).toEqual(REQUESTS.map(([name]) => name).sort());
  });

  it.each(REQUESTS)('of %s can set every settable field of %s', (name, request) => {
    const settable = new Set(inputsOf(commandAt(name)).flatMap(requestPaths));
    const local: Record<string, string[]> = {
      'agents update': ['agent.is_reserved'],
      'configs validate': ['id'],
      'configs health': ['config_id'],
      'credentials update': ['credential.provider'],
      // `agentllm prices set` sets prices with tiers and windows.
      'models create': ['model.price.tiers', 'model.price.windows'],
      'models update': ['model.price.tiers', 'model.price.windows'],
      'prices import': ['content'],
      // The same file is compared, and nothing is written.
      'prices diff': [
        'content',
        'source',
        'as_of',
        'accept',
        'apply_up_to_drift_percent',
        'request_id',
        'validate_only',
        'reason',
        'wait_for_adoption.timeout',
      ],
      // --last, --since and --until are one range.
      'usage report': ['since', 'until'],
      'usage reprice': ['since', 'until'],
      'usage what-if': [
        'since',
        'until',
        'price.cache_write_micro_usd_per_million',
        'price.reasoning_micro_usd_per_million',
        'price.source',
        'price.cache_write_long_micro_usd_per_million',
        'price.tiers',
        'price.windows',
      ],
      'budgets list': ['with_state'],
      // They cannot be changed.
      'budgets set': ['budget.scope', 'budget.agent_type', 'budget.period', 'budget.time_zone', 'budget.rolling_hours'],
      // --control, --variant, --weight and --metric are read as a whole.
      'experiments create': ['experiment.variants', ...METRIC_FIELDS],
      'experiments update': ['experiment.variants', ...METRIC_FIELDS],
      'experiments record-outcome': ['outcomes'],
      watch: ['client_id', 'client_name', 'client_version', 'min_revision'],
    };
    const missing = pathsOf(messageOf(request)).filter((path) => !settable.has(path));
    expect(missing).toEqual(local[name] ?? []);
  });

  it.each(REQUESTS)('of %s set only fields of %s, with the values and cardinality of the field', (name, request) => {
    for (const input of inputsOf(commandAt(name)))
      for (const path of requestPaths(input)) {
        const field = fieldAt(messageOf(request), path);
        expect(field, path).toBeDefined();
        if (input.kind.choices && field?.enum) {
          const values = field.enum.values
            .map((value) => value.name)
            // Changes of tokens are in the audit log and are not part of the history.
            .filter((value) => !value.endsWith('_UNSPECIFIED') && value !== 'RESOURCE_KIND_TOKEN');
          expect(input.kind.choices.map((word) => input.kind.read(word))).toEqual(values);
        }
        const isList = field?.fieldKind === 'list';
        const { repeats = false, separated = false } = input.kind;
        expect(repeats || separated || input.name.includes('...'), path).toBe(isList);
      }
  });

  it('have unique names within a command', () => {
    for (const [name] of REQUESTS) {
      const names = inputsOf(commandAt(name)).map((input) => input.name);
      expect(names, name).toEqual([...new Set(names)]);
    }
  });

  it.each([
    ['agents', 'agent', agentFields],
    ['configs', 'config', configFields],
    ['providers', 'provider', providerFields],
    ['models', 'model', modelFields],
  ] as const)('of %s can be unset when the service can clear the field', (group, resource, specs: FieldSpecs) => {
    const inputs = inputsOf(commandAt(`${group} update`));
    for (const [field, spec] of Object.entries(specs)) {
      const matching = inputs.filter((input) => requestPaths(input).includes(`${resource}.${field}`));
      for (const input of matching) expect(input.clears ?? false, `${input.name} (${field})`).toBe('cleared' in spec);
    }
  });

  it('have a help text of more than 10 characters', () => {
    for (const [name] of REQUESTS)
      for (const input of inputsOf(commandAt(name))) expect(input.help.length, input.name).toBeGreaterThan(10);
  });
});

const inputs: readonly Input[] = [
  { name: '<agents...>', to: 'agents', kind: agent, help: '' },
  { name: 'model', to: ['config.provider', 'config.model_name'], kind: model, help: '' },
  { name: 'provider', to: 'config.provider', kind: text, help: '' },
  { name: 'temperature', to: 'config.temperature', kind: number, clears: true, help: '' },
  { name: 'stop', to: 'config.extra_params.stop_sequences', kind: list(text), clears: true, help: '' },
  { name: 'price', to: 'config.price.input', mask: 'price', kind: usd, help: '' },
  { name: 'enabled', to: 'config.enabled', kind: negatableFlag, help: '' },
  { name: 'limit', kind: integer, help: '' },
];
const read = (typed: Record<string, string | string[] | boolean>) => readInputs(inputs, new Map(Object.entries(typed)));

describe('readInputs', () => {
  it('puts each value into the message, the local inputs or the mask', () => {
    const parsed = read({
      '<agents...>': ['trader', '7'],
      model: 'openai/gpt-4o',
      stop: ['a', 'b'],
      enabled: false,
      limit: '3',
    });
    expect(parsed.message).toEqual({
      agents: [{ name: 'trader' }, { id: 7 }],
      config: {
        provider: 'openai',
        model_name: 'gpt-4o',
        extra_params: { stop_sequences: ['a', 'b'] },
        enabled: false,
      },
    });
    expect(parsed.local.get('limit')).toBe(3);
    expect(maskOf(inputs, parsed.touched, 'config')).toEqual([
      'provider',
      'model_name',
      'extra_params.stop_sequences',
      'enabled',
    ]);
  });

  it('reports every invalid value as it was typed', () => {
    const readInvalid = () => read({ temperature: 'warm', limit: '1.5', model: 'gpt-4o' });
    expect(readInvalid).toThrow(UsageError);
    try {
      readInvalid();
    } catch (error) {
      expect((error as UsageError).problems.map(({ typed }) => typed)).toEqual([
        '--model gpt-4o',
        '--temperature warm',
        '--limit 1.5',
      ]);
    }
  });

  it('rejects two options that set the same field', () => {
    expect(() => read({ model: 'openai/gpt-4o', provider: 'claude' })).toThrow(UsageError);
  });

  it('clears a field by omitting it from the message and naming it in the mask', () => {
    const parsed = unset(inputs, ['temperature', 'stop'], read({ enabled: true }));
    expect(JSON.parse(JSON.stringify(parsed.message))).toEqual({ config: { enabled: true, extra_params: {} } });
    expect(maskOf(inputs, parsed.touched, 'config')).toEqual(['temperature', 'extra_params.stop_sequences', 'enabled']);
  });

  it('rejects an unset of a field that cannot be cleared or is also set', () => {
    expect(() => unset(inputs, ['enabled'], read({}))).toThrow(UsageError);
    expect(() => unset(inputs, ['temperature'], read({ temperature: '1' }))).toThrow(UsageError);
  });

  it.each([
    ['config.temperature', '--temperature 5'],
    ['config.model_name', '--model openai/x'],
    ['config.extra_params.stop_sequences[1]', '--stop b'],
    ['config.extra_params.stop_sequences', '--stop'],
    ['agents[1].name', 'nobody'],
    ['config.enabled', '--enabled'],
    ['config.price', '--price 1'],
    ['request_id', 'request_id'],
  ])('maps a violation of %s to the argument %s', (field, typed) => {
    const parsed = read({
      '<agents...>': ['trader', 'nobody'],
      model: 'openai/x',
      temperature: '5',
      stop: ['a', 'b'],
      price: '1',
    });
    expect(argumentFor(field, inputs, parsed.causes)).toBe(typed);
  });
});

describe('a typed value', () => {
  it.each([
    [number, '0', 0],
    [number, '-1.5e3', -1500],
    [integer, '-1', -1],
    [int64, '9007199254740993', 9007199254740993n],
    [agent, 'trader', { name: 'trader' }],
    [agent, '8', { id: 8 }],
    [agent, 'name:8', { name: '8' }],
    [configId, '13', 13],
    [duration, '61250', { seconds: 61n, nanos: 250_000_000 }],
    [span, '90d', { seconds: 7_776_000n, nanos: 0 }],
    [span, '60s', { seconds: 60n, nanos: 0 }],
    [model, 'together/meta-llama/Llama-3', ['together', 'meta-llama/Llama-3']],
    [usd, '0.15', 150000n],
    [usd, '12', 12000000n],
    [choice('P_', 'p', ['same-model', 'any']), 'SAME_MODEL', 'P_SAME_MODEL'],
    [time, '2026-01-31', new Date('2026-01-31T00:00:00Z')],
    [rule, 'temperature=rejected', { parameter: 'temperature', support: 'PARAMETER_SUPPORT_REJECTED' }],
    [
      rule,
      'top_p=accepted,minimum=0,maximum=1,not_with=temperature|seed,wire_name=p',
      {
        parameter: 'top_p',
        support: 'PARAMETER_SUPPORT_ACCEPTED',
        minimum: 0,
        maximum: 1,
        not_with: ['temperature', 'seed'],
        wire_name: 'p',
      },
    ],
  ])('is converted to the exact value when it is valid (case %#)', (kind, typed, value) =>
    expect(kind.read(typed as string)).toEqual(value),
  );

  it.each([
    [number, ''],
    [number, '0x10'],
    [number, 'NaN'],
    [number, 'Infinity'],
    [integer, '2147483648'],
    [integer, '1e3'],
    [int64, '9223372036854775808'],
    [span, '90'],
    [span, '-1d'],
    [span, '1.5h'],
    [model, 'gpt-4o'],
    [model, '/gpt-4o'],
    [model, 'openai/'],
    [usd, '-1'],
    [usd, '0.1234567'],
    [time, 'tomorrow'],
    [time, '2026-13-01'],
    [rule, 'temperature'],
    [rule, 'temperature=maybe'],
    [rule, 'temperature=rejected,colour=red'],
  ])('is rejected when it is invalid (case %#)', (kind, typed) => expect(() => kind.read(typed)).toThrow());
});
