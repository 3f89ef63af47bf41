import { describe, expect, it } from 'vitest';
import type { Hop } from '../../../gen/ts/agentllm/v1/finding.js';
import { failure, unique, useService } from '../../support/service.js';
import {
  type ConfigFields,
  configsOf,
  findingOf,
  GPT4,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  notFound,
  present,
  reasonsOf,
  revision,
  withoutShutdowns,
} from './support.js';

describe('ValidateConfig', () => {
  const service = useService('embedded');
  const validate = (request: Parameters<ReturnType<typeof service>['configs']['validateConfig']>[0]) =>
    service().configs.validateConfig(request);
  const models = (hops: readonly Hop[]) => hops.map((hop) => `${hop.provider}/${hop.model_name}`);
  const sent = (hop: Hop | undefined) =>
    Object.fromEntries(present(hop).parameters.map((each) => [each.wire_name, JSON.parse(each.value_json)]));

  it('rejects a request without exactly one target', async () => {
    const { id, agent_id } = await newConfig(service());
    await invalid(validate({}));
    await invalid(validate({ id, agent: { id: agent_id } }));
    await invalid(validate({ id, config: GPT4 }));
    await invalid(validate({ config: GPT4 }), 'agent');
  });

  it('returns NOT_FOUND for a missing config or agent', async () => {
    await notFound(validate({ id: 2_147_483_647 }), 'CONFIG_NOT_FOUND');
    await notFound(validate({ agent: { name: unique('none') } }), 'AGENT_NOT_FOUND');
    await notFound(validate({ agent: { name: unique('none') }, config: GPT4 }), 'AGENT_NOT_FOUND');
    await notFound(validate({ config: { id: 2_147_483_647, temperature: 1 } }), 'CONFIG_NOT_FOUND');
    await invalid(validate({ id: 0 }), 'id');
  });

  it('returns the chain of the enabled configs in order, each with its fallback', async () => {
    const agent = await newAgent(service());
    const last = await newConfig(service(), { priority: 2, model_name: 'gpt-4o', max_tokens: 100 }, agent);
    await newConfig(service(), { priority: 0, enabled: false, model_name: 'gpt-4-turbo' }, agent);
    const first = await newConfig(
      service(),
      { priority: 1, temperature: 0, fallback_provider: 'claude', fallback_model: 'claude-3-opus-20240229' },
      agent,
    );
    const { hops, acceptable } = await validate({ id: last.id });
    expect(acceptable).toBe(true);
    expect(hops.map(({ index, source, config_id }) => ({ index, source, config_id }))).toEqual([
      { index: 0, source: 'HOP_SOURCE_CONFIG', config_id: first.id },
      { index: 1, source: 'HOP_SOURCE_FALLBACK', config_id: first.id },
      { index: 2, source: 'HOP_SOURCE_CONFIG', config_id: last.id },
    ]);
    expect(models(hops)).toEqual(['openai/gpt-4', 'claude/claude-3-opus-20240229', 'openai/gpt-4o']);
    expect(sent(hops[0])).toEqual({ temperature: 0 });
    expect(sent(hops[1])).toEqual({ temperature: 0, max_tokens: 4096 });
    expect(sent(hops[2])).toEqual({ temperature: 0.7, max_tokens: 100 });
    expect((await validate({ agent: { name: agent.name } })).hops).toEqual(hops);
  });

  it('returns the default model of the agent when no config is enabled', async () => {
    const agent = await newAgent(service(), { llm_model: 'gpt-4o', temperature: 0.25, max_tokens: 11 });
    await newConfig(service(), { enabled: false }, agent);
    const { hops, findings, acceptable } = await validate({ agent: { id: agent.id } });
    expect(acceptable).toBe(true);
    expect(reasonsOf(findings)).toContain('NO_ENABLED_CONFIG');
    expect(hops).toHaveLength(1);
    expect(hops[0]).toMatchObject({ index: 0, source: 'HOP_SOURCE_AGENT', provider: 'openai', model_name: 'gpt-4o' });
    expect(hops[0]?.config_id).toBeUndefined();
    expect(sent(hops[0])).toEqual({ temperature: 0.25, max_tokens: 11 });
  });

  it('collapses hops with the same provider and model into the first', async () => {
    const agent = await newAgent(service());
    await newConfig(service(), { fallback_provider: 'openai', fallback_model: 'gpt-4o' }, agent);
    await newConfig(service(), { model_name: 'gpt-4o' }, agent);
    await newConfig(service(), {}, agent);
    const { hops, findings } = await validate({ agent: { id: agent.id } });
    expect(models(hops)).toEqual(['openai/gpt-4', 'openai/gpt-4o']);
    expect(reasonsOf(findings).filter((reason) => reason === 'DUPLICATE_HOP')).toHaveLength(2);
  });

  const policies = [
    ['SUBSTITUTION_POLICY_NEVER', ['openai/gpt-4']],
    ['SUBSTITUTION_POLICY_SAME_PROVIDER', ['openai/gpt-4', 'openai/gpt-4o']],
    ['SUBSTITUTION_POLICY_SAME_MODEL', ['openai/gpt-4', 'OWN/gpt-4']],
    ['SUBSTITUTION_POLICY_ANY', ['openai/gpt-4', 'claude/claude-3-haiku-20240307', 'openai/gpt-4o', 'OWN/gpt-4']],
  ] as const;
  it.each(policies)('limits the chain according to %s', async (substitution_policy, left) => {
    const { name } = await newProvider(service());
    const agent = await newAgent(service(), { substitution_policy });
    await newConfig(service(), { fallback_provider: 'claude', fallback_model: 'claude-3-haiku-20240307' }, agent);
    await newConfig(service(), { model_name: 'gpt-4o', fallback_provider: name, fallback_model: 'gpt-4' }, agent);
    const { hops, findings } = await validate({ agent: { id: agent.id } });
    expect(models(hops)).toEqual(left.map((hop) => hop.replace('OWN', name)));
    expect(hops.map((hop) => hop.index)).toEqual(left.map((_, index) => index));
    expect(reasonsOf(findings).filter((reason) => reason === 'HOP_CUT_BY_POLICY')).toHaveLength(4 - left.length);
  });

  it('lints a proposed config in its position without saving it', async () => {
    const stored = await newConfig(service(), { priority: 5 });
    const agent = { id: stored.agent_id };
    const before = await revision(service());
    const { hops, acceptable, findings } = await validate({ agent, config: { ...HAIKU, priority: 1, max_tokens: 9 } });
    expect(acceptable).toBe(true);
    expect(models(hops)).toEqual(['claude/claude-3-haiku-20240307', 'openai/gpt-4']);
    expect(hops[0]?.config_id).toBeUndefined();
    expect(hops[1]?.config_id).toBe(stored.id);
    expect(withoutShutdowns(findings)).toEqual([]);
    expect(await configsOf(service(), agent.id)).toEqual([stored]);
    expect(await revision(service())).toBe(before);
  });

  it('lints a change of a stored config with a mask', async () => {
    const stored = await newConfig(service(), { max_tokens: 9 });
    const { hops } = await validate({ config: { id: stored.id, temperature: 0 }, update_mask: ['max_tokens'] });
    expect(sent(hops[0])).toEqual({ temperature: 0.7 });
    const { hops: merged } = await validate({ config: { id: stored.id, temperature: 0 } });
    expect(sent(merged[0])).toEqual({ temperature: 0, max_tokens: 9 });
    expect(await getConfig(service(), stored.id)).toEqual(stored);
  });

  it('returns the violations of a write as findings for an invalid proposal', async () => {
    const { id } = await newAgent(service());
    const config: ConfigFields = {
      provider: 'opnai',
      model_name: 'gpt-4',
      temperature: 3,
      fallback_model: 'x',
      priority: 2_000_000,
    };
    const error = await failure(service().configs.createConfig({ agent: { id }, config }));
    const { findings, hops, acceptable } = await validate({ agent: { id }, config });
    expect(acceptable).toBe(false);
    expect(hops).toEqual([]);
    const found = findings.filter((finding) => finding.reason === 'FINDING_REASON_INVALID_FIELD');
    expect(found.map(({ field, severity }) => [field, severity])).toEqual(
      error.violations.map((violation) => [violation.field, 'SEVERITY_ERROR']),
    );
    for (const [i, violation] of error.violations.entries()) {
      expect(found[i]?.message).toContain(violation.description);
    }
  });

  it('reports invalid paths in the mask of a proposal', async () => {
    const { id } = await newConfig(service());
    const outcome = await validate({ config: { id }, update_mask: ['nonsense'] }).catch((error: unknown) => error);
    expect(JSON.stringify(outcome, (_, value) => (typeof value === 'bigint' ? `${value}` : value))).toContain(
      'nonsense',
    );
    expect(outcome).not.toMatchObject({ acceptable: true });
  });

  it('adapts the parameters of a config to the model of its fallback', async () => {
    const { agent_id } = await newConfig(service(), {
      temperature: 1.5,
      max_tokens: 4096,
      fallback_provider: 'claude',
      fallback_model: 'claude-3-haiku-20240307',
    });
    const { findings, hops } = await validate({ agent: { id: agent_id } });
    const clamped = findingOf(findings, 'PARAMETER_CLAMPED');
    expect(clamped).toMatchObject({ hop: 1, configured: '1.5', effective: '1' });
    expect(clamped.field).toMatch(/temperature$/);
    expect(sent(hops[0])).toMatchObject({ temperature: 1.5 });
    expect(sent(hops[1])).toMatchObject({ temperature: 1, max_tokens: 4096 });
  });

  it('lowers max_tokens to the output limit of the fallback model', async () => {
    const { agent_id } = await newConfig(service(), {
      model_name: 'gpt-4o',
      max_tokens: 16_384,
      fallback_provider: 'openai',
      fallback_model: 'gpt-4',
    });
    const { findings, hops } = await validate({ agent: { id: agent_id } });
    expect(findingOf(findings, 'PARAMETER_CLAMPED')).toMatchObject({ hop: 1, configured: '16384', effective: '4096' });
    expect(sent(hops[1])).toMatchObject({ max_tokens: 4096 });
  });

  it('omits parameters of a fallback that its model rejects', async () => {
    const { agent_id } = await newConfig(service(), {
      provider: 'openai',
      model_name: 'o4-mini',
      max_tokens: 500,
      extra_params: { reasoning_effort: 'high', seed: 7n },
      fallback_provider: 'openai',
      fallback_model: 'gpt-4',
    });
    const { findings, hops } = await validate({ agent: { id: agent_id } });
    expect(sent(hops[0])).toEqual({ max_completion_tokens: 500, reasoning_effort: 'high', seed: 7 });
    expect(sent(hops[1])).toEqual({ max_tokens: 500, temperature: 0.7, seed: 7 });
    const rejected = findings.filter((finding) => finding.reason === 'FINDING_REASON_PARAMETER_REJECTED');
    expect(rejected.map(({ hop, configured }) => [hop, configured])).toEqual(
      expect.arrayContaining([
        [0, '0.7'],
        [1, expect.stringContaining('high')],
      ]),
    );
  });

  it('never sends metadata or the request timeout', async () => {
    const { agent_id } = await newConfig(service(), {
      metadata_json: '{"base_url": "https://evil.example"}',
      extra_params: { request_timeout_ms: 99, stop_sequences: ['END'] },
    });
    const { hops } = await validate({ agent: { id: agent_id } });
    expect(sent(hops[0])).toEqual({ temperature: 0.7, stop: ['END'] });
  });

  it('sends only one of two parameters that exclude each other', async () => {
    const { agent_id } = await newConfig(service(), { ...HAIKU, top_p: 0.5, max_tokens: 5 });
    const { findings, hops } = await validate({ agent: { id: agent_id } });
    expect(sent(hops[0])).toEqual({ temperature: 0.7, max_tokens: 5 });
    expect(findingOf(findings, 'PARAMETER_CONFLICT')).toMatchObject({ configured: '0.5', effective: '' });
  });

  it('omits temperature and top_p when thinking is enabled for Claude', async () => {
    const { agent_id } = await newConfig(service(), {
      provider: 'claude',
      model_name: 'claude-opus-4-5',
      max_tokens: 5000,
      top_p: 0.5,
      extra_params: { thinking_budget_tokens: 2000 },
    });
    const { hops } = await validate({ agent: { id: agent_id } });
    expect(sent(hops[0])).toEqual({ max_tokens: 5000, thinking: { type: 'enabled', budget_tokens: 2000 } });
  });

  it('reports problems of a chain as findings and not as errors', async () => {
    const { name } = await newProvider(service());
    const agent = await newAgent(service(), { is_active: false });
    await newConfig(service(), { provider: 'openai', model_name: 'gpt-96' }, agent, true);
    await newConfig(service(), { provider: name, model_name: 'm', cost_per_1k_input_tokens: 1 }, agent);
    await newConfig(service(), { provider: 'claude', model_name: 'claude-opus-5' }, agent);
    const gone = await newModel(service(), {
      provider: 'openai',
      retires_at: new Date('2025-01-01T00:00:00Z'),
      replaced_by: 'gpt-4o',
    });
    await newConfig(service(), { provider: 'openai', model_name: gone.name }, agent);
    await service().providers.updateProvider({ provider: { name, enabled: false } });
    const { findings, acceptable } = await validate({ agent: { id: agent.id } });
    expect(acceptable).toBe(true);
    expect(reasonsOf(findings)).toEqual(
      expect.arrayContaining([
        'UNKNOWN_MODEL',
        'PROVIDER_DISABLED',
        'PRICE_HALF_GIVEN',
        'PRICE_UNKNOWN',
        'MODEL_RETIRING',
        'AGENT_INACTIVE',
      ]),
    );
    expect(findingOf(findings, 'PROVIDER_DISABLED').severity).toBe('SEVERITY_ERROR');
    const order = ['SEVERITY_ERROR', 'SEVERITY_WARNING', 'SEVERITY_INFO'];
    const ranks = findings.map((finding) => order.indexOf(finding.severity));
    expect(ranks).toEqual([...ranks].sort());
    for (const finding of findings) expect(finding.message).not.toBe('');
  });

  it('returns no findings for a valid chain', async () => {
    const { id } = await newConfig(service(), { provider: 'grok', model_name: 'grok-4.3' });
    expect((await validate({ id })).findings).toEqual([]);
  });

  it('accepts an unknown model in a proposal with allow_unknown_model', async () => {
    const { id } = await newAgent(service());
    const config = { provider: 'openai', model_name: 'gpt-95' };
    expect((await validate({ agent: { id }, config })).acceptable).toBe(false);
    const { acceptable, findings } = await validate({ agent: { id }, config, allow_unknown_model: true });
    expect(acceptable).toBe(true);
    expect(reasonsOf(findings)).toContain('UNKNOWN_MODEL');
  });

  it('returns the findings of the write for a stored config', async () => {
    const { id } = await newAgent(service());
    const { config, findings } = await service().configs.createConfig({
      agent: { id },
      config: { provider: 'claude', model_name: 'claude-opus-5', top_p: 0.1 },
    });
    expect(findings.length).toBeGreaterThan(0);
    expect((await validate({ id: present(config).id })).findings).toEqual(findings);
  });
});
