import { describe, expect, it } from 'vitest';
import { FindingReason } from '../../gen/ts/agentllm/v1/finding.js';
import { ratesOf } from '../../src/domain/catalogue.js';
import { newCredential } from '../../src/domain/credential.js';
import { lintChain, lintConfig, refusedField } from '../../src/domain/lint.js';
import { resolve } from '../../src/domain/resolve.js';
import type { Agent, Config } from '../../src/domain/rows.js';
import { agentRow, configRow, NOW, seededCatalogue } from './support.js';

const world = seededCatalogue();
world.provider({ name: 'off', enabled: false, dialect: 'DIALECT_OPENAI', base_url: 'https://off.example.com' });
world.provider({
  name: 'ambiguous',
  dialect: 'DIALECT_OPENAI',
  base_url: 'https://example.com\\@10.0.0.1/v1',
});
world.model({ provider: 'ambiguous', name: 'm' });
for (const [name, retires_at] of [
  ['old', new Date(NOW.getTime())],
  ['leaving', new Date('2026-12-24T00:00:00Z')],
] as const)
  world.model({ provider: 'openai', name, retires_at, replaced_by: 'gpt-5.1' });
for (const [name, replaced_by] of [
  ['lost', null],
  ['orphan', 'gpt-99'],
  ['late', 'old'],
] as const)
  world.model({ provider: 'openai', name, retires_at: NOW, replaced_by });
world.model({ provider: 'openai', name: 'unpriced' });
world.model({ provider: 'openai', name: 'aging', replaced_by: 'gpt-5.1' });
const offered = world.model({ provider: 'off', name: 'm' });
world.write((_, draft) => {
  const rates = { ...ratesOf({ input_micro_usd_per_million: 1 }), source: 'a test', valid_from: NOW };
  draft.create('price', { ...rates, id: 0, model_id: offered.id, created_at: NOW, revision: 0 });
});
const { state } = world;
const desk = world.write((_, draft) =>
  draft.create('credential', { ...newCredential(), name: 'desk', provider: 'openai', key_id: 'lost', key_revision: 1 }),
);
const priced = { price_given: true, cost_per_1k_input_tokens: 1, cost_per_1k_output_tokens: 1 };

const lint = (configs: readonly Config[], agent: Partial<Agent> = {}) =>
  lintChain(state, agentRow(agent), configs, NOW);
const claude = (fields: Partial<Config> = {}) =>
  configRow({
    provider: 'claude',
    model_name: 'claude-opus-4-1',
    temperature: null,
    max_tokens: 100,
    price_given: true,
    cost_per_1k_input_tokens: 1,
    cost_per_1k_output_tokens: 1,
    ...fields,
  });

/** The reasons of findings about budgets and experiments, which do not come from configs. */
const OF_OTHERS = ['BUDGET_EXHAUSTED', 'STEP_DOWN_HOP_MISSING', 'VARIANT_UNUSABLE'] as const;

/** For each finding reason, the configs and the agent that cause it, and the expected finding. */
const CAUSES: Record<
  Exclude<
    keyof typeof FindingReason,
    'UNSPECIFIED' | 'UNRECOGNIZED' | 'INVALID_FIELD' | 'NO_USABLE_HOP' | (typeof OF_OTHERS)[number]
  >,
  readonly [readonly Config[], Partial<Agent>, object]
> = {
  UNKNOWN_PROVIDER: [
    [configRow({ provider: 'gone' })],
    {},
    { severity: 'SEVERITY_ERROR', hop: 0, field: 'config.provider', message: expect.stringContaining('"gone"') },
  ],
  UNKNOWN_MODEL: [
    [configRow({ model_name: 'gpt-99', temperature: null })],
    {},
    {
      severity: 'SEVERITY_WARNING',
      hop: 0,
      field: 'config.model_name',
      message: expect.stringContaining('openai/gpt-99'),
    },
  ],
  MODEL_DEPRECATED: [
    [configRow({ ...priced, model_name: 'aging', temperature: null })],
    {},
    {
      severity: 'SEVERITY_WARNING',
      hop: 0,
      field: 'config.model_name',
      message: 'openai/aging is deprecated: its provider names gpt-5.1 as successor',
    },
  ],
  PROVIDER_DISABLED: [
    [configRow({ ...priced, fallback_provider: 'off', fallback_model: 'm' })],
    {},
    {
      severity: 'SEVERITY_ERROR',
      hop: 1,
      field: 'config.fallback_provider',
      message: expect.stringContaining('"off"'),
    },
  ],
  PARAMETER_REJECTED: [
    [claude({ model_name: 'claude-opus-5', temperature: 0 })],
    {},
    { severity: 'SEVERITY_WARNING', hop: 0, field: 'config.temperature', configured: '0', effective: '' },
  ],
  PARAMETER_IGNORED: [
    [configRow({ ...priced, provider: 'deepseek', model_name: 'deepseek-reasoner', temperature: 0.7 })],
    {},
    { severity: 'SEVERITY_WARNING', hop: 0, field: 'config.temperature', configured: '0.7', effective: '' },
  ],
  PARAMETER_CLAMPED: [
    [
      configRow({
        ...priced,
        temperature: 2,
        max_tokens: 10,
        fallback_provider: 'claude',
        fallback_model: 'claude-3-haiku-20240307',
      }),
    ],
    {},
    { severity: 'SEVERITY_WARNING', hop: 1, field: 'config.temperature', configured: '2', effective: '1' },
  ],
  PARAMETER_CONFLICT: [
    [claude({ temperature: 0, top_p: 0.5 })],
    {},
    { severity: 'SEVERITY_WARNING', hop: 0, field: 'config.top_p', configured: '0.5', effective: '' },
  ],
  PARAMETER_REQUIRED: [
    [claude({ max_tokens: null })],
    {},
    { severity: 'SEVERITY_INFO', hop: 0, field: 'config.max_tokens', configured: '', effective: '4096' },
  ],
  BASE_URL_INVALID: [
    [configRow({ ...priced, provider: 'ambiguous', model_name: 'm', temperature: null })],
    {},
    {
      severity: 'SEVERITY_ERROR',
      hop: 0,
      field: 'config.provider',
      message:
        'The base URL of provider "ambiguous" is ambiguous; set base_url to a plain URL such as https://llm.example.com/v1',
    },
  ],
  MODEL_RETIRING: [
    [
      configRow({
        model_name: 'leaving',
        price_given: true,
        cost_per_1k_input_tokens: 1,
        cost_per_1k_output_tokens: 1,
        temperature: null,
      }),
    ],
    {},
    {
      severity: 'SEVERITY_WARNING',
      hop: 0,
      field: 'config.model_name',
      message:
        'openai/leaving will be shut down on 2026-12-24, in 145 days; use gpt-5.1: agentllm configs update 1 --model openai/gpt-5.1',
    },
  ],
  DUPLICATE_HOP: [
    [configRow({ id: 1 }), configRow({ id: 2 })],
    {},
    { severity: 'SEVERITY_INFO', field: 'config.model_name', message: expect.stringContaining('of config 2 ') },
  ],
  HOP_CUT_BY_POLICY: [
    [configRow({ fallback_provider: 'openai', fallback_model: 'gpt-4o' })],
    { substitution_policy: 'SUBSTITUTION_POLICY_NEVER' },
    {
      severity: 'SEVERITY_WARNING',
      field: 'config.fallback_model',
      message: expect.stringContaining('SUBSTITUTION_POLICY_NEVER'),
    },
  ],
  NO_ENABLED_CONFIG: [
    [configRow({ enabled: false })],
    {},
    { severity: 'SEVERITY_WARNING', hop: undefined, message: expect.stringContaining('openai/gpt-4o-mini') },
  ],
  AGENT_INACTIVE: [
    [configRow()],
    { is_active: false },
    { severity: 'SEVERITY_WARNING', hop: undefined, field: 'agent.is_active' },
  ],
  PRICE_UNKNOWN: [
    [configRow({ model_name: 'unpriced', temperature: null })],
    {},
    { severity: 'SEVERITY_INFO', hop: 0, field: 'config.model_name' },
  ],
  PRICE_HALF_GIVEN: [
    [configRow({ price_given: true, cost_per_1k_output_tokens: 2 })],
    {},
    { severity: 'SEVERITY_WARNING', field: 'config.cost_per_1k_input_tokens' },
  ],
  KEY_UNREADABLE: [
    [configRow({ key_id: 'lost', key_revision: 1 })],
    {},
    {
      severity: 'SEVERITY_ERROR',
      hop: 0,
      field: 'config.api_key_state',
      message: expect.stringContaining('The stored key of config 1 cannot be decrypted'),
    },
  ],
};

describe('each finding reason', () => {
  it.each(Object.entries(CAUSES))(
    '%s is the only finding when its cause is present',
    (reason, [configs, agent, expected]) => {
      const { findings } = lint(configs, agent);
      expect(findings.map((finding) => finding.reason)).toEqual([`FINDING_REASON_${reason}`]);
      expect(findings[0]).toMatchObject(expected);
      expect(findings[0]?.message).not.toBe('');
    },
  );

  it('INVALID_FIELD reports the violation for which a write would be rejected', () => {
    expect(refusedField({ field: 'config.provider', description: 'is required' })).toEqual({
      severity: 'SEVERITY_ERROR',
      reason: 'FINDING_REASON_INVALID_FIELD',
      field: 'config.provider',
      message: 'is required',
      configured: '',
      effective: '',
      hop: undefined,
    });
  });

  it('NO_USABLE_HOP is reported by the resolution, while the lint reports the cause at each hop', () => {
    const unknownProvider = [configRow({ provider: 'gone' })];
    expect(lint(unknownProvider).findings.map(({ reason }) => reason)).not.toContain('FINDING_REASON_NO_USABLE_HOP');
    const { hops, findings } = resolve(state, agentRow(), unknownProvider, NOW);
    expect(hops).toEqual([]);
    expect(findings.map(({ reason }) => reason)).toEqual([
      'FINDING_REASON_UNKNOWN_PROVIDER',
      'FINDING_REASON_NO_USABLE_HOP',
    ]);
    expect(findings[1]).toMatchObject({
      severity: 'SEVERITY_ERROR',
      hop: undefined,
      message: expect.stringContaining('"trader"'),
    });
  });

  it('is covered by the table above', () => {
    const known = Object.keys(FindingReason).filter((name) => name !== 'UNSPECIFIED' && name !== 'UNRECOGNIZED');
    expect([...Object.keys(CAUSES), 'INVALID_FIELD', 'NO_USABLE_HOP', ...OF_OTHERS].sort()).toEqual(known.sort());
  });
});

describe('lintChain', () => {
  it('returns no findings when the chain is valid', () => {
    const { hops, findings } = lint([configRow({ temperature: 0, max_tokens: 2000 })]);
    expect(findings).toEqual([]);
    expect(hops).toEqual([
      {
        index: 0,
        source: 'HOP_SOURCE_CONFIG',
        config_id: 1,
        provider: 'openai',
        model_name: 'gpt-4',
        parameters: [
          { name: 'temperature', wire_name: 'temperature', value_json: '0' },
          { name: 'max_tokens', wire_name: 'max_tokens', value_json: '2000' },
        ],
      },
    ]);
  });

  it('sorts findings by severity, errors first', () => {
    const configs = [
      configRow({ id: 1, model_name: 'gpt-5.1' }),
      configRow({ id: 2, model_name: 'gpt-5.1', fallback_provider: 'gone', fallback_model: 'm' }),
      configRow({ id: 3, model_name: 'old', price_given: true, cost_per_1k_input_tokens: 1 }),
    ];
    const severities = lint(configs).findings.map((finding) => finding.severity);
    const ranks = severities.map((severity) =>
      ['SEVERITY_ERROR', 'SEVERITY_WARNING', 'SEVERITY_INFO'].indexOf(severity),
    );
    expect(new Set(ranks)).toEqual(new Set([0, 1, 2]));
    expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
  });

  it('reports a model as shut down when its shutdown date is reached', () => {
    const { findings } = lint([configRow({ model_name: 'old' })]);
    expect(findings[0]).toMatchObject({
      severity: 'SEVERITY_ERROR',
      reason: 'FINDING_REASON_MODEL_RETIRING',
      message: 'openai/old was shut down on 2026-08-01; use gpt-5.1: agentllm configs update 1 --model openai/gpt-5.1',
    });
  });

  it.each([
    [
      'a fallback',
      { fallback_provider: 'openai', fallback_model: 'old' },
      'agentllm configs update 1 --fallback openai/gpt-5.1',
    ],
    ['a config that is not stored', { id: 0, model_name: 'old' }, undefined],
    ['a model without a successor', { model_name: 'lost' }, undefined],
    ['a model whose successor is not in the catalogue', { model_name: 'orphan' }, undefined],
    ['a model whose successor is shut down', { model_name: 'late' }, undefined],
  ])('names the command that replaces %s, if there is one', (_, fields, command) => {
    const messages = lint([configRow(fields)])
      .findings.filter(({ reason }) => reason === 'FINDING_REASON_MODEL_RETIRING')
      .map(({ message }) => message);
    expect(messages).toHaveLength(1);
    expect(messages[0]?.split(': ')[1]).toBe(command);
    expect(messages[0]).toMatch(/ was shut down on 2026-\d\d-\d\d; (use [\w.-]+|choose another)/);
  });

  it('names no command in the response of a write, because a dry run does not know the id of a new config', () => {
    const findings = lintConfig(state, agentRow(), configRow({ id: 7, model_name: 'old' }), NOW);
    expect(findings[0]?.message).toBe('openai/old was shut down on 2026-08-01; use gpt-5.1');
  });

  it('names the command that replaces the default model of an agent', () => {
    const { findings } = lint([], { llm_provider: 'openai', llm_model: 'old' });
    expect(findings[0]?.message).toMatch(/; use gpt-5\.1: agentllm agents update trader --model openai\/gpt-5\.1$/);
  });

  it('names fields of the agent when the default model of the agent is used', () => {
    world.model({ provider: 'claude', name: 'unpriced' });
    const { hops, findings } = lint([], { llm_provider: 'claude', llm_model: 'unpriced', temperature: 0.7 });
    expect(hops).toMatchObject([{ index: 0, source: 'HOP_SOURCE_AGENT', config_id: undefined }]);
    const fields = findings.map(({ reason, field }) => [reason.replace('FINDING_REASON_', ''), field]);
    expect(fields).toContainEqual(['PARAMETER_REJECTED', 'agent.temperature']);
    expect(fields).toContainEqual(['PARAMETER_REQUIRED', 'agent.max_tokens']);
    expect(fields).toContainEqual(['PRICE_UNKNOWN', 'agent.llm_model']);
  });

  it('gives a fallback the parameters of its config, adapted to the fallback model', () => {
    const fallback = { fallback_provider: 'claude', fallback_model: 'claude-opus-4-1' };
    const { hops } = lint([
      configRow({ temperature: 1.5, max_tokens: 300, extra_params: { stop_sequences: ['END'] }, ...fallback }),
    ]);
    expect(hops.map((hop) => hop.parameters.map(({ wire_name, value_json }) => [wire_name, value_json]))).toEqual([
      [
        ['temperature', '1.5'],
        ['max_tokens', '300'],
        ['stop', '["END"]'],
      ],
      [
        ['temperature', '1'],
        ['max_tokens', '300'],
        ['stop_sequences', '["END"]'],
      ],
    ]);
  });

  it('does not send request_timeout_ms as a parameter', () => {
    const { hops, findings } = lint([configRow({ extra_params: { request_timeout_ms: 5 }, temperature: null })]);
    expect([hops[0]?.parameters, findings]).toEqual([[], []]);
  });

  it('sets hop to the index in the returned hops when duplicates and excluded hops are removed', () => {
    const configs = [
      configRow({ id: 1 }),
      configRow({ id: 2 }),
      configRow({ id: 3, provider: 'claude', model_name: 'claude-opus-5' }),
      configRow({ id: 4, model_name: 'gpt-99' }),
    ];
    const { hops, findings } = lint(configs, { substitution_policy: 'SUBSTITUTION_POLICY_SAME_PROVIDER' });
    expect(hops.map((hop) => [hop.index, hop.config_id])).toEqual([
      [0, 1],
      [1, 4],
    ]);
    const unknown = findings.find((finding) => finding.reason === 'FINDING_REASON_UNKNOWN_MODEL');
    expect(unknown?.hop).toBe(1);
  });

  it('does not apply the price of a config to its fallback model', () => {
    const fallback = { fallback_provider: 'openai', fallback_model: 'unpriced' };
    const { findings } = lint([configRow({ ...priced, temperature: null, ...fallback })]);
    expect(findings).toMatchObject([{ reason: 'FINDING_REASON_PRICE_UNKNOWN', hop: 1 }]);
  });

  it('names the unreadable credential at the hops that use it', () => {
    const fallback = { fallback_provider: 'claude', fallback_model: 'claude-3-haiku-20240307' };
    const { findings } = lint([configRow({ credential_id: desk.id, max_tokens: 9, ...fallback })]);
    expect(findings).toMatchObject([
      {
        reason: 'FINDING_REASON_KEY_UNREADABLE',
        hop: 0,
        field: 'config.credential_name',
        message: expect.stringContaining('credential "desk"'),
      },
    ]);
  });

  // A row of the original Python system can contain an alias: the import does not rewrite it.
  it('finds the model when the config names the provider by an alias', () => {
    const { findings } = lint([claude({ provider: 'anthropic' })]);
    expect(findings).toEqual([]);
  });
});

describe('lintConfig', () => {
  it('lints the config as if it were in use when the agent is inactive or the config is disabled', () => {
    const agent = agentRow({ is_active: false });
    const findings = lintConfig(state, agent, claude({ temperature: 0, top_p: 0.5, enabled: false }), NOW);
    expect(findings.map((finding) => finding.reason)).toEqual(['FINDING_REASON_PARAMETER_CONFLICT']);
  });
});
