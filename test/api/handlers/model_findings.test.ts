import { describe, expect, it } from 'vitest';
import { failure, unique, useService } from '../../support/service.js';
import { findingOf, GPT4, newAgent, newConfig, newModel, newProvider, present, reasonsOf } from './support.js';

const DAY = 86_400_000;

describe.each(['embedded', 'postgres'] as const)('the lint of models on %s', (backend) => {
  const service = useService(backend);

  async function lint(provider: string, model_name: string, more: object = {}) {
    const { id } = await newConfig(service(), { provider, model_name, ...more }, undefined, true);
    return { id, findings: (await service().configs.validateConfig({ id })).findings };
  }

  it('suggests a similar model for an unknown one, if there is one', async () => {
    const { name: provider } = await newProvider(service());
    await newModel(service(), { provider, name: 'llama-3-70b' });
    const similar = findingOf((await lint(provider, 'llama-3-70')).findings, 'UNKNOWN_MODEL');
    expect(similar.message).toMatch(/did you mean "(.*)?llama-3-70b"\?/);
    expect(similar.hop).toBe(0);
    expect(similar.field).toMatch(/model_name$/);
    const dissimilar = findingOf((await lint(provider, 'something-else-altogether')).findings, 'UNKNOWN_MODEL');
    expect(dissimilar.message).not.toContain('did you mean');
    const builtIn = findingOf((await lint('openai', 'gpt-4oo')).findings, 'UNKNOWN_MODEL');
    expect(builtIn.message).toContain('did you mean');
    expect(builtIn.message).toContain('gpt-4o');
  });

  it('reports an unknown fallback model with hop 1 and the field of the fallback', async () => {
    const { name: fallback_provider } = await newProvider(service());
    await newModel(service(), { provider: fallback_provider, name: 'mistral-large' });
    const { findings } = await lint('openai', 'gpt-4', { fallback_provider, fallback_model: 'mistral-larg' });
    const found = findingOf(findings, 'UNKNOWN_MODEL');
    expect(found.hop).toBe(1);
    expect(found.field).toContain('fallback_model');
    expect(found.message).toContain('mistral-large');
  });

  it('suggests no model of another provider, and reports no known model', async () => {
    const [one, other] = [await newProvider(service()), await newProvider(service())];
    await newModel(service(), { provider: other.name, name: 'phi-medium' });
    const { findings } = await lint(one.name, 'phi-mediun');
    expect(findingOf(findings, 'UNKNOWN_MODEL').message).not.toContain('phi-medium"');
    expect(reasonsOf((await lint(other.name, 'phi-medium')).findings)).not.toContain('UNKNOWN_MODEL');
  });

  it('limits the length of messages with hostile names', async () => {
    const { name: provider } = await newProvider(service());
    for (const name of ['%s%n', '"; drop table x', '__proto__', 'constructor', '𝕏'.repeat(100), '\u202egpt']) {
      const { findings } = await lint(provider, name);
      const { message } = findingOf(findings, 'UNKNOWN_MODEL');
      expect(message.length).toBeLessThan(1_000);
    }
  });

  it('reports MODEL_RETIRING for a model with a retirement date, and MODEL_DEPRECATED for one with only a successor', async () => {
    const { name: provider } = await newProvider(service());
    const day = (days: number) => new Date(Date.now() + days * DAY);
    await newModel(service(), { provider, name: 'old', replaced_by: 'new-one' });
    await newModel(service(), { provider, name: 'going', replaced_by: 'new-one', retires_at: day(10) });
    await newModel(service(), { provider, name: 'gone', retires_at: day(-10) });
    await newModel(service(), { provider, name: 'fine' });
    const findingsOf = async (name: string) => (await lint(provider, name)).findings;
    const old = findingOf(await findingsOf('old'), 'MODEL_DEPRECATED');
    expect(old.message).toContain('new-one');
    expect(reasonsOf(await findingsOf('old'))).not.toContain('MODEL_RETIRING');
    const going = findingOf(await findingsOf('going'), 'MODEL_RETIRING');
    expect(going.message).toContain('new-one');
    expect(reasonsOf(await findingsOf('going'))).not.toContain('MODEL_DEPRECATED');
    expect(findingOf(await findingsOf('gone'), 'MODEL_RETIRING').severity).toMatch(/WARNING|ERROR/);
    for (const reason of ['MODEL_DEPRECATED', 'MODEL_RETIRING'])
      expect(reasonsOf(await findingsOf('fine'))).not.toContain(reason);
    // The successor is cleared.
    await service().providers.updateModel({ model: { provider, name: 'old' }, update_mask: ['replaced_by'] });
    expect(reasonsOf(await findingsOf('old'))).not.toContain('MODEL_DEPRECATED');
  });

  it('does not report a model with an empty successor as deprecated', async () => {
    const { name: provider } = await newProvider(service());
    const name = unique('empty');
    const created = await newModel(service(), { provider, name, replaced_by: '' }).catch(() => undefined);
    if (!created) return;
    expect(reasonsOf((await lint(provider, name)).findings)).not.toContain('MODEL_DEPRECATED');
    const { uses } = await service().configs.listRetiringModels({ page_size: 1000 });
    expect(uses.filter((use) => use.provider === provider)).toEqual([]);
  });

  it('returns the same findings in the response of a write', async () => {
    const { name: provider } = await newProvider(service());
    await newModel(service(), { provider, name: 'old', replaced_by: 'new-one' });
    const { id } = await newAgent(service());
    const { findings } = await service().configs.createConfig({
      agent: { id },
      config: { provider, model_name: 'old' },
    });
    expect(reasonsOf(findings)).toContain('MODEL_DEPRECATED');
  });

  it('relies on replaced_by, which has at most 100 code points and no control characters', async () => {
    const { name: provider } = await newProvider(service());
    await newModel(service(), { provider, replaced_by: '𝕏'.repeat(100) });
    for (const replaced_by of ['x'.repeat(101), 'nul\u0000', 'line\n']) {
      const error = await failure(newModel(service(), { provider, replaced_by }));
      expect([replaced_by, error.fields]).toEqual([replaced_by, ['model.replaced_by']]);
    }
  });

  it('finds configs by exact model name in ListConfigs, with other filters and pages', async () => {
    const agent = await newAgent(service());
    const { name: provider } = await newProvider(service());
    const ids: number[] = [];
    for (const model_name of ['alpha', 'beta', 'alpha', 'Alpha', 'alpha ', 'alph%', 'alpha'].map((one) => one.trim()))
      ids.push(
        (
          await newConfig(
            service(),
            { provider, model_name, fallback_provider: 'openai', fallback_model: 'gpt-4' },
            agent,
          )
        ).id,
      );
    const foreign = await newConfig(service(), { provider: 'openai', model_name: 'alpha' }, agent, true);
    const list = async (more: object) => {
      const { configs, next_page_token } = await service().configs.listConfigs({ agent: { id: agent.id }, ...more });
      return { ids: configs.map((one) => one.id), next_page_token };
    };
    const alphas = [ids[0], ids[2], ids[4], ids[6]];
    expect((await list({ model_name: 'alpha' })).ids).toEqual([...alphas, foreign.id]);
    expect((await list({ model_name: 'alpha', provider })).ids).toEqual(alphas);
    expect((await list({ model_name: 'Alpha' })).ids).toEqual([ids[3]]);
    expect((await list({ model_name: 'alph%' })).ids).toEqual([ids[5]]);
    expect((await list({ model_name: 'gpt-4' })).ids).toEqual([]);
    expect((await list({ model_name: 'nobody' })).ids).toEqual([]);
    await service().configs.updateConfig({ config: { id: present(ids[2]), enabled: false } });
    expect((await list({ model_name: 'alpha', enabled: false })).ids).toEqual([ids[2]]);
    const paged: number[] = [];
    let page_token = '';
    do {
      const page = await list({ model_name: 'alpha', page_size: 2, page_token });
      paged.push(...page.ids);
      page_token = page.next_page_token;
      expect(page.ids.length).toBeLessThanOrEqual(2);
      if (page_token) {
        const reused = failure(list({ model_name: 'beta', page_size: 2, page_token }));
        expect((await reused).reason).toBe('INVALID_PAGE_TOKEN');
      }
    } while (page_token);
    expect(paged).toEqual([...alphas, foreign.id]);
    for (const model_name of ['x'.repeat(101), 'nul\u0000', '\ud800']) {
      const outcome = await service()
        .configs.listConfigs({ model_name })
        .then(({ configs }) => configs.length)
        .catch((error: { code: number }) => error.code);
      expect([0, 3]).toContain(outcome);
    }
    expect(unique(String(GPT4.model_name))).toContain('gpt-4');
  });
});
