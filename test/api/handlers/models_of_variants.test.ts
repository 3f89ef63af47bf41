import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import { newAgent, newConfig, newModel, newProvider, precondition, present } from './support.js';

describe.each(['embedded', 'postgres'] as const)('a model that only a variant names on %s', (engine) => {
  const service = useService(engine);

  /** A draft in which one variant has a model of a new provider. */
  async function draft(fields: { readonly retires_at?: Date; readonly replaced_by?: string } = {}) {
    const provider = (await newProvider(service())).name;
    const model = await newModel(service(), { provider, ...fields });
    const agent = await newAgent(service());
    const config = await newConfig(service(), {}, agent);
    const request = { agent: { id: agent.id }, name: unique('experiment') };
    await service().experiments.createExperiment({
      agent: request.agent,
      experiment: {
        name: request.name,
        variants: [
          { name: 'now', control: true, weight_basis_points: 5000 },
          { name: 'new', weight_basis_points: 5000, overrides: { provider, model_name: model.name } },
        ],
        primary_metric: { kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' },
      },
    });
    return { provider, model: model.name, agent, config, request };
  }
  const usesOf = async (agentId: number) => {
    const all = [];
    for (let page_token = ''; ; ) {
      const page = await service().configs.listRetiringModels({ page_size: 1, page_token });
      all.push(...page.uses.filter(({ agent_id }) => agent_id === agentId));
      page_token = page.next_page_token;
      if (page_token === '') return all;
    }
  };

  it('is not deleted until the experiment is concluded or deleted, and neither is its provider', async () => {
    const { providers, experiments } = service();
    for (const end of ['conclude', 'delete'] as const) {
      const { provider, model, request } = await draft();
      const error = await precondition(providers.deleteModel({ provider, name: model }), 'MODEL_IN_USE');
      expect(error.message).toContain('is used by 1 configs, agents or experiments');
      await precondition(providers.deleteProvider({ name: provider }), 'PROVIDER_IN_USE');
      if (end === 'delete') await experiments.deleteExperiment(request);
      else {
        await experiments.startExperiment(request);
        await precondition(providers.deleteModel({ provider, name: model }), 'MODEL_IN_USE');
        await experiments.concludeExperiment(request);
      }
      await providers.deleteModel({ provider, name: model });
      await providers.deleteProvider({ name: provider });
    }
  });

  it('is listed with its experiment when it is shut down soon', async () => {
    const { provider, model, agent, config, request } = await draft({
      retires_at: new Date(Date.now() + 3 * 86_400_000),
      replaced_by: 'next',
    });
    const use = {
      agent_id: agent.id,
      agent_name: agent.name,
      config_id: config.id,
      source: 'HOP_SOURCE_CONFIG',
      provider,
      model_name: model,
      state: 'RETIREMENT_STATE_RETIRING',
      replaced_by: 'next',
      experiment: request.name,
      variant: 'new',
    };
    // The model of the config is shut down in the built-in catalogue.
    const ofVariants = async () => (await usesOf(agent.id)).filter(({ experiment }) => experiment !== '');
    expect(await ofVariants()).toMatchObject([{ ...use, enabled: false }]);
    await service().experiments.startExperiment(request);
    expect(await ofVariants()).toMatchObject([{ ...use, enabled: true }]);
    expect(present((await usesOf(agent.id)).at(-1)).variant).toBe('new');
    await service().experiments.concludeExperiment(request);
    expect(await ofVariants()).toEqual([]);
  });
});
